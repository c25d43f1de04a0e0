//! Leakage: entities that occur in more than one split, so that a model is tested on what it was trained on.
//!
//! Exact, in three small queries: the splits' names; how many keys occur in which set of splits (each split a bit, so that the sum over a key's
//! distinct splits is their union); and, where there is leakage, its smallest keys.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::prelude::{DataFrame, Expr, cast as cast_expr, col, ident, lit, when};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The column that names a row's split.
pub const SPLIT: &str = "_split";
/// Leaked keys that are shown.
const EXAMPLES: usize = 5;
/// A split is a bit of a 64-bit integer.
const MOST_SPLITS: usize = 62;

/// How far splits share entities.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Leakage {
    /// The columns that identify an entity, together.
    pub keys: Vec<String>,
    /// Distinct key values, over all splits. Rows in which a part of the key is null belong to no entity and are left out.
    pub distinct: u64,
    /// Distinct key values that occur in more than one split.
    pub leaked: u64,
    /// `leaked / distinct`; 0 where there is no key.
    pub share: f64,
    /// Rows that carry a leaked key.
    pub rows: u64,
    /// Pairs of splits that share keys, by name. A key in three splits counts in three pairs.
    pub pairs: Vec<LeakPair>,
    /// The smallest leaked keys.
    pub examples: Vec<LeakExample>,
}

/// Keys that two splits share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeakPair {
    /// One split.
    pub a: String,
    /// The other.
    pub b: String,
    /// Distinct keys that occur in both.
    pub leaked: u64,
}

/// A leaked key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeakExample {
    /// Its parts as text, in the order of [`Leakage::keys`].
    pub key: Vec<String>,
    /// The splits it occurs in, by name.
    pub splits: Vec<String>,
}

/// Counts the entities that splits share. `df` has the key columns and [`SPLIT`] (text); all other columns are taken as parts of the key.
///
/// # Errors
/// Where there is no key column, no [`SPLIT`], or more than 62 splits; and what DataFusion meets while it reads `df`.
pub async fn leakage(df: DataFrame) -> Result<Leakage> {
    let names: Vec<String> = df.schema().fields().iter().map(|field| field.name().clone()).collect();
    let keys: Vec<String> = names.iter().filter(|name| *name != SPLIT).cloned().collect();
    if keys.is_empty() || keys.len() == names.len() {
        return Err(Error::internal(format!("leakage needs key columns and `{SPLIT}`, not {names:?}")));
    }
    let present = keys.iter().fold(ident(SPLIT).is_not_null(), |all, key| all.and(ident(key).is_not_null()));
    let df = df.filter(present)?;
    let splits = split_names(df.clone()).await?;
    let by_key = by_key(df, &keys, &splits)?;
    let mut found = Leakage { keys: keys.clone(), ..Leakage::default() };
    let mut pairs: Vec<LeakPair> = pairs_of(&splits);
    for (set, distinct, rows) in set_counts(by_key.clone()).await? {
        found.distinct += distinct;
        if set.count_ones() > 1 {
            found.leaked += distinct;
            found.rows += rows;
            let within = names_in(set, &splits);
            let shared = pairs.iter_mut().filter(|pair| within.contains(&pair.a) && within.contains(&pair.b));
            shared.for_each(|pair| pair.leaked += distinct);
        }
    }
    found.pairs = pairs.into_iter().filter(|pair| pair.leaked > 0).collect();
    if found.leaked > 0 {
        found.share = found.leaked as f64 / found.distinct as f64;
        found.examples = examples(by_key, &keys, &splits).await?;
    }
    Ok(found)
}

async fn split_names(df: DataFrame) -> Result<Vec<String>> {
    let batches = df.select(vec![cast_expr(ident(SPLIT), DataType::Utf8).alias(SPLIT)])?.distinct()?.collect().await?;
    let mut names: Vec<String> = batches.iter().flat_map(|b| b.column(0).as_string::<i32>().iter().flatten().map(str::to_owned)).collect();
    names.sort_unstable();
    if names.len() > MOST_SPLITS {
        return Err(Error::input(format!("{} splits are too many to compare: at most {MOST_SPLITS}", names.len()))
            .hint("leave out `report.leakage_keys`"));
    }
    Ok(names)
}

/// One row a key: the key, `_set` (its splits as bits) and `_rows`.
fn by_key(df: DataFrame, keys: &[String], splits: &[String]) -> Result<DataFrame> {
    let key_columns: Vec<Expr> = keys.iter().map(ident).collect();
    let mut each: Vec<Expr> = key_columns.clone();
    each.push(ident(SPLIT));
    let bit = splits.iter().enumerate().skip(1).fold(
        None,
        |cases: Option<datafusion::logical_expr::conditional_expressions::CaseBuilder>, (i, name)| {
            let (is, bit) = (ident(SPLIT).eq(lit(name.as_str())), lit(1_i64 << i));
            Some(match cases {
                None => when(is, bit),
                Some(mut cases) => cases.when(is, bit),
            })
        },
    );
    let bit = match bit {
        Some(mut cases) => cases.otherwise(lit(1_i64))?,
        None => lit(1_i64),
    };
    Ok(df
        .aggregate(each, vec![count(lit(1_i64)).alias("_n")])?
        .aggregate(key_columns, vec![sum(bit).alias("_set"), sum(col("_n")).alias("_rows")])?)
}

/// How many keys, and rows of theirs, there are for each set of splits.
async fn set_counts(by_key: DataFrame) -> Result<Vec<(i64, u64, u64)>> {
    let batches =
        by_key.aggregate(vec![col("_set")], vec![count(lit(1_i64)).alias("_keys"), sum(col("_rows")).alias("_rows")])?.collect().await?;
    let mut all = Vec::new();
    for batch in &batches {
        let [sets, keys, rows] = [0, 1, 2].map(|i| batch.column(i).as_primitive::<Int64Type>());
        all.extend((0..batch.num_rows()).map(|i| (sets.value(i), keys.value(i) as u64, rows.value(i) as u64)));
    }
    Ok(all)
}

async fn examples(by_key: DataFrame, keys: &[String], splits: &[String]) -> Result<Vec<LeakExample>> {
    // A power of two has one bit: the key stays in one split.
    let several = splits.iter().enumerate().fold(lit(true), |all, (i, _)| all.and(col("_set").not_eq(lit(1_i64 << i))));
    let order = keys.iter().map(|key| ident(key).sort(true, false)).collect();
    let batches = by_key.filter(several)?.sort(order)?.limit(0, Some(EXAMPLES))?.collect().await?;
    let mut all = Vec::new();
    for batch in &batches {
        let texts = keys.iter().map(|key| key_text(batch, key)).collect::<Result<Vec<_>>>()?;
        let sets = batch.column_by_name("_set").ok_or_else(|| Error::internal("leakage lost its sets"))?.as_primitive::<Int64Type>();
        all.extend(
            (0..batch.num_rows()).map(|i| LeakExample {
                key: texts.iter().map(|column| column[i].clone()).collect(),
                splits: names_in(sets.value(i), splits),
            }),
        );
    }
    Ok(all)
}

fn key_text(batch: &RecordBatch, key: &str) -> Result<Vec<String>> {
    let column = batch.column_by_name(key).ok_or_else(|| Error::internal(format!("leakage lost the key `{key}`")))?;
    let text = cast(column, &DataType::Utf8)?;
    let text = text.as_string::<i32>();
    Ok((0..text.len()).map(|i| text.value(i).to_owned()).collect())
}

fn names_in(set: i64, splits: &[String]) -> Vec<String> {
    splits.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, name)| name.clone()).collect()
}

fn pairs_of(splits: &[String]) -> Vec<LeakPair> {
    let pair = |(i, a): (usize, &String)| {
        let a = a.clone();
        splits[i + 1..].iter().map(move |b| LeakPair { a: a.clone(), b: b.clone(), leaked: 0 }).collect::<Vec<_>>()
    };
    splits.iter().enumerate().flat_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use datafusion::prelude::SessionContext;
    use std::sync::Arc;

    async fn of(columns: Vec<(&str, ArrayRef)>) -> Result<Leakage> {
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))?;
        leakage(SessionContext::new().read_batch(batch)?).await
    }

    fn text(values: Vec<Option<&str>>) -> ArrayRef {
        Arc::new(StringArray::from(values))
    }

    #[tokio::test]
    async fn keys_in_several_splits_are_counted_by_pair() {
        let ids = Arc::new(Int64Array::from(vec![Some(9), Some(9), Some(9), Some(2), Some(2), Some(5), Some(5), None, None])) as ArrayRef;
        let splits = text("train test validation train test train train train test".split(' ').map(Some).collect());
        let found = of(vec![("Tail Num", ids), (SPLIT, splits)]).await.unwrap();
        assert_eq!((found.distinct, found.leaked, found.rows), (3, 2, 5), "null is no entity; 5 stays in train");
        assert!((found.share - 2.0 / 3.0).abs() < 1e-12);
        let pairs: Vec<_> = found.pairs.iter().map(|p| (p.a.as_str(), p.b.as_str(), p.leaked)).collect();
        assert_eq!(pairs, [("test", "train", 2), ("test", "validation", 1), ("train", "validation", 1)]);
        assert_eq!(found.examples[0], LeakExample { key: vec!["2".into()], splits: vec!["test".into(), "train".into()] });
        assert_eq!(found.examples[1].splits, ["test", "train", "validation"]);
    }

    #[tokio::test]
    async fn composite_keys_leak_only_as_a_whole() {
        let (a, b) = (vec![Some("x"), Some("x"), Some("y")], vec![Some("1"), Some("2"), Some("1")]);
        let splits = text(vec![Some("train"), Some("test"), Some("test")]);
        let clean = of(vec![("a", text(a.clone())), (SPLIT, splits), ("b", text(b.clone()))]).await.unwrap();
        assert_eq!((clean.distinct, clean.leaked, clean.share), (3, 0, 0.0));
        assert!(clean.pairs.is_empty() && clean.examples.is_empty());
        let one = of(vec![("a", text(a)), ("b", text(b)), (SPLIT, text(vec![Some("all"); 3]))]).await.unwrap();
        assert_eq!(one.leaked, 0);
    }

    #[tokio::test]
    async fn no_rows_and_no_keys_hold() {
        let none = of(vec![("a", text(vec![])), (SPLIT, text(vec![]))]).await.unwrap();
        assert_eq!((none.distinct, none.share), (0, 0.0));
        assert!(of(vec![(SPLIT, text(vec![Some("train")]))]).await.is_err());
        assert!(of(vec![("a", text(vec![Some("x")]))]).await.is_err());
    }
}
