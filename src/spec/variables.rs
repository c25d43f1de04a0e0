//! `${name}`, `${NAME:-default}`, `${NAME:?message}` and the escape `$${…}`, in values only, after YAML is parsed.
//!
//! A name is looked up in `vars` first, then in the environment. A value that is exactly one `${name}` of a variable becomes that
//! variable's value with its type, even a list or a map. Everything else is text; where the schema asks for a number or for true or false,
//! the text is read as one (YAML in `{…}` forces quotes around `${…}`, so quotes cannot mean "text" here). Where the schema takes
//! anything, a value without quotes is read as YAML would, and one with quotes stays text.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::tree::{Budget, Flaw, MAX_DEPTH, Node, Place, Value, shortened};
use super::yaml::plain_scalar;
use crate::error::{Mistake, nearest};
use crate::storage::uri::names_secret;

/// Resolves every value of the tree, `vars` included.
pub(crate) fn resolve(root: &mut Node, env: &dyn Fn(&str) -> Option<String>, budget: &mut Budget, flaws: &mut Vec<Flaw>) {
    let raw = match root.get("vars").map(|v| &v.value) {
        Some(Value::Map(map)) => map.clone(),
        _ => IndexMap::new(),
    };
    let mut resolver = Resolver { raw, done: HashMap::new(), stack: Vec::new(), env, budget, flaws };
    let names: Vec<String> = resolver.raw.keys().cloned().collect();
    for name in &names {
        resolver.variable(name, Place::default());
    }
    let Value::Map(map) = &mut root.value else { return };
    for (key, node) in map.iter_mut() {
        match &mut node.value {
            Value::Map(vars) if key == "vars" => {
                for (name, var) in vars.iter_mut() {
                    if let Some(done) = resolver.done.get(name) {
                        *var = Node { key: var.key, ..done.clone() };
                    }
                }
            }
            _ => resolver.node(node, 1),
        }
    }
}

struct Resolver<'a> {
    raw: IndexMap<String, Node>,
    done: HashMap<String, Node>,
    /// The variables being resolved, outermost first.
    stack: Vec<String>,
    env: &'a dyn Fn(&str) -> Option<String>,
    budget: &'a mut Budget,
    flaws: &'a mut Vec<Flaw>,
}

impl Resolver<'_> {
    /// A variable's value; `None` where there is no such variable. `from` is where it is asked for.
    fn variable(&mut self, name: &str, from: Place) -> Option<Node> {
        if let Some(done) = self.done.get(name) {
            return Some(done.clone());
        }
        let mut node = self.raw.get(name)?.clone();
        if let Some(first) = self.stack.iter().position(|n| n == name) {
            let cycle: Vec<&str> = self.stack[first..].iter().map(String::as_str).chain([name]).collect();
            let mistake = Mistake::new("", format!("the variable `{name}` stands for itself: {}", cycle.join(" → ")))
                .help("give one of them a value without `${…}`");
            self.flaws.push(Flaw::new(from, mistake));
            return Some(Node { value: Value::Broken, ..node });
        }
        if self.stack.len() >= MAX_DEPTH {
            let mistake = Mistake::new("", format!("variables stand for each other in a chain of more than {MAX_DEPTH}"));
            self.flaws.push(Flaw::new(from, mistake));
            return Some(Node { value: Value::Broken, ..node });
        }
        self.stack.push(name.to_owned());
        self.node(&mut node, 2);
        self.stack.pop();
        self.done.insert(name.to_owned(), node.clone());
        Some(node)
    }

    fn node(&mut self, node: &mut Node, depth: usize) {
        match &mut node.value {
            Value::List(items) => items.iter_mut().for_each(|n| self.node(n, depth + 1)),
            Value::Map(map) => map.values_mut().for_each(|n| self.node(n, depth + 1)),
            Value::Text(text) if text.contains("${") => {
                let text = std::mem::take(text);
                self.scalar(node, &text, depth);
            }
            _ => {}
        }
    }

    fn scalar(&mut self, node: &mut Node, text: &str, depth: usize) {
        let at = node.at;
        let parts = match parts(text) {
            Ok(parts) => parts,
            Err(mistake) => return self.fail(node, mistake),
        };
        // exactly one variable keeps its type
        if let [Part::Ref { name, or }] = parts.as_slice()
            && let Some(var) = self.variable(name, at)
            && !(matches!(or, Or::Default(_) | Or::Required(_)) && is_blank(&var))
        {
            let (nodes, bytes) = var.size();
            if depth + var.height() > MAX_DEPTH {
                return self
                    .fail(node, Mistake::new("", format!("with `${{{name}}}`, maps and lists are nested more than {MAX_DEPTH} deep")));
            }
            if let Err(why) = self.budget.take(nodes, bytes) {
                return self
                    .fail(node, Mistake::new("", why).help("variables are written out in full: use fewer of them within each other"));
            }
            *node = Node { key: node.key, at, ..var };
            return;
        }
        match self.text(&parts, at) {
            Ok(out) => {
                // Only what came from outside can mean another type: `$${x}` alone is simply text.
                let value =
                    if node.plain { plain_scalar(&out).unwrap_or_else(|_| Value::Text(out.clone())) } else { Value::Text(out.clone()) };
                node.value = value;
                node.spelled = Some(out);
            }
            Err(Some(mistake)) => self.fail(node, mistake),
            Err(None) => node.value = Value::Broken,
        }
    }

    fn fail(&mut self, node: &mut Node, mistake: Mistake) {
        self.flaws.push(Flaw::new(node.at, mistake));
        node.value = Value::Broken;
    }

    /// The text of some parts. `Err(None)` is a failure that is already reported.
    fn text(&mut self, parts: &[Part], at: Place) -> Result<String, Option<Mistake>> {
        let mut out = String::new();
        for part in parts {
            let piece = match part {
                Part::Text(text) => text.clone(),
                Part::Ref { name, or } => self.reference(name, or, at)?,
            };
            self.budget
                .take(0, piece.len())
                .map_err(|why| Mistake::new("", why).help("variables are written out in full: use fewer of them within each other"))?;
            out.push_str(&piece);
        }
        Ok(out)
    }

    fn reference(&mut self, name: &str, or: &Or, at: Place) -> Result<String, Option<Mistake>> {
        let found = match self.variable(name, at) {
            Some(var) => Some(as_text(&var, name)?),
            None if names_secret(name) => return Err(Some(secret(name))),
            None => (self.env)(name),
        };
        match (found, or) {
            (Some(text), Or::Nothing) => Ok(text),
            (Some(text), _) if !text.is_empty() => Ok(text),
            (_, Or::Default(parts)) => self.text(parts, at),
            (_, Or::Required(message)) => {
                let why = if message.is_empty() { "it must be set".to_owned() } else { message.clone() };
                Err(Some(
                    Mistake::new("", format!("`{name}` is not set: {why}"))
                        .help(format!("set the environment variable {name}, or say `--set vars.{name}=…`")),
                ))
            }
            (None, Or::Nothing) => Err(Some(self.unknown(name))),
        }
    }

    fn unknown(&self, name: &str) -> Mistake {
        let near = match nearest(name, self.raw.keys().map(String::as_str)) {
            _ if self.raw.is_empty() => String::new(),
            near if near.ends_with('?') => format!("{near} "),
            list => format!("{list}; "),
        };
        Mistake::new("", format!("there is no variable `{name}`, nor is it set in the environment"))
            .help(format!("{near}`${{{name}:-default}}` gives a default, `$${{` writes `${{` itself"))
    }
}

/// A spec is kept in the manifest of what it makes, so no secret may come in.
fn secret(name: &str) -> Mistake {
    Mistake::new("", format!("`{name}` is the name of a secret, and a spec is kept in the manifest for all to read"))
        .help("stores take their keys from the environment themselves; leave it out of the spec")
}

fn is_blank(node: &Node) -> bool {
    matches!(&node.value, Value::Null) || matches!(&node.value, Value::Text(t) if t.is_empty())
}

fn as_text(var: &Node, name: &str) -> Result<String, Option<Mistake>> {
    match &var.value {
        Value::Text(text) => Ok(text.clone()),
        Value::Number(n) => Ok(var.spelled.clone().unwrap_or_else(|| n.to_string())),
        Value::Bool(b) => Ok(b.to_string()),
        Value::Null => Ok(String::new()),
        Value::Broken => Err(None),
        Value::List(_) | Value::Map(_) => Err(Some(
            Mistake::new("", format!("`${{{name}}}` is {}, which cannot stand within text", var.words()))
                .help("use it as a value of its own"),
        )),
    }
}

enum Part {
    Text(String),
    Ref { name: String, or: Or },
}

enum Or {
    Nothing,
    Default(Vec<Part>),
    Required(String),
}

fn malformed(text: &str) -> Mistake {
    Mistake::new("", format!("`{}` is not a variable", shortened(text)))
        .help("write `${name}`, `${NAME:-default}` or `${NAME:?message}`; `$${` stands for `${` itself")
}

fn parts(text: &str) -> Result<Vec<Part>, Mistake> {
    let (parts, rest) = parse_parts(text, false, 0)?;
    debug_assert!(rest.is_empty());
    Ok(parts)
}

/// Parts up to the end of the text, or within a default up to its closing brace; and what follows.
fn parse_parts(text: &str, in_default: bool, depth: usize) -> Result<(Vec<Part>, &str), Mistake> {
    if depth > 16 {
        return Err(Mistake::new("", "defaults are nested more than 16 deep"));
    }
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    loop {
        let stop = rest.find(if in_default { &['$', '}'][..] } else { &['$'][..] }).unwrap_or(rest.len());
        literal.push_str(&rest[..stop]);
        rest = &rest[stop..];
        if rest.is_empty() || rest.starts_with('}') {
            break;
        }
        if let Some(after) = rest.strip_prefix("$${") {
            literal.push_str("${");
            rest = after;
            // within a default, the escaped braces are a pair
            if in_default && let Some(close) = rest.find('}') {
                literal.push_str(&rest[..=close]);
                rest = &rest[close + 1..];
            }
        } else if let Some(after) = rest.strip_prefix("${") {
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            let (part, after) = parse_reference(after, rest, depth)?;
            parts.push(part);
            rest = after;
        } else {
            literal.push('$');
            rest = &rest[1..];
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    Ok((parts, rest))
}

/// `name}`, `name:-default}` or `name:?message}`; `whole` begins with the `${` before it.
fn parse_reference<'a>(inner: &'a str, whole: &str, depth: usize) -> Result<(Part, &'a str), Mistake> {
    let end = inner.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-' || c == '.')).ok_or_else(|| malformed(whole))?;
    let (name, rest) = inner.split_at(end);
    if name.is_empty() {
        return Err(malformed(whole));
    }
    let name = name.to_owned();
    if let Some(rest) = rest.strip_prefix('}') {
        return Ok((Part::Ref { name, or: Or::Nothing }, rest));
    }
    if let Some(rest) = rest.strip_prefix(":-") {
        let (default, rest) = parse_parts(rest, true, depth + 1)?;
        let rest = rest.strip_prefix('}').ok_or_else(|| malformed(whole))?;
        return Ok((Part::Ref { name, or: Or::Default(default) }, rest));
    }
    let rest = rest.strip_prefix(":?").ok_or_else(|| malformed(whole))?;
    let (message, rest) = rest.split_once('}').ok_or_else(|| malformed(whole))?;
    Ok((Part::Ref { name, or: Or::Required(message.to_owned()) }, rest))
}
