//! YAML 1.2 (core schema) to a [`Node`] tree, from serde-saphyr's event parser.
//!
//! A tree of our own keeps what a plain deserializer forgets: the place of every key, and whether a scalar was quoted. Budgets
//! bound what aliases may grow into; they count *expanded* values, so that a small "billion laughs" is stopped while it unfolds.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_saphyr::granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, Span, StrInput, Tag};

use super::tree::{Budget, Flaw, MAX_DEPTH, MAX_TEXT, Node, Place, Value, shortened};
use crate::error::Mistake;

const YAML_TAGS: &str = "tag:yaml.org,2002:";

/// What came out of a text.
pub(crate) struct Parsed {
    /// The document's root; `None` where the text is empty or cannot be read.
    pub root: Option<Node>,
    /// Everything that is wrong with the text. Only the last can be a syntax error: nothing is read after it.
    pub flaws: Vec<Flaw>,
}

/// Parses the part of `whole` from `offset` on. Places count from the beginning of `whole`, which is text number `text`.
pub(crate) fn parse(whole: &str, offset: usize, text: usize, budget: &mut Budget) -> Parsed {
    let source = whole.get(offset..).unwrap_or_default();
    if source.len() > MAX_TEXT {
        let mistake = Mistake::new("", format!("the spec is larger than {} MiB", MAX_TEXT >> 20))
            .help("a pipeline is described by a few kilobytes: is this the right file?");
        return Parsed { root: None, flaws: vec![Flaw::new(Place { text, start: offset, end: offset }, mistake)] };
    }
    let mut options = Options::default();
    options.emit_comments = false;
    let parser = Parser::new_from_str_with_options(source, options);
    let mut composer = Composer { parser, source, offset, text, anchors: HashMap::new(), flaws: Vec::new(), budget, recorded: 0 };
    let root = match composer.document() {
        Ok(root) => root,
        Err(flaw) => {
            composer.flaws.push(*flaw);
            None
        }
    };
    Parsed { root, flaws: composer.flaws }
}

struct Composer<'a, 'b> {
    parser: Parser<'a, StrInput<'a>>,
    source: &'a str,
    offset: usize,
    text: usize,
    anchors: HashMap<usize, Node>,
    flaws: Vec<Flaw>,
    budget: &'b mut Budget,
    /// Values copied into `anchors` so far.
    recorded: usize,
}

type Step<T> = Result<T, Box<Flaw>>;

impl<'a> Composer<'a, '_> {
    fn document(&mut self) -> Step<Option<Node>> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::DocumentStart(..) if root.is_some() => {
                    let mistake = Mistake::new("", "a second document begins here").help("a spec is one YAML document: one file each");
                    return Err(self.flaw(span, mistake));
                }
                Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => root = Some(self.node(event, span, 0)?),
            }
        }
        // A document without content, or with comments only, is parsed as an empty plain scalar.
        Ok(root.filter(|n| !(matches!(n.value, Value::Null) && n.at.start >= n.at.end)))
    }

    fn next(&mut self) -> Step<Option<(Event<'a>, Span)>> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(pair)) => Ok(Some(pair)),
            Some(Err(e)) => {
                let start = e.marker().byte_offset().unwrap_or(e.marker().index());
                let mistake = if matches!(e.kind(), ErrorKind::RecursionLimitExceeded) {
                    Mistake::new("", format!("maps and lists are nested more than {MAX_DEPTH} deep"))
                } else {
                    Mistake::new("", format!("this is not YAML: {}", e.info())).help(syntax_help(self.source, start))
                };
                let place = self.place(start, start);
                Err(Box::new(Flaw::new(place, mistake)))
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Step<Node> {
        if depth > MAX_DEPTH {
            return Err(self.flaw(span, Mistake::new("", format!("maps and lists are nested more than {MAX_DEPTH} deep"))));
        }
        let (mut node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (self.scalar(&text, style, tag.as_deref(), span)?, anchor),
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), span);
                (self.list(span, depth)?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), span);
                (self.map(span, depth)?, anchor)
            }
            Event::Alias(id) => return self.alias(id, span, depth),
            _ => (Node::new(Value::Null, self.span(span)), 0),
        };
        node.key = None;
        if anchor != 0 {
            self.recorded += node.size().0;
            if self.recorded > 1_000_000 {
                return Err(self.flaw(span, Mistake::new("", "too much is anchored in anchors")));
            }
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Step<Node> {
        self.take(1, text.len(), span)?;
        let at = self.span(span);
        let wanted = tag.and_then(|t| (t.handle() == YAML_TAGS).then(|| t.suffix()));
        let plain = matches!(style, ScalarStyle::Plain);
        if wanted != Some("str") {
            self.check_tag(tag, span);
        }
        let typed = (plain && wanted != Some("str")) || matches!(wanted, Some("int" | "float" | "bool" | "null"));
        let value = if typed { plain_scalar(text) } else { Ok(Value::Text(text.to_owned())) };
        let value = value.unwrap_or_else(|why| {
            self.flaws.push(Flaw::new(at, Mistake::new("", why).help("put quotes around it if it is meant as text")));
            Value::Broken
        });
        Ok(Node { plain, ..Node::new(value, at) })
    }

    fn list(&mut self, start: Span, depth: usize) -> Step<Node> {
        self.take(1, 0, start)?;
        let mut items = Vec::new();
        loop {
            match self.next()? {
                None => return Ok(Node::new(Value::List(items), self.span(start))),
                Some((Event::SequenceEnd, end)) => return Ok(Node::new(Value::List(items), self.between(start, end))),
                Some((event, span)) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, start: Span, depth: usize) -> Step<Node> {
        self.take(1, 0, start)?;
        let mut entries: IndexMap<String, Node> = IndexMap::new();
        let mut merged = Vec::new();
        let end = loop {
            let (key, key_span) = match self.next()? {
                None => break start,
                Some((Event::MappingEnd, end)) => break end,
                Some((Event::Scalar(text, style, ..), span)) => {
                    self.take(0, text.len(), span)?;
                    (if text == "<<" && matches!(style, ScalarStyle::Plain) { None } else { Some(text.into_owned()) }, span)
                }
                Some((_, span)) => return Err(self.flaw(span, Mistake::new("", "a key must be text").help("put quotes around it"))),
            };
            let Some((event, span)) = self.next()? else { break start };
            let mut value = self.node(event, span, depth + 1)?;
            let place = self.span(key_span);
            match key {
                None => merged.push((value, key_span)),
                Some(key) => match entries.get(&key).and_then(|first| first.key) {
                    Some(first) => self.flaws.push(self.duplicate(&key, place, first)),
                    None => {
                        value.key = Some(place);
                        entries.insert(key, value);
                    }
                },
            }
        };
        for (value, span) in merged {
            self.merge(&mut entries, value, span)?;
        }
        Ok(Node::new(Value::Map(entries), self.between(start, end)))
    }

    /// `<<: *defaults`: entries of another map (or list of maps) that the map itself does not have.
    fn merge(&mut self, entries: &mut IndexMap<String, Node>, value: Node, span: Span) -> Step<()> {
        match value.value {
            Value::Map(map) => {
                for (key, node) in map {
                    entries.entry(key).or_insert(node);
                }
                Ok(())
            }
            Value::List(items) => items.into_iter().try_for_each(|item| self.merge(entries, item, span)),
            _ => Err(self.flaw(span, Mistake::new("", "`<<` takes in a map, or a list of maps").help("for example `<<: *defaults`"))),
        }
    }

    fn alias(&mut self, id: usize, span: Span, depth: usize) -> Step<Node> {
        let Some(target) = self.anchors.get(&id) else {
            return Err(self.flaw(span, Mistake::new("", "this alias stands inside the value that it stands for")));
        };
        let (nodes, bytes) = target.size();
        let deep = depth + target.height() > MAX_DEPTH;
        let copy = Node { at: self.span(span), key: None, ..target.clone() };
        if deep {
            return Err(self.flaw(span, Mistake::new("", format!("with this alias, maps and lists are nested more than {MAX_DEPTH} deep"))));
        }
        self.take(nodes, bytes, span)?;
        Ok(copy)
    }

    fn take(&mut self, nodes: usize, bytes: usize, span: Span) -> Step<()> {
        match self.budget.take(nodes, bytes) {
            Ok(()) => Ok(()),
            Err(why) => {
                let mistake = Mistake::new("", why).help("aliases (`*name`) are written out in full: use fewer of them within each other");
                Err(self.flaw(span, mistake))
            }
        }
    }

    fn check_tag(&mut self, tag: Option<&Tag>, span: Span) {
        let Some(tag) = tag else { return };
        let known = tag.handle() == YAML_TAGS && matches!(tag.suffix(), "str" | "int" | "float" | "bool" | "null" | "seq" | "map");
        // a lone `!` says "text as it is", which changes nothing here
        let lone = tag.handle() == "!" && tag.suffix().is_empty();
        if !known && !lone {
            let mistake = Mistake::new("", format!("the tag `{}{}` means nothing here", tag.handle(), tag.suffix())).help("remove it");
            let flaw = *self.flaw(span, mistake);
            self.flaws.push(flaw);
        }
    }

    fn duplicate(&self, key: &str, second: Place, first: Place) -> Flaw {
        let line = 1 + self.source.get(..first.start.saturating_sub(self.offset)).unwrap_or_default().matches('\n').count();
        let mistake = Mistake::new("", format!("the key `{}` is given twice", shortened(key)))
            .help(format!("it is already on line {line}: keep one of them"));
        Flaw::new(second, mistake)
    }

    fn flaw(&self, span: Span, mistake: Mistake) -> Box<Flaw> {
        Box::new(Flaw::new(self.span(span), mistake))
    }

    fn span(&self, span: Span) -> Place {
        self.between(span, span)
    }

    fn between(&self, start: Span, end: Span) -> Place {
        let byte = |m: serde_saphyr::granit_parser::Marker| m.byte_offset().unwrap_or(m.index());
        self.place(byte(start.start), byte(end.end))
    }

    /// A place without the white space that ends it.
    fn place(&self, start: usize, end: usize) -> Place {
        let start = start.min(self.source.len());
        let end = end.clamp(start, self.source.len());
        let written = self.source.get(start..end).map_or(end - start, |t| t.trim_end().len());
        Place { text: self.text, start: self.offset + start, end: self.offset + start + written }
    }
}

fn syntax_help(source: &str, at: usize) -> String {
    let line_start = source.get(..at).and_then(|s| s.rfind('\n')).map_or(0, |i| i + 1);
    let line = source.get(line_start..).and_then(|s| s.lines().next()).unwrap_or_default();
    if line.trim_start_matches(' ').starts_with('\t') {
        return "indent with spaces: YAML does not allow tabs there".to_owned();
    }
    if line.contains("${") {
        return "within `[…]` and `{…}`, put quotes around text with `${…}`".to_owned();
    }
    "check the indentation and the brackets and quotes above this place".to_owned()
}

/// The value of a scalar without quotes, by YAML 1.2's core schema (section 10.3.2), or why it has none.
pub(crate) fn plain_scalar(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let too_large = || format!("the number {} is too large", shortened(text));
    if let Some((digits, radix)) =
        text.strip_prefix("0x").map(|d| (d, 16)).or_else(|| text.strip_prefix("0o").map(|d| (d, 8))).filter(|(d, _)| !d.is_empty())
        && digits.chars().all(|c| c.is_digit(radix))
    {
        return u64::from_str_radix(digits, radix).map(|n| Value::Number(n.into())).map_err(|_| too_large());
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        let signed = text.parse::<i64>().map(serde_json::Number::from);
        return signed.or_else(|_| text.parse::<u64>().map(serde_json::Number::from)).map(Value::Number).map_err(|_| too_large());
    }
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(format!("a number must be finite, and `{text}` is not"));
    }
    if is_float(unsigned) {
        let number = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
        return number.map(Value::Number).ok_or_else(too_large);
    }
    Ok(Value::Text(text.to_owned()))
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(unsigned: &str) -> bool {
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e.strip_prefix(['-', '+']).unwrap_or(e))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    (!whole.is_empty() || !fraction.is_empty())
        && all_digits(whole)
        && all_digits(fraction)
        && exponent.is_none_or(|e| !e.is_empty() && all_digits(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> serde_json::Value {
        let parsed = parse(text, 0, 0, &mut Budget::default());
        assert_eq!(parsed.flaws, []);
        parsed.root.map_or(serde_json::Value::Null, |n| n.to_json())
    }

    fn complaint(text: &str) -> String {
        let parsed = parse(text, 0, 0, &mut Budget::default());
        parsed.flaws.iter().map(|f| f.mistake.message.clone()).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let text =
            "[1, -2, +3, 0x1F, 0o17, 1.5, .5, 1., 1e3, -1E-2, true, no, ~, null, '1', 1_000, 18446744073709551615, 2026-01-01, e5, '.']";
        assert_eq!(
            json(text),
            serde_json::json!([
                1,
                -2,
                3,
                31,
                15,
                1.5,
                0.5,
                1.0,
                1000.0,
                -0.01,
                true,
                "no",
                null,
                null,
                "1",
                "1_000",
                18446744073709551615u64,
                "2026-01-01",
                "e5",
                "."
            ])
        );
        assert_eq!(complaint("a: 18446744073709551616"), "the number 18446744073709551616 is too large");
        assert!(complaint("[.inf, -.inf, .nan, 1e999]").matches(';').count() == 3);
    }

    #[test]
    fn anchors_merge_and_tags() {
        let text = "a: &a { x: 1, y: 2 }\nb: { <<: *a, y: 3 }\nc: *a\nd: !!str 5\n";
        assert_eq!(json(text), serde_json::json!({"a": {"x": 1, "y": 2}, "b": {"y": 3, "x": 1}, "c": {"x": 1, "y": 2}, "d": "5"}));
        assert_eq!(complaint("a: !secret x"), "the tag `!secret` means nothing here");
        assert!(complaint("a: &a [*a]").contains("inside the value"));
    }

    #[test]
    fn places_cover_keys_and_values_in_bytes() {
        let text = "ä: 'ö'\nlist: [x,  yy ]\n";
        let root = parse(text, 0, 0, &mut Budget::default()).root.unwrap();
        let slice = |p: Place| &text[p.start..p.end];
        let first = root.get("ä").unwrap();
        assert_eq!((slice(first.key.unwrap()), slice(first.at)), ("ä", "'ö'"));
        let Value::List(items) = &root.get("list").unwrap().value else { panic!() };
        assert_eq!(slice(items[1].at), "yy");
        assert_eq!(slice(root.get("list").unwrap().at), "[x,  yy ]");
    }
}
