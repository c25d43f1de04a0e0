//! Exact cuts of rows in a random order, without sorting them: "the first 1,000 rows of every class by hash" in a few narrow scans.
//!
//! ```text
//!  count rows by class ─▶ count them by (class, first bits of the key) ─▶ collect the few rows in the buckets where cuts fall ─▶ cuts
//! ```
//!
//! Keys are as good as random (`functions::row_key`), so buckets are even and a cut's bucket is small: memory is a table of at most 4 Mi
//! counters and some thousand rows, whatever the number of rows.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, Decimal128Array, UInt32Array};
use arrow::datatypes::{Decimal128Type, Int64Type, UInt32Type};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::prelude::{DataFrame, Expr, ident, lit};
use futures::TryStreamExt;

use super::functions::{self, KEY};
use super::step::{CODE, ROW};
use crate::error::{Error, Result};

/// The column with a row's class, a 128-bit hash of its label.
pub const CLASS: &str = "_class";
/// The column with a row's place in the random order.
pub const PLACE: &str = "_place";
/// More classes than this are an error: such a column is no label.
pub const MAX_CLASSES: usize = 1 << 16;

/// How often the rows are read for exact cuts: by [`count_classes`], twice by [`find_cuts`], and where [`coded`] is run.
pub const READINGS: u64 = 4;
/// How often they are read for cuts between groups: twice by [`cut_groups`], and where [`coded`] is run.
pub const GROUP_READINGS: u64 = 3;

/// log₂ of how many counters are held.
const COUNTERS: u32 = 22;
/// What stands for "no code" in an encoded table.
const NO_CODE: u32 = u32::MAX;

/// For each class, cuts in the order of keys, and the codes of the parts between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CutTable {
    classes: BTreeMap<i128, Parts>,
}

/// A class's cuts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Keys that begin a part, not falling; the first part begins below all keys.
    pub cuts: Vec<i128>,
    /// The parts' codes, one more than there are cuts.
    pub codes: Vec<Option<u32>>,
}

/// A class's parts by size: where each ends, as a number of rows, and its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// How many rows lie before each cut, not falling.
    pub ends: Vec<u64>,
    /// The parts' codes, one more than there are ends.
    pub codes: Vec<Option<u32>>,
}

impl CutTable {
    /// A table of one class, for rows that have none.
    pub fn single(parts: Parts) -> Self {
        Self { classes: BTreeMap::from([(0, parts)]) }
    }

    /// As bytes, for [`CutTable::codes`]: the number of cuts, then the classes in order, each with its cuts and codes. Classes with fewer
    /// cuts than others repeat their last part.
    pub fn encode(&self) -> Vec<u8> {
        let cuts = self.classes.values().map(|p| p.cuts.len()).max().unwrap_or(0);
        let mut out = Vec::with_capacity(4 + self.classes.len() * stride(cuts));
        out.extend_from_slice(&(cuts as u32).to_le_bytes());
        for (class, parts) in &self.classes {
            out.extend_from_slice(&class.to_le_bytes());
            let last = parts.codes.last().copied().flatten();
            (0..cuts).for_each(|i| out.extend_from_slice(&parts.cuts.get(i).copied().unwrap_or(i128::MAX).to_le_bytes()));
            (0..=cuts).for_each(|i| {
                let code = parts.codes.get(i).copied().unwrap_or(last);
                out.extend_from_slice(&code.unwrap_or(NO_CODE).to_le_bytes());
            });
        }
        out
    }

    /// The code of each key, read from an encoded table; null where its class has none. `None` where the bytes are no table.
    pub fn codes(table: &[u8], classes: &Decimal128Array, keys: &Decimal128Array) -> Option<UInt32Array> {
        let (cuts, entries) = table.split_first_chunk::<4>()?;
        let cuts = u32::from_le_bytes(*cuts) as usize;
        if entries.len() % stride(cuts) != 0 {
            return None;
        }
        let mut last: Option<(i128, Option<&[u8]>)> = None;
        let code = |i: usize| {
            let class = classes.value(i);
            // runs of one class are common: look each up once
            let entry = match last {
                Some((known, entry)) if known == class => entry,
                _ => find(entries, stride(cuts), class),
            };
            last = Some((class, entry));
            let entry = entry?;
            let part = (0..cuts).take_while(|c| keys.value(i) >= number(entry, 16 + 16 * c)).count();
            let at = 16 + 16 * cuts + 4 * part;
            let code = u32::from_le_bytes(entry.get(at..at + 4)?.try_into().ok()?);
            (code != NO_CODE).then_some(code)
        };
        Some((0..keys.len()).map(code).collect())
    }
}

fn stride(cuts: usize) -> usize {
    16 + 16 * cuts + 4 * (cuts + 1)
}

fn number(bytes: &[u8], at: usize) -> i128 {
    bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).map_or(i128::MAX, i128::from_le_bytes)
}

fn find(entries: &[u8], stride: usize, class: i128) -> Option<&[u8]> {
    let (mut low, mut high) = (0, entries.len() / stride);
    while low < high {
        let middle = (low + high) / 2;
        let entry = &entries[middle * stride..(middle + 1) * stride];
        match number(entry, 0).cmp(&class) {
            std::cmp::Ordering::Equal => return Some(entry),
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}

/// Rows with their class and their place: the columns [`CLASS`], [`PLACE`] and `_row`.
///
/// # Errors
/// Planning fails.
pub fn placed(rows: DataFrame, class: Expr, seed: u64) -> Result<DataFrame> {
    Ok(rows.select(vec![class.alias(CLASS), functions::row_key(seed).alias(PLACE), ident(ROW)])?)
}

/// The class of rows that have none.
pub fn no_class() -> Expr {
    lit(datafusion::common::ScalarValue::Decimal128(Some(0), 38, 0))
}

/// How many rows each class has.
///
/// # Errors
/// There are more than [`MAX_CLASSES`]; or the scan fails.
pub async fn count_classes(placed: &DataFrame, column: &str) -> Result<BTreeMap<i128, u64>> {
    let counted = placed.clone().aggregate(vec![ident(CLASS)], vec![count(lit(1i64)).alias("_n")])?;
    let mut stream = counted.select(vec![ident(CLASS), ident("_n")])?.execute_stream().await?;
    let mut counts = BTreeMap::new();
    while let Some(batch) = stream.try_next().await? {
        let (classes, ns) = (batch.column(0).as_primitive::<Decimal128Type>(), batch.column(1).as_primitive::<Int64Type>());
        counts.extend(classes.values().iter().zip(ns.values()).map(|(c, n)| (*c, *n as u64)));
        if counts.len() > MAX_CLASSES {
            return Err(Error::input(format!("column `{column}` has more than {MAX_CLASSES} different values"))
                .hint("name a column that holds a label; make coarser classes with `derive` where it is a number"));
        }
    }
    Ok(counts)
}

/// The cuts that give each class the parts wanted, in the order of [`PLACE`]; exact to the row.
///
/// # Errors
/// A scan fails.
pub async fn find_cuts(placed: &DataFrame, counts: &BTreeMap<i128, u64>, wanted: &BTreeMap<i128, Wanted>) -> Result<CutTable> {
    let classes: Vec<i128> = wanted.keys().copied().collect();
    let bits = bucket_bits(classes.len(), counts.values().sum());
    let buckets = histogram(placed, &classes, bits).await?;
    let (mut low, mut high) = (CutTable::default(), CutTable::default());
    let mut ranks = BTreeMap::new();
    for (i, (class, want)) in wanted.iter().enumerate() {
        let total = counts.get(class).copied().unwrap_or(0);
        let of_class = &buckets[i << bits..(i + 1) << bits];
        let found: Vec<(i128, i128, u64)> = want.ends.iter().map(|end| bucket_of(of_class, bits, *end, total)).collect();
        let numbered: Vec<Option<u32>> = (0..=found.len() as u32).map(Some).collect();
        low.classes.insert(*class, Parts { cuts: found.iter().map(|f| f.0).collect(), codes: numbered.clone() });
        high.classes.insert(*class, Parts { cuts: found.iter().map(|f| f.1).collect(), codes: numbered });
        ranks.insert(*class, found);
    }
    let mut near = rows_near(placed, &low, &high).await?;
    near.sort_unstable();
    let exact = wanted.iter().map(|(class, want)| {
        let cuts = ranks[class].iter().map(|(from, to, rank)| nth(&near, *class, *from, *to, *rank)).collect();
        (*class, Parts { cuts, codes: want.codes.clone() })
    });
    Ok(CutTable { classes: exact.collect() })
}

/// The rows that have a code, with it: [`ROW`] and [`CODE`].
///
/// # Errors
/// Planning fails.
pub fn coded(placed: DataFrame, table: &CutTable) -> Result<DataFrame> {
    let coded = placed.select(vec![ident(ROW), functions::cut(table, ident(CLASS), ident(PLACE)).alias(CODE)])?;
    Ok(coded.filter(ident(CODE).is_not_null())?)
}

/// Enough buckets for about 16 rows in each, as far as the counters reach.
fn bucket_bits(classes: usize, rows: u64) -> u32 {
    let useful = (rows / 16).max(2).ilog2();
    let held = COUNTERS.saturating_sub(classes.next_power_of_two().ilog2());
    useful.min(held).clamp(1, 16)
}

/// Rows by class and bucket, in one run of `1 << bits` counters a class.
async fn histogram(placed: &DataFrame, classes: &[i128], bits: u32) -> Result<Vec<u64>> {
    let by = vec![ident(CLASS), functions::bucket(ident(PLACE), bits).alias("_bucket")];
    let counted = placed.clone().aggregate(by, vec![count(lit(1i64)).alias("_n")])?;
    let mut stream = counted.select(vec![ident(CLASS), ident("_bucket"), ident("_n")])?.execute_stream().await?;
    let mut buckets = vec![0; classes.len() << bits];
    while let Some(batch) = stream.try_next().await? {
        let class = batch.column(0).as_primitive::<Decimal128Type>();
        let bucket = batch.column(1).as_primitive::<UInt32Type>();
        let n = batch.column(2).as_primitive::<Int64Type>();
        for i in 0..batch.num_rows() {
            if let Ok(c) = classes.binary_search(&class.value(i)) {
                buckets[(c << bits) + bucket.value(i) as usize] += n.value(i) as u64;
            }
        }
    }
    Ok(buckets)
}

/// The keys between which the cut before row `end` lies, and how many of the rows between stand before it.
fn bucket_of(buckets: &[u64], bits: u32, end: u64, total: u64) -> (i128, i128, u64) {
    if end == 0 {
        return (i128::MIN, i128::MIN, 0);
    }
    let mut before = 0;
    for (bucket, rows) in buckets.iter().enumerate() {
        if end < total && before + rows > end {
            return (bucket_start(bucket, bits), bucket_start(bucket + 1, bits), end - before);
        }
        before += rows;
    }
    (i128::MAX, i128::MAX, 0)
}

fn bucket_start(bucket: usize, bits: u32) -> i128 {
    if bucket >> bits > 0 {
        return i128::MAX;
    }
    (((bucket as u128) << (128 - bits)) ^ (1 << 127)) as i128
}

/// Classes and places of the rows that lie between two tables' cuts.
async fn rows_near(placed: &DataFrame, low: &CutTable, high: &CutTable) -> Result<Vec<(i128, i128)>> {
    let code = |table| functions::cut(table, ident(CLASS), ident(PLACE));
    let near = placed.clone().filter(code(low).not_eq(code(high)))?.select(vec![ident(CLASS), ident(PLACE)])?;
    let mut stream = near.execute_stream().await?;
    let mut found = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        let (class, place) = (batch.column(0).as_primitive::<Decimal128Type>(), batch.column(1).as_primitive::<Decimal128Type>());
        found.extend(class.values().iter().copied().zip(place.values().iter().copied()));
    }
    Ok(found)
}

/// The key of rank `rank` among the sorted rows of a class from a key on.
fn nth(near: &[(i128, i128)], class: i128, from: i128, to: i128, rank: u64) -> i128 {
    if from == to {
        return from;
    }
    let start = near.partition_point(|row| *row < (class, from));
    near.get(start + rank as usize).map_or(to, |row| row.1)
}

/// Cuts groups of rows in the order of their keys so that each part comes as near as it can to its share of the rows, and no group is cut:
/// a group belongs to the part that holds its middle row. `rows` has a column [`PLACE`] (a key, or null).
///
/// # Errors
/// Some rows have no key: what `on_null` makes of their number; or a scan fails.
pub async fn cut_groups(rows: DataFrame, shares: &[f64], on_null: impl Fn(u64) -> Error) -> Result<CutTable> {
    let total = rows.clone().count().await? as u64;
    let ends: Vec<u64> = ends_of(total, shares);
    let groups = rows.aggregate(vec![ident(PLACE)], vec![count(lit(1i64)).alias("_n")])?;
    let sorted = groups.sort(vec![ident(PLACE).sort(true, true)])?.select(vec![ident(PLACE), ident("_n")])?;
    let mut stream = sorted.execute_stream().await?;
    let (mut before, mut cuts) = (0u64, Vec::with_capacity(ends.len()));
    while let Some(batch) = stream.try_next().await? {
        let (keys, ns) = (batch.column(0).as_primitive::<Decimal128Type>(), batch.column(1).as_primitive::<Int64Type>());
        for i in 0..batch.num_rows() {
            let n = ns.value(i) as u64;
            if keys.is_null(i) {
                return Err(on_null(n));
            }
            while cuts.len() < ends.len() && 2 * before + n > 2 * ends[cuts.len()] {
                cuts.push(keys.value(i));
            }
            before += n;
        }
    }
    cuts.resize(ends.len(), i128::MAX);
    Ok(CutTable::single(Parts { cuts, codes: (0..=ends.len() as u32).map(Some).collect() }))
}

/// Where parts with these shares end among so many rows, without the last: by largest remainders, the earlier part first among equals.
pub fn ends_of(rows: u64, shares: &[f64]) -> Vec<u64> {
    // 1e-9 forgives what the sum of shares is allowed to miss
    let exact: Vec<f64> = shares.iter().map(|s| s * rows as f64).collect();
    let mut parts: Vec<u64> = exact.iter().map(|e| (e + 1e-9).floor() as u64).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|a, b| (exact[*b] - parts[*b] as f64).total_cmp(&(exact[*a] - parts[*a] as f64)).then(a.cmp(b)));
    let left = rows.saturating_sub(parts.iter().sum());
    order.iter().cycle().take(left as usize).for_each(|i| parts[*i] += 1);
    let mut sum = 0;
    let inner = parts.len().saturating_sub(1);
    parts[..inner]
        .iter()
        .map(|p| {
            sum = (sum + p).min(rows);
            sum
        })
        .collect()
}

/// The key type, for tests and for keys made of other columns.
pub fn as_key(column: Expr) -> Expr {
    datafusion::logical_expr::cast(column, KEY)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stages::testing::{Shape, numbers, session, table};

    #[test]
    fn largest_remainders() {
        assert_eq!(ends_of(10, &[0.8, 0.1, 0.1]), [8, 9]);
        assert_eq!(ends_of(7, &[0.5, 0.25, 0.25]), [3, 5]);
        assert_eq!(ends_of(3, &[0.5, 0.5]), [2]);
        assert_eq!(ends_of(0, &[0.5, 0.5]), [0]);
        assert_eq!(ends_of(1, &[0.1, 0.9]), [0]);
    }

    #[test]
    fn a_table_reads_as_it_was_written() {
        let mut table = CutTable::single(Parts { cuts: vec![10, 20], codes: vec![Some(5), None, Some(7)] });
        table.classes.insert(-3, Parts { cuts: vec![], codes: vec![Some(1)] });
        let of = |class: i128, key: i128| {
            let column = |v: i128| Decimal128Array::from(vec![v]);
            let codes = CutTable::codes(&table.encode(), &column(class), &column(key)).unwrap();
            codes.is_valid(0).then(|| codes.value(0))
        };
        assert_eq!([of(0, 9), of(0, 10), of(0, 19), of(0, 20)], [Some(5), None, None, Some(7)]);
        assert_eq!([of(-3, i128::MIN), of(-3, 99), of(1, 0)], [Some(1), Some(1), None]);
        assert!(CutTable::codes(&[1, 2, 3], &Decimal128Array::from(vec![0]), &Decimal128Array::from(vec![0])).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn cuts_are_exact(rows in 1u64..3000, classes in 1u64..5, a in 0u64..700, b in 0u64..700, seed: u64) {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let (first, second) = (a.min(b), a.max(b));
            let counts = runtime.block_on(async {
                let session = session(Shape { partitions: 2, batch: 100 });
                let data = table(&session, numbers("c", (0..rows).map(|i| Some((i % classes) as i64))), Shape { partitions: 2, batch: 100 });
                let placed = placed(data, functions::hash(0, vec![ident("c")]), seed).unwrap();
                let counts = count_classes(&placed, "c").await.unwrap();
                let want = Wanted { ends: vec![first, second], codes: vec![Some(0), Some(1), Some(2)] };
                let wanted = counts.keys().map(|c| (*c, want.clone())).collect();
                let table = find_cuts(&placed, &counts, &wanted).await.unwrap();
                let mut got: BTreeMap<(i128, u32), u64> = BTreeMap::new();
                let with_class = placed.select(vec![ident(CLASS), functions::cut(&table, ident(CLASS), ident(PLACE)).alias(CODE)]).unwrap();
                for batch in with_class.collect().await.unwrap() {
                    let (c, code) = (batch.column(0).as_primitive::<Decimal128Type>(), batch.column(1).as_primitive::<UInt32Type>());
                    (0..batch.num_rows()).for_each(|i| *got.entry((c.value(i), code.value(i))).or_default() += 1);
                }
                (counts, got)
            });
            let (counts, got) = counts;
            for (class, n) in counts {
                let of = |code| got.get(&(class, code)).copied().unwrap_or(0);
                prop_assert_eq!(of(0), first.min(n));
                prop_assert_eq!(of(0) + of(1), second.min(n));
                prop_assert_eq!(of(0) + of(1) + of(2), n);
            }
        }
    }
}
