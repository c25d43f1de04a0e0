//! A spec as a tree in which every key and value knows where it was written.

use indexmap::IndexMap;
use serde_json::Number;

use crate::error::Mistake;

/// Where something was written: bytes `start..end` of one of the texts (0 is the spec, the others are `--set` arguments).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    pub text: usize,
    pub start: usize,
    pub end: usize,
}

/// A mistake whose place is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub place: Place,
    pub mistake: Mistake,
}

impl Flaw {
    pub fn new(place: Place, mistake: Mistake) -> Self {
        Self { place, mistake }
    }
}

/// A value of the spec.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub value: Value,
    pub at: Place,
    /// Where its key was written, for an entry of a map.
    pub key: Option<Place>,
    /// Written without quotes.
    pub plain: bool,
    /// The text behind a value that came out of `${…}`: such a value takes the type that the schema asks for.
    pub spelled: Option<String>,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(IndexMap<String, Node>),
    /// Already reported: no check looks at it again.
    Broken,
}

/// How large a spec may become, with all aliases and variables written out. Far above any real spec, far below harm.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    nodes: usize,
    bytes: usize,
}

/// Bytes of a spec's text.
pub(crate) const MAX_TEXT: usize = 1 << 20;
/// Levels of maps and lists.
pub(crate) const MAX_DEPTH: usize = 64;
/// Values of a spec, with aliases and variables written out.
const MAX_NODES: usize = 100_000;
/// Bytes of all keys and values, with aliases and variables written out.
const MAX_BYTES: usize = 4 << 20;

impl Default for Budget {
    fn default() -> Self {
        Self { nodes: MAX_NODES, bytes: MAX_BYTES }
    }
}

impl Budget {
    /// Takes room for so many values and bytes of text, or says which limit is reached.
    pub fn take(&mut self, nodes: usize, bytes: usize) -> Result<(), String> {
        if nodes > self.nodes {
            return Err(format!("the spec grows beyond {MAX_NODES} values"));
        }
        if bytes > self.bytes {
            return Err(format!("the spec grows beyond {} MiB of text", MAX_BYTES >> 20));
        }
        self.nodes -= nodes;
        self.bytes -= bytes;
        Ok(())
    }
}

impl Node {
    pub fn new(value: Value, at: Place) -> Self {
        Self { value, at, key: None, plain: false, spelled: None }
    }

    /// Its entry of a key, where it is a map that has one.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(map) => map.get(key),
            _ => None,
        }
    }

    /// Values and bytes of text in it.
    pub fn size(&self) -> (usize, usize) {
        let add = |(n, b): (usize, usize), (m, c): (usize, usize)| (n + m, b + c);
        match &self.value {
            Value::Text(text) => (1, text.len()),
            Value::List(items) => items.iter().map(Node::size).fold((1, 0), add),
            Value::Map(map) => map.iter().map(|(k, v)| add((0, k.len()), v.size())).fold((1, 0), add),
            _ => (1, 0),
        }
    }

    /// Levels of maps and lists in it.
    pub fn height(&self) -> usize {
        match &self.value {
            Value::List(items) => 1 + items.iter().map(Node::height).max().unwrap_or(0),
            Value::Map(map) => 1 + map.values().map(Node::height).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// What it is, in words: `text \`abc\``, `a list`, `nothing`.
    pub fn words(&self) -> String {
        match &self.value {
            Value::Null | Value::Broken => "nothing".to_owned(),
            Value::Bool(b) => format!("`{b}`"),
            Value::Number(n) => format!("the number {n}"),
            Value::Text(t) => format!("text `{}`", shortened(t)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }

    /// The value without places.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null | Value::Broken => serde_json::Value::Null,
            Value::Bool(b) => (*b).into(),
            Value::Number(n) => serde_json::Value::Number(n.clone()),
            Value::Text(t) => t.as_str().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect::<Vec<_>>().into(),
            Value::Map(map) => map.iter().map(|(k, v)| (k.clone(), v.to_json())).collect::<serde_json::Map<_, _>>().into(),
        }
    }

    /// Calls `visit` with the JSON pointer of every node in it, itself first.
    pub fn walk<'a>(&'a self, pointer: &str, visit: &mut dyn FnMut(&str, &'a Node)) {
        visit(pointer, self);
        match &self.value {
            Value::List(items) => items.iter().enumerate().for_each(|(i, n)| n.walk(&join(pointer, &i.to_string()), visit)),
            Value::Map(map) => map.iter().for_each(|(k, n)| n.walk(&join(pointer, k), visit)),
            _ => {}
        }
    }
}

/// A value that was written nowhere.
impl From<&serde_json::Value> for Node {
    fn from(value: &serde_json::Value) -> Self {
        let value = match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => Value::Number(n.clone()),
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Self::from).collect()),
            serde_json::Value::Object(map) => Value::Map(map.iter().map(|(k, v)| (k.clone(), Self::from(v))).collect()),
        };
        Self::new(value, Place::default())
    }
}

/// A JSON pointer one step further (RFC 6901 escapes `~` and `/`).
pub(crate) fn join(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The last step of a JSON pointer.
pub(crate) fn last(pointer: &str) -> String {
    pointer.rsplit('/').next().unwrap_or_default().replace("~1", "/").replace("~0", "~")
}

/// A long text by its beginning, for messages.
pub(crate) fn shortened(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let cut: String = first.chars().take(60).collect();
    if cut.len() < text.trim_end().len() { format!("{cut}…") } else { cut }
}
