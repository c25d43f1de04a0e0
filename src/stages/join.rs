//! `join`: columns of another source come in by key, or rows go by whether they have a match.
//!
//! ```text
//!  side ≤ 64 MiB   a lookup table in memory: a column stage, no pass          (join/lookup.rs)
//!  larger          semi and anti: a decision over the keys                    (join/large.rs)
//!                  left and inner, and `many: all`: a reshape
//! ```
//!
//! Which of them runs follows from the side's size and the options, never from memory or cores, and the rows are the same.

mod keys;
mod large;
mod lookup;

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keys::{OneOrMany, no_split_above, none_of, side};
use super::step::{CODE, ColumnWork, Columns, Decide, Gives, How, Made, ROW, Reshape, SPLIT, Scope, Step};
use super::{Side, Stage, StageContext};
use crate::error::{Mistake, nearest};
use keys::Key;
use lookup::Lookup;

/// The reference page.
pub const PAGE: &str = "\
Brings columns of another source to the rows, matched by key; or keeps rows by whether they have a match.

| `how` | rows | columns |
|---|---|---|
| `left` | all | those of the other source, null where there is no match |
| `inner` | with a match; reason otherwise `no match in <source>` | as `left`, never missing |
| `semi` | with a match; reason otherwise `no match in <source>` | none |
| `anti` | without a match; reason otherwise `match in <source>` | none |

A null in a key matches nothing. Keys may differ in width and storage (`int32` and `int64`, text and dictionary), not in kind. A column
whose name is taken gets a suffix, by default `_<source>`.

Where several rows of the other source have one key, `many` says what happens: `error` (the default, so that no row is doubled by accident),
`first` in the order of the source, or `all`, which gives a row for each.

A source of up to 64 MiB becomes a table in memory, and the join costs no pass; it may then stand below a `split`. With a larger one, `semi`
and `anti` scan the keys; `left`, `inner` and `many: all` write their rows anew and stand above a `split`.

```yaml
- join: { with: planes, on: [tailnum], how: left, columns: [manufacturer, seats] }
```

Keys with two names: `- join: { with: airports, on: { dest: faa } }`.
";

/// Sides up to this many bytes of uncompressed data are held in memory; a constant, so that no machine changes a plan.
pub const LOOKUP_BYTES: u64 = 64 << 20;

/// Brings columns of another source to the rows by key, or keeps rows by whether they have a match.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The other source's name under `sources`.
    with: String,
    /// The key: a column, a list of columns, or a map from columns here to columns there.
    on: On,
    /// Which rows stay.
    #[serde(default)]
    how: JoinHow,
    /// The columns to bring; by default all but the key.
    columns: Option<Vec<String>>,
    /// Goes before the name of a column that is brought where the name is taken.
    prefix: Option<String>,
    /// Goes after the name of a column that is brought where the name is taken; by default `_` and the source's name.
    suffix: Option<String>,
    /// What happens where several rows of the other source have one key.
    #[serde(default)]
    many: Many,
}

/// The key.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`on` takes a column, a list of columns, or a map from columns here to columns there")]
enum On {
    /// `tailnum`, or `[carrier, flight]`: the same names on both sides.
    Same(OneOrMany),
    /// `{ dest: faa }`: the name here, then the name there.
    Map(IndexMap<String, String>),
}

/// Which rows stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum JoinHow {
    /// All rows.
    #[default]
    Left,
    /// Rows with a match.
    Inner,
    /// Rows with a match; no columns come in.
    Semi,
    /// Rows without a match; no columns come in.
    Anti,
}

/// What happens where several rows of the other source have one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Many {
    /// The run fails and names a key.
    #[default]
    Error,
    /// The first of them matches.
    First,
    /// Each of them gives a row.
    All,
}

/// A column that is brought.
#[derive(Debug, Clone)]
struct Brought {
    /// Its name in the other source.
    from: String,
    /// What it becomes.
    field: Field,
}

/// A join that fits its columns.
#[derive(Debug, Clone)]
struct Planned {
    with: String,
    keys: Vec<Key>,
    brings: Vec<Brought>,
    how: JoinHow,
    many: Many,
}

impl Planned {
    fn reason(&self) -> String {
        if self.how == JoinHow::Anti { format!("match in {}", self.with) } else { format!("no match in {}", self.with) }
    }

    fn reads(&self) -> Vec<String> {
        self.keys.iter().map(|k| k.left.clone()).collect()
    }
}

impl Stage for Join {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        let other = side(cx, "/with", &self.with).map_err(|m| vec![m])?;
        let mut mistakes = Vec::new();
        let keys = self.keys(cx, other, &mut mistakes);
        let filters = matches!(self.how, JoinHow::Semi | JoinHow::Anti);
        let brings = if filters { self.no_columns(&mut mistakes) } else { self.brings(cx, other, &keys, &mut mistakes) };
        let small = other.bytes <= LOOKUP_BYTES && self.many != Many::All;
        let planned = Planned { with: self.with.clone(), keys, brings, how: self.how, many: self.many };
        if !filters && !small {
            mistakes.extend(no_split_above(cx).err());
        }
        none_of(mistakes)?;
        Ok(match (small || (filters && other.bytes <= LOOKUP_BYTES), filters) {
            (true, _) => lookup_steps(cx, other, planned),
            (false, true) => vec![decide(&planned, How::Table(Arc::new(large::Matches(planned.clone()))))],
            (false, false) => {
                let output = output(cx, &planned);
                let sides = vec![planned.with.clone()];
                let work = Arc::new(large::LargeJoin { planned, output: output.clone() });
                vec![Step::Reshape(Reshape { output, sides, work })]
            }
        })
    }
}

impl Join {
    fn keys(&self, cx: &StageContext<'_>, other: &Side, mistakes: &mut Vec<Mistake>) -> Vec<Key> {
        let pairs: Vec<(String, &str, &str)> = match &self.on {
            On::Same(OneOrMany::One(name)) => vec![("/on".into(), name, name)],
            On::Same(OneOrMany::Many(names)) => {
                names.iter().enumerate().map(|(i, n)| (format!("/on/{i}"), n.as_str(), n.as_str())).collect()
            }
            On::Map(map) => map.iter().map(|(l, r)| (format!("/on/{l}"), l.as_str(), r.as_str())).collect(),
        };
        if pairs.is_empty() {
            mistakes.push(Mistake::new("/on", "no column is named").help("name the key: `on: [tailnum]`"));
        }
        let mut keys = Vec::with_capacity(pairs.len());
        for (at, left, right) in pairs {
            let ours = cx.column(&at, left);
            let theirs = self.their_column(&at, other, right);
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => match keys::common_type(ours.data_type(), theirs.data_type()) {
                    Some(kind) => keys.push(Key { left: left.into(), right: right.into(), kind }),
                    None => {
                        let message =
                            format!("key `{left}` is {} here and `{right}` is {} in `{}`", ours.data_type(), theirs.data_type(), self.with);
                        mistakes.push(Mistake::new(at, message).help("cast one above: `- cast: { columns: { … } }`"));
                    }
                },
                (ours, theirs) => mistakes.extend(ours.err().into_iter().chain(theirs.err())),
            }
        }
        keys
    }

    fn their_column<'a>(&self, at: &str, other: &'a Side, name: &str) -> Result<&'a Field, Mistake> {
        other.schema.field_with_name(name).map_err(|_| {
            Mistake::new(at, format!("source `{}` has no column `{name}`", self.with))
                .help(nearest(name, other.schema.fields().iter().map(|f| f.name().as_str())))
        })
    }

    fn no_columns(&self, mistakes: &mut Vec<Mistake>) -> Vec<Brought> {
        let given = [("columns", self.columns.is_some()), ("prefix", self.prefix.is_some()), ("suffix", self.suffix.is_some())];
        for (name, _) in given.iter().filter(|g| g.1) {
            let message = format!("`{name}` is given, but semi and anti joins bring no columns");
            mistakes.push(Mistake::new(format!("/{name}"), message).help("leave it out, or say `how: inner`"));
        }
        Vec::new()
    }

    fn brings(&self, cx: &StageContext<'_>, other: &Side, keys: &[Key], mistakes: &mut Vec<Mistake>) -> Vec<Brought> {
        let all = || other.schema.fields().iter().map(|f| f.name().clone()).filter(|n| !keys.iter().any(|k| k.right == *n)).collect();
        let names: Vec<String> = self.columns.clone().unwrap_or_else(all);
        if names.is_empty() && self.how == JoinHow::Left {
            mistakes
                .push(Mistake::new("/columns", "a left join that brings no column does nothing").help("name a column, or say `how: semi`"));
        }
        let (prefix, suffix) = match (&self.prefix, &self.suffix) {
            (None, None) => (String::new(), format!("_{}", self.with)),
            (prefix, suffix) => (prefix.clone().unwrap_or_default(), suffix.clone().unwrap_or_default()),
        };
        let mut brings: Vec<Brought> = Vec::with_capacity(names.len());
        for (i, from) in names.into_iter().enumerate() {
            let at = if self.columns.is_some() { format!("/columns/{i}") } else { "/columns".into() };
            let field = match self.their_column(&at, other, &from) {
                Ok(field) => field.clone(),
                Err(m) => {
                    mistakes.push(m);
                    continue;
                }
            };
            let taken = |name: &str| {
                cx.schema.field_with_name(name).is_ok()
                    || brings.iter().any(|b| b.field.name() == name)
                    || [ROW, SPLIT, CODE].contains(&name)
            };
            let name = if taken(&from) { format!("{prefix}{from}{suffix}") } else { from.clone() };
            if taken(&name) {
                mistakes.push(
                    Mistake::new(at, format!("the name `{name}` is taken")).help("give a `suffix`, or leave the column out of `columns`"),
                );
                continue;
            }
            // a row without a match has null, and an inner join makes its columns before such rows go
            brings.push(Brought { from, field: field.with_name(name).with_nullable(true) });
        }
        brings
    }
}

/// All visible columns after the join.
fn output(cx: &StageContext<'_>, planned: &Planned) -> Arc<Schema> {
    let brought = planned.brings.iter().map(|b| Arc::new(b.field.clone()));
    Arc::new(Schema::new(cx.schema.fields().iter().cloned().chain(brought).collect::<Vec<_>>()))
}

fn decide(planned: &Planned, how: How) -> Step {
    let gives = match how {
        How::Rows(_) => Gives::Rejects(vec![planned.reason()]),
        How::Table(_) => Gives::Survivors(planned.reason()),
    };
    Step::Decide(Decide { reads: planned.reads(), fits: vec![], gives, on: Scope::All, how })
}

/// A decision for what has no match (or has one), and a kernel for the columns.
fn lookup_steps(cx: &StageContext<'_>, other: &Side, planned: Planned) -> Vec<Step> {
    let output = output(cx, &planned);
    let reads = planned.reads();
    let made = |b: &Brought| Made { name: b.field.name().clone(), reads: reads.clone() };
    let makes: Vec<Made> = planned.brings.iter().map(made).collect();
    let lookup = Arc::new(Lookup::new(planned.clone(), other.table.clone()));
    let mut steps = Vec::new();
    if planned.how != JoinHow::Left {
        steps.push(decide(&planned, How::Rows(Arc::new(lookup::Matching(lookup.clone())))));
    }
    if !makes.is_empty() {
        let work = ColumnWork::Arrow(Arc::new(move |batch| lookup.columns(batch)));
        steps.push(Step::Columns(Columns { output, makes, fits: vec![], work }));
    }
    steps
}

#[cfg(test)]
mod tests;
