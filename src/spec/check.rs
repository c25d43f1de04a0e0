//! A value against a JSON Schema, with every mistake at once and in plain words.
//!
//! The schemas are our own (schemars makes them from the option structs), so this knows the part of draft 2020-12 that they use. What it
//! does not know it lets pass: the typed deserialization that follows is the last word.

use serde_json::{Map, Value as Json};

use super::tree::{Node, Value, join};
use super::yaml::plain_scalar;
use crate::error::{Mistake, nearest};

/// Schemas with their shared definitions.
pub(crate) struct Checker<'a> {
    defs: Option<&'a Map<String, Json>>,
    /// Comparisons left. Alternatives within alternatives could take forever; no real spec comes near.
    fuel: std::cell::Cell<u32>,
}

impl<'a> Checker<'a> {
    /// A checker for schemas whose `$ref`s point into `$defs` of `root`.
    pub fn new(root: &'a Json) -> Self {
        Self { defs: root.get("$defs").and_then(Json::as_object), fuel: std::cell::Cell::new(200_000) }
    }

    /// Adds every mistake of `node` to `out`. Values that came out of `${…}` take the type that is asked for.
    pub fn check(&self, schema: &Json, node: &mut Node, at: &str, out: &mut Vec<Mistake>) {
        let left = self.fuel.get();
        let Some(schema) = schema.as_object().filter(|_| left > 0) else { return };
        self.fuel.set(left - 1);
        if matches!(node.value, Value::Broken) {
            return;
        }
        if let Some(target) = self.target(schema) {
            self.check(target, node, at, out);
        }
        for part in schema.get("allOf").and_then(Json::as_array).into_iter().flatten() {
            self.check(part, node, at, out);
        }
        if schema.contains_key("anyOf") || schema.contains_key("oneOf") || schema.contains_key("enum") || schema.contains_key("const") {
            let before = out.len();
            self.check_alternatives(schema, node, at, out);
            if out.len() > before {
                return;
            }
        }
        if self.check_type(schema, node, at, out) {
            match &mut node.value {
                Value::Number(_) => check_range(schema, node, at, out),
                Value::Text(_) => check_text(schema, node, at, out),
                Value::List(_) => self.check_list(schema, node, at, out),
                Value::Map(_) => self.check_map(schema, node, at, out),
                _ => {}
            }
        }
    }

    fn target(&self, schema: &Map<String, Json>) -> Option<&'a Json> {
        let name = schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?;
        self.defs?.get(name)
    }

    /// True where the node's type is one that the schema allows (or where it allows any).
    fn check_type(&self, schema: &Map<String, Json>, node: &mut Node, at: &str, out: &mut Vec<Mistake>) -> bool {
        let types: Vec<&str> = match schema.get("type") {
            Some(Json::String(one)) => vec![one],
            Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
            _ => return true,
        };
        if retype(node, |value| types.iter().any(|t| has_type(value, t))) {
            return true;
        }
        let wanted: Vec<String> = types.iter().filter(|t| **t != "null").map(|t| type_words(t, schema)).collect();
        out.push(mismatch(&either(&wanted), node, at, types.contains(&"array")));
        false
    }

    fn check_list(&self, schema: &Map<String, Json>, node: &mut Node, at: &str, out: &mut Vec<Mistake>) {
        let Value::List(items) = &mut node.value else { return };
        let count = items.len() as u64;
        let bound = |name: &str| schema.get(name).and_then(Json::as_u64);
        if bound("minItems").is_some_and(|least| count < least) {
            let least = bound("minItems").unwrap_or_default();
            let words = match count {
                0 => "this list is empty".to_owned(),
                1 => "this list has one entry".to_owned(),
                n => format!("this list has {n} entries"),
            };
            out.push(Mistake::new(at, words).help(format!("give at least {least}")));
        }
        if let Some(most) = bound("maxItems").filter(|most| count > *most) {
            out.push(Mistake::new(at, format!("this list has {count} entries")).help(format!("give at most {most}")));
        }
        let first = schema.get("prefixItems").and_then(Json::as_array);
        for (i, item) in items.iter_mut().enumerate() {
            let schema = first.and_then(|f| f.get(i)).or_else(|| schema.get("items"));
            if let Some(schema) = schema {
                self.check(schema, item, &join(at, &i.to_string()), out);
            }
        }
        if schema.get("uniqueItems") == Some(&Json::Bool(true)) {
            let values: Vec<Json> = items.iter().map(Node::to_json).collect();
            for (i, value) in values.iter().enumerate().filter(|(i, v)| values[..*i].contains(v)) {
                out.push(Mistake::new(join(at, &i.to_string()), format!("{value} is listed twice")).help("keep one of them"));
            }
        }
    }

    fn check_map(&self, schema: &Map<String, Json>, node: &mut Node, at: &str, out: &mut Vec<Mistake>) {
        let Value::Map(map) = &mut node.value else { return };
        let known = schema.get("properties").and_then(Json::as_object);
        let bound = |name: &str| schema.get(name).and_then(Json::as_u64);
        if bound("minProperties").is_some_and(|least| (map.len() as u64) < least) {
            out.push(Mistake::new(at, "this map is empty").help("give it at least one entry"));
        }
        if let Some(most) = bound("maxProperties").filter(|most| map.len() as u64 > *most) {
            out.push(Mistake::new(at, format!("this map has {} entries", map.len())).help(format!("give at most {most}")));
        }
        let strict = schema.get("additionalProperties") == Some(&Json::Bool(false));
        let is_unknown = |key: &&String| strict && !known.is_some_and(|k| k.contains_key(*key));
        for name in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            // one slip of the pen is one mistake: an unknown key that is nearly this one says it all
            let misspelled = map.keys().filter(is_unknown).any(|key| nearest(key, [name]).starts_with("did you mean"));
            if !map.contains_key(name) && !misspelled {
                let mistake = Mistake::new(at, format!("the key `{name}` is missing{}", inside(at)));
                out.push(match known.and_then(|k| k.get(name)).and_then(|s| self.meaning(s)) {
                    Some(meaning) => mistake.help(format!("`{name}`: {meaning}")),
                    None => mistake,
                });
            }
        }
        for (key, value) in map.iter_mut() {
            let place = join(at, key);
            match (known.and_then(|k| k.get(key)), schema.get("additionalProperties")) {
                (Some(schema), _) => self.check(schema, value, &place, out),
                (None, Some(Json::Bool(false))) => {
                    let names = known.into_iter().flat_map(|k| k.keys().map(String::as_str));
                    out.push(Mistake::new(place, format!("unknown key `{key}`{}", inside(at))).help(nearest(key, names)));
                }
                (None, Some(schema)) => self.check(schema, value, &place, out),
                (None, None) => {}
            }
        }
    }

    /// The first sentence of a schema's description.
    fn meaning(&self, schema: &Json) -> Option<String> {
        let own = schema.get("description").and_then(Json::as_str);
        let text = own.or_else(|| self.target(schema.as_object()?)?.get("description")?.as_str())?;
        let line = text.lines().next().unwrap_or_default();
        Some(line.split_once(". ").map_or(line, |(first, _)| first).trim_end_matches('.').to_owned())
    }

    fn check_alternatives(&self, schema: &Map<String, Json>, node: &mut Node, at: &str, out: &mut Vec<Mistake>) {
        let mut all = Alternatives::default();
        self.flatten(schema, &mut all);
        let fits = |value: &Value| all.constants.iter().any(|c| is_constant(value, c)) || (all.null && matches!(value, Value::Null));
        if retype(node, fits) {
            return;
        }
        // The first schema that fits wins; it works on a copy, because it may give the value another type.
        let mut attempts = Vec::new();
        for option in &all.schemas {
            let mut copy = node.clone();
            let mut mistakes = Vec::new();
            self.check(option, &mut copy, at, &mut mistakes);
            if mistakes.is_empty() {
                *node = copy;
                return;
            }
            attempts.push((self.kinship(option, node), mistakes));
        }
        // Otherwise the schema that the value resembles most says what is wrong.
        let best = attempts.iter().map(|(kinship, _)| *kinship).max().unwrap_or(0);
        let closest = attempts.iter().filter(|(kinship, _)| *kinship == best).min_by_key(|(_, mistakes)| mistakes.len());
        match closest {
            Some((kinship, mistakes)) if *kinship > 0 => out.extend(mistakes.iter().cloned()),
            _ => out.push(self.no_alternative(&all, node, at)),
        }
    }

    /// All that `anyOf`, `oneOf`, `enum` and `const` allow, through references.
    fn flatten<'s>(&'s self, schema: &'s Map<String, Json>, all: &mut Alternatives<'s>) {
        let left = self.fuel.get();
        if left == 0 {
            return;
        }
        self.fuel.set(left - 1);
        all.constants.extend(schema.get("const"));
        all.constants.extend(schema.get("enum").and_then(Json::as_array).into_iter().flatten());
        for word in ["anyOf", "oneOf"] {
            for option in schema.get(word).and_then(Json::as_array).into_iter().flatten() {
                let target: &Json = option.as_object().and_then(|map| self.target(map)).unwrap_or(option);
                let Some(map) = target.as_object() else {
                    // `true` allows anything
                    all.schemas.push(target);
                    continue;
                };
                let nested = ["const", "enum", "anyOf", "oneOf"].iter().any(|w| map.contains_key(*w));
                if map.get("type").and_then(Json::as_str) == Some("null") {
                    all.null = true;
                } else if nested && !map.contains_key("properties") {
                    self.flatten(map, all);
                } else {
                    all.schemas.push(target);
                }
            }
        }
    }

    /// How much a value resembles a schema that it breaks: 0 another type, 1 the type, 2 the key or tag that tells alternatives apart.
    fn kinship(&self, schema: &Json, node: &Node) -> u32 {
        let Some(schema) = schema.as_object() else { return 0 };
        let types = match schema.get("type") {
            Some(Json::String(one)) => vec![one.as_str()],
            Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        };
        if !types.iter().any(|t| has_type(&node.value, t) || (*t == "integer" && matches!(node.value, Value::Number(_)))) {
            return 0;
        }
        let (Value::Map(map), Some(known)) = (&node.value, schema.get("properties").and_then(Json::as_object)) else { return 1 };
        let tag = known.iter().find_map(|(k, s)| Some((k, s.get("const")?)));
        let tagged = tag.is_some_and(|(k, c)| map.get(k).is_some_and(|n| is_constant(&n.value, c)));
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        let external = tag.is_none() && required.clone().count() > 0 && required.clone().all(|r| map.contains_key(r));
        1 + u32::from(tagged || external)
    }

    fn no_alternative(&self, all: &Alternatives<'_>, node: &Node, at: &str) -> Mistake {
        let names: Vec<String> = all.constants.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
        let mut wanted: Vec<String> = Vec::new();
        for schema in all.schemas.iter().filter_map(|s| s.as_object()) {
            let types: Vec<&str> = match schema.get("type") {
                Some(Json::String(one)) => vec![one],
                Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
                _ => Vec::new(),
            };
            wanted.extend(types.iter().filter(|t| **t != "null").map(|t| type_words(t, schema)));
        }
        wanted.dedup();
        match &node.value {
            Value::Text(text) if wanted.is_empty() => Mistake::new(at, format!("unknown value `{}`", super::tree::shortened(text)))
                .help(nearest(text, names.iter().map(String::as_str))),
            _ => {
                if !names.is_empty() {
                    let list: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
                    wanted.push(if list.len() == 1 { list[0].clone() } else { format!("one of {}", list.join(", ")) });
                }
                let mut mistake = mismatch(&either(&wanted), node, at, false);
                if let (Value::Text(text), false) = (&node.value, names.is_empty()) {
                    let near = nearest(text, names.iter().map(String::as_str));
                    mistake.help = Some(near).filter(|n| n.starts_with("did")).or(mistake.help);
                }
                mistake
            }
        }
    }
}

#[derive(Default)]
struct Alternatives<'s> {
    constants: Vec<&'s Json>,
    null: bool,
    schemas: Vec<&'s Json>,
}

/// Whether the node's value will do, after another reading of it where it came out of `${…}`.
fn retype(node: &mut Node, fits: impl Fn(&Value) -> bool) -> bool {
    if fits(&node.value) {
        return true;
    }
    let Some(text) = &node.spelled else { return false };
    let readings = [Ok(Value::Text(text.clone())), plain_scalar(text)];
    match readings.into_iter().flatten().find(|value| fits(value)) {
        Some(value) => {
            node.value = value;
            true
        }
        None => false,
    }
}

fn has_type(value: &Value, wanted: &str) -> bool {
    match (value, wanted) {
        (Value::Null, "null") | (Value::Bool(_), "boolean") | (Value::Number(_), "number") => true,
        (Value::Number(n), "integer") => !n.is_f64(),
        (Value::Text(_), "string") | (Value::List(_), "array") | (Value::Map(_), "object") => true,
        _ => false,
    }
}

fn is_constant(value: &Value, constant: &Json) -> bool {
    match (value, constant) {
        (Value::Text(a), Json::String(b)) => a == b,
        (Value::Number(a), Json::Number(b)) => a == b,
        (Value::Bool(a), Json::Bool(b)) => a == b,
        (Value::Null, Json::Null) => true,
        _ => false,
    }
}

fn type_words(name: &str, schema: &Map<String, Json>) -> String {
    match name {
        "string" if schema.get("format").and_then(Json::as_str) == Some(super::pipeline::BYTE_SIZE) => "a size such as `128MiB`",
        "string" if schema.get("maxLength").and_then(Json::as_u64) == Some(1) => "one character",
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a map",
        other => other,
    }
    .to_owned()
}

fn either(words: &[String]) -> String {
    match words {
        [] => "something else".to_owned(),
        [one] => one.clone(),
        [init @ .., last] => format!("{} or {last}", init.join(", ")),
    }
}

fn mismatch(wanted: &str, node: &Node, at: &str, list_is_fine: bool) -> Mistake {
    let mistake = Mistake::new(at, format!("expected {wanted}, found {}", node.words()));
    match &node.value {
        Value::Null => mistake.help("give it a value, or leave the key out"),
        Value::Text(t) if list_is_fine && !t.contains(['\n', ',']) => mistake.help(format!("for a list of one, write `[{t}]`")),
        Value::Text(t) if wanted == "true or false" && matches!(t.to_lowercase().as_str(), "yes" | "on") => mistake.help("write `true`"),
        Value::Text(t) if wanted == "true or false" && matches!(t.to_lowercase().as_str(), "no" | "off") => mistake.help("write `false`"),
        Value::List(_) if wanted.contains("map") => mistake.help("write `key: value` pairs, without the `-` or the brackets of a list"),
        Value::Map(_) if wanted.contains("list") => mistake.help("begin each entry with a `-`, or put the entries in `[…]`"),
        Value::Number(_) | Value::Bool(_) if wanted.starts_with("text") => mistake.help("put quotes around it"),
        _ => mistake,
    }
}

/// ` in \`feed\``, for the nearest key above that is a name.
fn inside(at: &str) -> String {
    let name = at.rsplit('/').find(|step| !step.is_empty() && step.parse::<usize>().is_err());
    name.map(|n| format!(" in `{}`", n.replace("~1", "/").replace("~0", "~"))).unwrap_or_default()
}

fn check_text(schema: &Map<String, Json>, node: &Node, at: &str, out: &mut Vec<Mistake>) {
    let Value::Text(text) = &node.value else { return };
    let count = text.chars().count() as u64;
    let least = schema.get("minLength").and_then(Json::as_u64).unwrap_or(0);
    let most = schema.get("maxLength").and_then(Json::as_u64).unwrap_or(u64::MAX);
    if count < least || count > most {
        let wanted = if least == most { format!("exactly {least}") } else { format!("{least} to {most}") };
        let words = if count == 0 { "this text is empty".to_owned() } else { format!("this text has {count} characters") };
        let help = if most == u64::MAX { format!("give at least {least}") } else { format!("give {wanted}") };
        out.push(Mistake::new(at, words).help(help));
    }
    if schema.get("format").and_then(Json::as_str) == Some(super::pipeline::BYTE_SIZE) && text.parse::<bytesize::ByteSize>().is_err() {
        out.push(
            Mistake::new(at, format!("`{}` is not a size", super::tree::shortened(text)))
                .help("write for example `128MiB`, `2 GB` or bytes"),
        );
    }
}

fn check_range(schema: &Map<String, Json>, node: &Node, at: &str, out: &mut Vec<Mistake>) {
    let Value::Number(number) = &node.value else { return };
    let Some(value) = number.as_f64() else { return };
    let bound = |name: &str| schema.get(name).and_then(Json::as_f64);
    let (mut least, mut most) = (bound("minimum"), bound("maximum"));
    if schema.get("format").and_then(Json::as_str) == Some("int32") {
        least = least.or(Some(f64::from(i32::MIN)));
        most = most.or(Some(f64::from(i32::MAX)));
    }
    let (above, below) = (bound("exclusiveMinimum"), bound("exclusiveMaximum"));
    let inside = least.is_none_or(|l| value >= l)
        && most.is_none_or(|m| value <= m)
        && above.is_none_or(|l| value > l)
        && below.is_none_or(|m| value < m);
    if inside {
        return;
    }
    let lower = least.map(|l| format!("at least {l}")).or_else(|| above.map(|l| format!("greater than {l}")));
    let upper = most.map(|m| format!("at most {m}")).or_else(|| below.map(|m| format!("less than {m}")));
    let wanted: Vec<String> = [lower, upper].into_iter().flatten().collect();
    out.push(Mistake::new(at, format!("{number} is out of range")).help(format!("it must be {}", wanted.join(" and "))));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tree::Budget;
    use super::super::yaml;
    use super::*;

    fn check(schema: Json, text: &str) -> String {
        let mut node = yaml::parse(text, 0, 0, &mut Budget::default()).root.unwrap();
        let mut out = Vec::new();
        Checker::new(&schema).check(&schema, &mut node, "", &mut out);
        out.iter().map(|m| format!("{}: {}", m.at, m.message)).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn schemas_that_allow_anything_do() {
        assert_eq!(check(json!(true), "[1, {a: b}]"), "");
        assert_eq!(check(json!({ "anyOf": [{ "type": "number" }, true] }), "text"), "");
        assert_eq!(check(json!({ "type": "object", "additionalProperties": true }), "{ a: 1 }"), "");
    }

    #[test]
    fn numbers_keep_their_ranges() {
        let share = json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 });
        assert_eq!((check(share.clone(), "0.5"), check(share.clone(), "1")), (String::new(), String::new()));
        assert_eq!(
            (check(share.clone(), "0"), check(share, "1.5")),
            (": 0 is out of range".to_owned(), ": 1.5 is out of range".to_owned())
        );
        assert_eq!(check(json!({ "type": "integer", "format": "int32" }), "3000000000"), ": 3000000000 is out of range");
        assert_eq!(check(json!({ "type": "integer" }), "3.0"), ": expected a whole number, found the number 3.0");
    }

    #[test]
    fn lists_keep_their_lengths_and_kinds() {
        let pair = json!({ "type": "array", "items": { "type": "number" }, "minItems": 2, "maxItems": 2 });
        assert_eq!(check(pair.clone(), "[0, 1]"), "");
        assert_eq!(check(pair.clone(), "[0]"), ": this list has one entry");
        assert_eq!(check(pair, "[0, a]"), "/1: expected a number, found text `a`");
        assert_eq!(check(json!({ "type": "array", "uniqueItems": true }), "[a, b, a]"), "/2: \"a\" is listed twice");
        let mixed = json!({ "type": "array", "prefixItems": [{ "type": "string" }], "items": { "type": "integer" } });
        assert_eq!(check(mixed, "[1, 1]"), "/0: expected text, found the number 1");
    }

    #[test]
    fn alternatives_speak_through_the_nearest() {
        let on = json!({ "anyOf": [{ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] }, { "type": "object" }] });
        assert_eq!((check(on.clone(), "a"), check(on.clone(), "[a]"), check(on.clone(), "{ a: b }")), Default::default());
        assert_eq!(check(on.clone(), "[a, 1]"), "/1: expected text, found the number 1");
        assert_eq!(check(on, "5"), ": expected text, a list or a map, found the number 5");
        // externally tagged: the key tells which is meant
        let tagged = |name: &str, of: &str| json!({ "type": "object", "properties": { name: { "type": of } }, "required": [name], "additionalProperties": false });
        let method = json!({ "oneOf": [{ "const": "mean" }, tagged("quantile", "number"), tagged("constant", "string")] });
        assert_eq!(check(method.clone(), "{ quantile: high }"), "/quantile: expected a number, found text `high`");
        assert_eq!(check(method, "{ quantil: 0.5 }"), "/quantil: unknown key `quantil`");
    }

    #[test]
    fn alternatives_within_alternatives_end() {
        let list = json!({ "type": "array", "items": { "$ref": "#/$defs/T" } });
        let schema = json!({ "$defs": { "T": { "anyOf": [list, list, { "type": "string" }] } }, "$ref": "#/$defs/T" });
        assert_eq!(check(schema.clone(), "[[a], [[b]]]"), "");
        // twice as many comparisons with every level: 2^50 in all, were they not counted
        let _ = check(schema, &format!("{}1{}", "[".repeat(50), "]".repeat(50)));
    }
}
