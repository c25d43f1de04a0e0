//! What changed between two versions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::Manifest;

/// The differences of two versions. What is empty did not change.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Diff {
    /// The older version's number.
    pub old: u64,
    /// The newer one's.
    pub new: u64,
    /// Whether both are the same dataset, byte for byte.
    pub same: bool,
    /// Input shards that came, by source and path.
    pub inputs_added: Vec<String>,
    /// Input shards that went.
    pub inputs_removed: Vec<String>,
    /// Input shards whose content changed.
    pub inputs_changed: Vec<String>,
    /// JSON pointers into the spec with another value.
    pub spec: Vec<Change>,
    /// Columns that came, went or changed type.
    pub columns: Vec<Change>,
    /// Row counts that changed: by split, by stage and reason.
    pub rows: Vec<Change>,
    /// Shards that both versions share.
    pub shards_shared: usize,
    /// Shards that only the newer one has.
    pub shards_new: usize,
}

/// A value that changed; `None` where there was none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What.
    pub what: String,
    /// The older value.
    pub old: Option<String>,
    /// The newer one.
    pub new: Option<String>,
}

impl Diff {
    /// The differences from one version to another.
    pub fn of(old: &Manifest, new: &Manifest) -> Self {
        let inputs = |m: &Manifest| -> BTreeMap<String, String> {
            m.inputs.iter().map(|i| (format!("{}: {}", i.source, i.path), i.fingerprint.clone())).collect()
        };
        let (before, after) = (inputs(old), inputs(new));
        let missing =
            |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| a.keys().filter(|k| !b.contains_key(*k)).cloned().collect();
        let shards: BTreeSet<&String> = old.shards.iter().map(|s| &s.path).collect();
        let shared = new.shards.iter().filter(|s| shards.contains(&s.path)).count();
        Self {
            old: old.version,
            new: new.version,
            same: old.hash == new.hash,
            inputs_added: missing(&after, &before),
            inputs_removed: missing(&before, &after),
            inputs_changed: after.iter().filter(|(k, v)| before.get(*k).is_some_and(|b| b != *v)).map(|(k, _)| k.clone()).collect(),
            spec: changes(&leaves(&old.spec), &leaves(&new.spec)),
            columns: changes(&columns(old), &columns(new)),
            rows: changes(&counts(old), &counts(new)),
            shards_shared: shared,
            shards_new: new.shards.len() - shared,
        }
    }
}

fn changes(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<Change> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = keys.into_iter().filter(|k| old.get(*k) != new.get(*k));
    changed.map(|k| Change { what: k.clone(), old: old.get(k).cloned(), new: new.get(k).cloned() }).collect()
}

fn columns(m: &Manifest) -> BTreeMap<String, String> {
    m.schema.iter().map(|c| (c.name.clone(), c.data_type.clone())).collect()
}

fn counts(m: &Manifest) -> BTreeMap<String, String> {
    let mut counts = BTreeMap::from([("input".to_owned(), m.rows.input.to_string()), ("output".to_owned(), m.rows.output.to_string())]);
    counts.extend(m.rows.by_split.iter().map(|(split, n)| (format!("split {split}"), n.to_string())));
    counts.extend(m.rows.added.iter().map(|(stage, n)| (format!("added by {stage}"), n.to_string())));
    for (stage, reasons) in &m.rows.rejected {
        counts.extend(reasons.iter().map(|(reason, n)| (format!("rejected by {stage}: {reason}"), n.to_string())));
    }
    counts
}

/// The leaves of a JSON value by JSON pointer.
fn leaves(value: &serde_json::Value) -> BTreeMap<String, String> {
    fn walk(at: String, value: &serde_json::Value, out: &mut BTreeMap<String, String>) {
        match value {
            serde_json::Value::Object(map) => map.iter().for_each(|(k, v)| walk(format!("{at}/{k}"), v, out)),
            serde_json::Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| walk(format!("{at}/{i}"), v, out)),
            leaf => {
                out.insert(at, leaf.to_string());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(String::new(), value, &mut out);
    out
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version {} → {}{}", self.old, self.new, if self.same { ": the same, byte for byte" } else { "" })?;
        for (sign, paths) in [("+", &self.inputs_added), ("-", &self.inputs_removed), ("~", &self.inputs_changed)] {
            paths.iter().try_for_each(|path| writeln!(f, "  input {sign} {path}"))?;
        }
        for (name, changes) in [("spec", &self.spec), ("column", &self.columns), ("rows", &self.rows)] {
            for c in changes {
                let show = |v: &Option<String>| v.clone().unwrap_or_else(|| "–".to_owned());
                writeln!(f, "  {name} {}: {} → {}", c.what, show(&c.old), show(&c.new))?;
            }
        }
        writeln!(f, "  shards: {} shared, {} new", self.shards_shared, self.shards_new)
    }
}
