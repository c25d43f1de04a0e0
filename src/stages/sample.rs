//! `sample`: some of the rows, chosen by hash.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{SchemaRef, UInt64Type};
use async_trait::async_trait;
use datafusion::prelude::{DataFrame, ident};
use schemars::JsonSchema;
use serde::Deserialize;

use super::cuts::{Wanted, coded, count_classes, find_cuts, no_class, placed};
use super::kernel::{hash_identities, part_ends};
use super::step::{Decide, Fits, Gives, How, ROW, RowDecision, RowTest, Scope, Step, TableContext, TableDecision};
use super::{Stage, StageContext, cuts};
use crate::error::{Error, Mistake, Result};

/// The reference page.
pub const PAGE: &str = "\
Keeps some of the rows, chosen by a hash of the seed and the row's identity: the same rows in every run.

`fraction` keeps each row with that probability and needs no pass of its own; the number of rows comes out near. `rows` keeps exactly so
many (all, where there are fewer), and costs three narrow scans. Use it to try a pipeline on less data, or to thin out a source. The
reason in the report is `not sampled`. For classes of equal size use `balance`.

```yaml
- sample: { fraction: 0.1 }
```
";

/// Keeps some of the rows, chosen by hash. Give one of the two.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Keeps each row with this probability, above 0 and at most 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    fraction: Option<f64>,
    /// Keeps exactly so many rows, or all where there are fewer.
    #[schemars(range(min = 1))]
    rows: Option<u64>,
}

impl Stage for Sample {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        let reason = "not sampled".to_owned();
        let (gives, how) = match (self.fraction, self.rows) {
            (Some(f), None) if f > 0.0 && f <= 1.0 => {
                (Gives::Rejects(vec![reason]), How::Rows(Arc::new(Fraction { fraction: f, seed: cx.seed })))
            }
            (Some(f), None) => {
                return Err(vec![
                    Mistake::new("/fraction", format!("{f} is no fraction above 0 and at most 1")).help("for a tenth, say 0.1"),
                ]);
            }
            (None, Some(0)) => return Err(vec![Mistake::new("/rows", "0 rows would leave nothing").help("say 1 or more")]),
            (None, Some(rows)) => (Gives::Survivors(reason), How::Table(Arc::new(Exactly { rows, seed: cx.seed }))),
            (None, None) => {
                return Err(vec![Mistake::new("", "neither `fraction` nor `rows` is given").help("say one: `sample: { fraction: 0.1 }`")]);
            }
            (Some(_), Some(_)) => return Err(vec![Mistake::new("/rows", "`fraction` and `rows` are both given").help("leave one out")]),
        };
        Ok(vec![Step::Decide(Decide { reads: vec![], fits: vec![], gives, on: Scope::All, how })])
    }
}

#[derive(Clone, Copy)]
struct Fraction {
    fraction: f64,
    seed: u64,
}

impl RowDecision for Fraction {
    fn bind(&self, _: &SchemaRef, _: &Fits) -> Result<Box<dyn RowTest>> {
        Ok(Box::new(*self))
    }
}

impl RowTest for Fraction {
    fn codes(&self, batch: &RecordBatch) -> Result<UInt32Array> {
        let hashes = hash_identities(identities(batch)?, self.seed);
        let end = part_ends(&[self.fraction, 1.0 - self.fraction])[0];
        let all = self.fraction >= 1.0;
        Ok(hashes.into_iter().map(|h| (!all && h >= end).then_some(0)).collect())
    }
}

/// The row identities of a batch.
///
/// # Errors
/// It has none: a fault of the engine.
pub fn identities(batch: &RecordBatch) -> Result<&arrow::array::UInt64Array> {
    let column = batch.column_by_name(ROW).and_then(|c| c.as_primitive_opt::<UInt64Type>());
    column.ok_or_else(|| Error::internal("a batch came without row identities"))
}

struct Exactly {
    rows: u64,
    seed: u64,
}

#[async_trait]
impl TableDecision for Exactly {
    async fn decide(&self, rows: DataFrame, _: &TableContext) -> Result<DataFrame> {
        let placed = placed(rows, no_class(), self.seed)?;
        let counts = count_classes(&placed, ROW).await?;
        let want = Wanted { ends: vec![self.rows], codes: vec![Some(0), None] };
        let wanted: BTreeMap<_, _> = counts.keys().map(|class| (*class, want.clone())).collect();
        let cuts = find_cuts(&placed, &counts, &wanted).await?;
        Ok(coded(placed, &cuts)?.select(vec![ident(ROW)])?)
    }

    fn readings(&self) -> u64 {
        cuts::READINGS
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stages::testing::{Bench, named, numbers, same_in_every_shape};

    fn data(rows: i64) -> RecordBatch {
        numbers("x", (0..rows).map(Some))
    }

    #[test]
    fn a_fraction_is_near_and_everything_stays_at_one() {
        let data = data(5000);
        let bench = Bench::new(&data);
        let rejected = named(&same_in_every_shape(&bench.decide("sample", json!({"fraction": 0.25})), &data)).len();
        assert!((3600..3900).contains(&rejected), "{rejected}");
        assert!(named(&same_in_every_shape(&bench.decide("sample", json!({"fraction": 1.0})), &data)).is_empty());
    }

    #[test]
    fn rows_are_exact_and_larger_samples_hold_smaller_ones() {
        let data = data(2500);
        let bench = Bench::new(&data);
        let of = |n: u64| named(&same_in_every_shape(&bench.decide("sample", json!({"rows": n})), &data));
        let (few, more) = (of(10), of(700));
        assert_eq!((few.len(), more.len(), of(2500).len(), of(9999).len()), (10, 700, 2500, 2500));
        assert!(few.iter().all(|row| more.contains(row)));
        let nothing = crate::stages::testing::numbers("x", std::iter::empty());
        assert!(same_in_every_shape(&bench.decide("sample", json!({"rows": 5})), &nothing).is_empty());
    }

    #[test]
    fn mistakes() {
        let bench = Bench::new(&data(1));
        let of = |o: serde_json::Value| bench.mistakes("sample", o).join("\n");
        assert!(of(json!({"fraction": 1.5})).starts_with("/fraction: 1.5 is no fraction"));
        assert!(of(json!({"fraction": 0})).starts_with("/fraction: 0 is no fraction"));
        assert!(of(json!({"rows": 0})).starts_with("/rows"));
        assert!(of(json!({})).contains("neither"));
        assert!(of(json!({"rows": 1, "fraction": 0.5})).contains("both"));
    }
}
