//! `split`: every row goes to one of several parts, such as train, validation and test.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use async_trait::async_trait;
use datafusion::logical_expr::cast as cast_to;
use datafusion::prelude::{DataFrame, Expr, ident};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::cuts::{CLASS, MAX_CLASSES, PLACE, Wanted, as_key, coded, count_classes, cut_groups, ends_of, find_cuts, no_class, placed};
use super::kernel::{hash_identities, hash_rows, part_ends, part_of};
use super::keys::{OneOrMany, none_of};
use super::sample::identities;
use super::step::{Decide, Fits, Gives, How, ROW, RowDecision, RowTest, Scope, Step, TableContext, TableDecision};
use super::{Stage, StageContext, cuts, functions};
use crate::error::{Error, Mistake, Result};

/// The reference page.
pub const PAGE: &str = "\
Sends every row to one of several splits. Stages that learn from data (`clean`, `normalize`, `encode`) learn from the split called `train`
alone, so a `split` stands above them. A pipeline has at most one.

| `by` | where a row goes | sizes | cost |
|---|---|---|---|
| `hash` | by a hash of its `key` (of the row itself, where none is named): rows with one key stay together, now and in later runs with more data | near the shares | none |
| `group` | as `hash`, but groups are dealt out in hash order until a split has its share | as near as whole groups allow | two scans of the key |
| `stratified` | within each value of `column`, by hash | exact in each class, to the row | three scans of the column |
| `time` | earlier rows to earlier splits, by `column`; with `at`, cut at these times | exact but for rows of equal time; with `at`, what the times say | two scans of the column; none with `at` |

Use `hash` for data that grows, `group` where splits must not share a customer or a plane, `stratified` for rare classes, and `time` where a
model will predict the future. Hashes look at values, not at types: 7 as `int32` and as `int64` go to the same split. A null key or class
is a value like any other; a null time is an error.

```yaml
- split: { by: hash, key: tailnum, into: { train: 0.8, validation: 0.1, test: 0.1 } }
```

By time, up to September, October, and from November on:
`- split: { by: time, column: time_hour, at: [\"2013-10-01\", \"2013-11-01\"], into: [train, validation, test] }`.
";

/// Sends every row to one of several splits.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Split {
    /// By a hash of a key: rows with the same key go to the same split, in every run.
    Hash {
        /// The key's column or columns; by default the row itself, by its place in the sources.
        key: Option<OneOrMany>,
        /// The splits' names with their shares, which add up to 1.
        into: IndexMap<String, f64>,
    },
    /// By a key, as near to the shares as whole groups allow.
    Group {
        /// The key's column or columns: rows with the same key stay together.
        key: OneOrMany,
        /// The splits' names with their shares of the rows, which add up to 1.
        into: IndexMap<String, f64>,
    },
    /// With the same shares in every class.
    Stratified {
        /// The column with the class.
        column: String,
        /// The splits' names with their shares, which add up to 1.
        into: IndexMap<String, f64>,
    },
    /// Earlier rows first.
    Time {
        /// The column with the time: a date, a timestamp, or a whole number that rises with time.
        column: String,
        /// The times at which a new split begins, rising: one less than there are splits. Times without a zone are in the column's own.
        at: Option<Vec<Moment>>,
        /// The splits in order of time: names with shares that add up to 1; or, with `at`, names alone.
        into: Parts,
    },
}

/// A time as the spec gives it: a date, a timestamp or a whole number.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`at` takes dates such as \"2013-09-01\", timestamps or whole numbers")]
pub enum Moment {
    /// `2013-09-01` or `2013-09-01T12:00:00`.
    Text(String),
    /// A value of a column of whole numbers.
    Number(i64),
}

/// Names of splits, with shares or without.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`into` takes names with shares, { train: 0.8, test: 0.2 }, or with `at` a list of names")]
pub enum Parts {
    /// `{ train: 0.8, test: 0.2 }`
    Shares(IndexMap<String, f64>),
    /// `[train, test]`
    Names(Vec<String>),
}

impl Stage for Split {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        if cx.splits.is_some() {
            mistakes.push(Mistake::new("", "a `split` stands above already, and a pipeline has one at most").help("remove one of them"));
        }
        let seed = cx.seed;
        let (names, reads, how) = match self {
            Self::Hash { key, into } => {
                mistakes.extend(key.iter().flat_map(|key| key.check(cx, "/key")));
                let (names, shares) = shares(into, &mut mistakes);
                let keys = key.as_ref().map(|k| k.names().to_vec()).unwrap_or_default();
                (names, keys.clone(), How::Rows(Arc::new(ByHash { keys, ends: part_ends(&shares), seed })))
            }
            Self::Group { key, into } => {
                mistakes.extend(key.check(cx, "/key"));
                let (names, shares) = shares(into, &mut mistakes);
                let keys = key.names().to_vec();
                (names, keys.clone(), How::Table(Arc::new(ByGroup { keys, shares, seed })))
            }
            Self::Stratified { column, into } => {
                mistakes.extend(cx.column("/column", column).err());
                let (names, shares) = shares(into, &mut mistakes);
                (names, vec![column.clone()], How::Table(Arc::new(Stratified { column: column.clone(), shares, seed })))
            }
            Self::Time { column, at, into } => {
                let (names, how) = by_time(cx, column, at.as_deref(), into, &mut mistakes);
                (names, vec![column.clone()], how)
            }
        };
        none_of(mistakes)?;
        Ok(vec![Step::Decide(Decide { reads, fits: vec![], gives: Gives::Splits(names), on: Scope::All, how })])
    }
}

/// Names and shares, noting mistakes.
fn shares(into: &IndexMap<String, f64>, mistakes: &mut Vec<Mistake>) -> (Vec<String>, Vec<f64>) {
    check_split_names(into.keys(), mistakes);
    for (name, share) in into {
        if !(*share > 0.0 && share.is_finite()) {
            mistakes.push(Mistake::new(format!("/into/{name}"), format!("{share} is no share of the rows")).help("give a number above 0"));
        }
    }
    let sum: f64 = into.values().sum();
    if !into.is_empty() && (sum - 1.0).abs() > 1e-9 {
        let shown = (sum * 1e6).round() / 1e6;
        mistakes.push(
            Mistake::new("/into", format!("the shares add up to {shown} and not to 1"))
                .help("change one, so that every row goes somewhere"),
        );
    }
    (into.keys().cloned().collect(), into.values().copied().collect())
}

fn check_split_names<'a>(names: impl ExactSizeIterator<Item = &'a String>, mistakes: &mut Vec<Mistake>) {
    if names.len() == 0 || names.len() > 255 {
        mistakes.push(Mistake::new("/into", format!("{} splits are named", names.len())).help("name 1 to 255"));
    }
    for name in names {
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(fine) {
            mistakes.push(Mistake::new("/into", format!("`{name}` is no name for a split")).help("use letters, digits, `-` and `_`"));
        }
    }
}

fn by_time(cx: &StageContext<'_>, column: &str, at: Option<&[Moment]>, into: &Parts, mistakes: &mut Vec<Mistake>) -> (Vec<String>, How) {
    let kind = match cx.column("/column", column) {
        Ok(field) if is_time(field.data_type()) => Some(field.data_type().clone()),
        Ok(field) => {
            let message = format!("column `{column}` is {}, which is no time", field.data_type());
            mistakes.push(Mistake::new("/column", message).help("name a date, a timestamp or a whole number, or cast it first"));
            None
        }
        Err(m) => {
            mistakes.push(m);
            None
        }
    };
    let column = column.to_owned();
    match (at, into) {
        (None, Parts::Shares(into)) => {
            let (names, shares) = shares(into, mistakes);
            (names, How::Table(Arc::new(ByQuantile { column, shares })))
        }
        (Some(at), Parts::Names(names)) => {
            check_split_names(names.iter(), mistakes);
            if let Some(twice) = names.iter().enumerate().find(|(i, n)| names[..*i].contains(n)) {
                mistakes
                    .push(Mistake::new(format!("/into/{}", twice.0), format!("split `{}` is named twice", twice.1)).help("name it once"));
            }
            if at.len() + 1 != names.len() {
                let message = format!("{} times cut {} splits, and {} are named", at.len(), at.len() + 1, names.len());
                mistakes.push(Mistake::new("/at", message).help("give one time less than there are splits"));
            }
            let ends = kind.map(|kind| moments(at, &kind, mistakes)).unwrap_or_default();
            (names.clone(), How::Rows(Arc::new(ByMoment { column, ends })))
        }
        (None, Parts::Names(names)) => {
            let help = "say `into: { train: 0.8, test: 0.2 }`, or give the times: `at: [\"2013-09-01\"]`";
            mistakes.push(Mistake::new("/into", "it is not said where splits begin").help(help));
            (names.clone(), How::Rows(Arc::new(ByMoment { column, ends: vec![] })))
        }
        (Some(_), Parts::Shares(into)) => {
            let names: Vec<String> = into.keys().cloned().collect();
            let help = format!("say `into: [{}]`, or leave `at` out", names.join(", "));
            mistakes.push(Mistake::new("/at", "times and shares are both given").help(help));
            (names, How::Rows(Arc::new(ByMoment { column, ends: vec![] })))
        }
    }
}

fn is_time(kind: &DataType) -> bool {
    matches!(kind, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..)) || (kind.is_integer() && *kind != DataType::UInt64)
}

/// The times as the column holds them, noting mistakes.
fn moments(at: &[Moment], kind: &DataType, mistakes: &mut Vec<Mistake>) -> Vec<i64> {
    let mut found: Vec<i64> = Vec::with_capacity(at.len());
    for (i, moment) in at.iter().enumerate() {
        let place = format!("/at/{i}");
        let (shown, value) = match (moment, kind.is_integer()) {
            (Moment::Number(n), true) => (n.to_string(), Some(*n)),
            (Moment::Text(text), _) => (text.clone(), parse_moment(text, kind)),
            (Moment::Number(n), false) => (n.to_string(), None),
        };
        match value {
            Some(v) if found.last().is_some_and(|last| v <= *last) => {
                mistakes
                    .push(Mistake::new(place, format!("`{shown}` is not later than the time before it")).help("put the times in order"));
            }
            Some(v) => found.push(v),
            None => {
                mistakes.push(Mistake::new(place, format!("`{shown}` is no {kind}")).help("write it as 2013-09-01 or 2013-09-01T12:00:00"))
            }
        }
    }
    found
}

fn parse_moment(text: &str, kind: &DataType) -> Option<i64> {
    let parsed = cast(&StringArray::from(vec![text]), kind).ok()?;
    let ticks = ticks(&parsed).ok()?;
    ticks.is_valid(0).then(|| ticks.value(0))
}

/// Times as whole numbers in the column's own unit.
fn ticks(times: &ArrayRef) -> Result<Int64Array> {
    let narrow = matches!(times.data_type(), DataType::Date32);
    let times = if narrow { cast(times, &DataType::Int32)? } else { times.clone() };
    Ok(cast(&times, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

fn null_time(column: &str, rows: u64) -> Error {
    Error::input(format!("column `{column}` has no time in {rows} rows, so they belong to no split"))
        .hint(format!("drop them above: `- filter: \"{column} is not null\"`; or fill them: `- clean: {{ fill_null: {{ {column}: … }} }}`"))
}

#[derive(Clone)]
struct ByHash {
    keys: Vec<String>,
    ends: Vec<u64>,
    seed: u64,
}

impl RowDecision for ByHash {
    fn bind(&self, _: &SchemaRef, _: &Fits) -> Result<Box<dyn RowTest>> {
        Ok(Box::new(self.clone()))
    }
}

impl RowTest for ByHash {
    fn codes(&self, batch: &RecordBatch) -> Result<UInt32Array> {
        let hashes = if self.keys.is_empty() {
            hash_identities(identities(batch)?, self.seed)
        } else {
            hash_rows::<u64>(&columns(batch, &self.keys)?, batch.num_rows(), self.seed)?
        };
        Ok(UInt32Array::from_iter_values(hashes.into_iter().map(|h| part_of(h, &self.ends))))
    }
}

/// Columns of a batch by name.
///
/// # Errors
/// One is missing: a fault of the engine.
pub fn columns(batch: &RecordBatch, names: &[String]) -> Result<Vec<ArrayRef>> {
    let column =
        |name: &String| batch.column_by_name(name).cloned().ok_or_else(|| Error::internal(format!("a batch came without `{name}`")));
    names.iter().map(column).collect()
}

#[derive(Clone)]
struct ByMoment {
    column: String,
    ends: Vec<i64>,
}

impl RowDecision for ByMoment {
    fn bind(&self, _: &SchemaRef, _: &Fits) -> Result<Box<dyn RowTest>> {
        Ok(Box::new(self.clone()))
    }
}

impl RowTest for ByMoment {
    fn codes(&self, batch: &RecordBatch) -> Result<UInt32Array> {
        let times = ticks(&columns(batch, std::slice::from_ref(&self.column))?[0])?;
        if times.null_count() > 0 {
            return Err(null_time(&self.column, times.null_count() as u64));
        }
        let part = |t: &i64| self.ends.partition_point(|end| end <= t) as u32;
        Ok(UInt32Array::from_iter_values(times.values().iter().map(part)))
    }
}

struct ByGroup {
    keys: Vec<String>,
    shares: Vec<f64>,
    seed: u64,
}

#[async_trait]
impl TableDecision for ByGroup {
    async fn decide(&self, rows: DataFrame, _: &TableContext) -> Result<DataFrame> {
        let key = functions::hash(self.seed, self.keys.iter().map(ident).collect());
        in_order_of(rows, key, &self.shares, |n| Error::internal(format!("{n} keys have no hash"))).await
    }

    fn readings(&self) -> u64 {
        cuts::GROUP_READINGS
    }
}

struct ByQuantile {
    column: String,
    shares: Vec<f64>,
}

#[async_trait]
impl TableDecision for ByQuantile {
    async fn decide(&self, rows: DataFrame, _: &TableContext) -> Result<DataFrame> {
        let narrow = rows.schema().as_arrow().field_with_name(&self.column).is_ok_and(|f| *f.data_type() == DataType::Date32);
        let time = if narrow { cast_to(ident(&self.column), DataType::Int32) } else { ident(&self.column) };
        in_order_of(rows, as_key(cast_to(time, DataType::Int64)), &self.shares, |n| null_time(&self.column, n)).await
    }

    fn readings(&self) -> u64 {
        cuts::GROUP_READINGS
    }
}

/// Splits with these shares in the order of a key; rows with one key stay together.
async fn in_order_of(rows: DataFrame, key: Expr, shares: &[f64], on_null: impl Fn(u64) -> Error) -> Result<DataFrame> {
    let keyed = rows.select(vec![no_class().alias(CLASS), key.alias(PLACE), ident(ROW)])?;
    let cuts = cut_groups(keyed.clone().select(vec![ident(PLACE)])?, shares, on_null).await?;
    coded(keyed, &cuts)
}

struct Stratified {
    column: String,
    shares: Vec<f64>,
    seed: u64,
}

#[async_trait]
impl TableDecision for Stratified {
    async fn decide(&self, rows: DataFrame, _: &TableContext) -> Result<DataFrame> {
        let placed = placed(rows, functions::hash(0, vec![ident(&self.column)]), self.seed)?;
        let counts = count_classes(&placed, &self.column).await?;
        let codes: Vec<Option<u32>> = (0..self.shares.len() as u32).map(Some).collect();
        let want = |n: u64| Wanted { ends: ends_of(n, &self.shares), codes: codes.clone() };
        let wanted: BTreeMap<i128, Wanted> = counts.iter().map(|(class, n)| (*class, want(*n))).collect();
        debug_assert!(wanted.len() <= MAX_CLASSES);
        let cuts = find_cuts(&placed, &counts, &wanted).await?;
        coded(placed, &cuts)
    }

    fn readings(&self) -> u64 {
        cuts::READINGS
    }
}

#[cfg(test)]
#[path = "split/tests.rs"]
mod tests;
