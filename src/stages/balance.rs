//! `balance`: classes of a label in better proportion.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use datafusion::logical_expr::lit;
use datafusion::prelude::{DataFrame, ident};
use polars::prelude::{self as pl, NamedFrom};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cuts::{MAX_CLASSES, Wanted, coded, count_classes, find_cuts, placed};
use super::keys::none_of;
use super::step::{
    ColumnWork, Columns, Decide, Fit, FitKey, FitKind, FitResult, Fits, Gives, How, Made, Scope, Step, TableContext, TableDecision,
    with_field,
};
use super::{Stage, StageContext, cuts, functions};
use crate::error::{Error, Mistake, Result};

/// The reference page.
pub const PAGE: &str = "\
Brings the classes of a label into better proportion, in the training split alone: validation and test keep the proportions that a model
will meet.

| `method` | what happens |
|---|---|
| `undersample` | classes that are too large lose rows, chosen by hash; reason `undersampled` |
| `oversample` | rows of classes that are too small are delivered several times: as evenly as can be, the odd ones chosen by hash |
| `weights` | no row changes; a new column holds `rows / (classes * rows of the class)`, the weight that scikit-learn calls *balanced* |

`ratio` is how large the smallest class shall be against the largest: 1 makes them equal, 0.5 leaves the largest twice as large. Counts are
exact. Rows without a label are no class: they stay as they are, and have no weight. A label with one class alone is an error; where no row has a
label, nothing is changed and the report warns.

Use `undersample` where data is plenty, `oversample` where the small class is precious, `weights` where the loss takes weights.

```yaml
- split: { by: stratified, column: delayed, into: { train: 0.8, test: 0.2 } }
- balance: { column: delayed, method: undersample }
```
";

/// Brings the classes of a label into better proportion.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Balance {
    /// The column with the label.
    column: String,
    /// How.
    method: Method,
    /// The smallest class against the largest, above 0 and at most 1; by default 1. Not with `weights`.
    #[schemars(range(min = 0.0, max = 1.0))]
    ratio: Option<f64>,
    /// Which rows are counted and changed: those of the split `train`, or `all`.
    #[serde(default)]
    only: Scope,
    /// The name of the column with the weights; by default the label's with `_weight`.
    weight_column: Option<String>,
}

/// How classes are balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Method {
    /// Large classes lose rows.
    Undersample,
    /// Rows of small classes are delivered several times.
    Oversample,
    /// A new column holds weights.
    Weights,
}

impl Stage for Balance {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let kind = cx.column("/column", &self.column).map(|f| f.data_type().clone()).map_err(|m| mistakes.push(m)).ok();
        if self.only == Scope::Train && !cx.splits.is_some_and(|s| s.iter().any(|n| n == "train")) {
            let message = "the classes of the `train` split are balanced, but no `split` with such a part stands above";
            mistakes.push(Mistake::new("", message).help("put a `split` above it, or say `only: all`"));
        }
        if let Some(ratio) = self.ratio.filter(|r| !(*r > 0.0 && *r <= 1.0)) {
            mistakes.push(Mistake::new("/ratio", format!("{ratio} is no ratio above 0 and at most 1")).help("1 makes classes equal"));
        }
        match self.method {
            Method::Weights => {
                mistakes.extend(kind.and_then(|kind| self.no_weights_for(&kind)));
                mistakes.extend(self.ratio.map(|_| Mistake::new("/ratio", "weights have no ratio").help("leave it out")));
                none_of(mistakes)?;
                Ok(self.weights(cx))
            }
            _ => {
                mistakes.extend(self.weight_column.as_ref().map(|_| {
                    Mistake::new("/weight_column", "only `method: weights` makes a column").help("leave it out, or say `method: weights`")
                }));
                none_of(mistakes)?;
                Ok(vec![self.resample(cx.seed)])
            }
        }
    }
}

impl Balance {
    fn resample(&self, seed: u64) -> Step {
        let over = self.method == Method::Oversample;
        let ratio = self.ratio.unwrap_or(1.0);
        Step::Decide(Decide {
            reads: vec![self.column.clone()],
            fits: vec![],
            gives: if over { Gives::Copies } else { Gives::Rejects(vec!["undersampled".into()]) },
            on: self.only,
            how: How::Table(Arc::new(Resample { column: self.column.clone(), over, ratio, seed })),
        })
    }

    /// Labels are matched by their text, which floats and nested values do not have in one form.
    fn no_weights_for(&self, kind: &DataType) -> Option<Mistake> {
        let kind = if let DataType::Dictionary(_, values) = kind { values } else { kind };
        if kind.is_integer() || kind.is_string() || *kind == DataType::Boolean {
            return None;
        }
        let message = format!("column `{}` is {kind}; weights need a label of text, whole numbers or booleans", self.column);
        Some(Mistake::new("/column", message).help("cast it first: `- cast: { columns: { … } }`"))
    }

    fn weights(&self, cx: &StageContext<'_>) -> Vec<Step> {
        let name = self.weight_column.clone().unwrap_or_else(|| format!("{}_weight", self.column));
        let key: FitKey = format!("{}/frequencies({})", cx.label, self.column);
        let kind = FitKind::Frequencies { at_most: MAX_CLASSES };
        let (column, fit) = (self.column.clone(), key.clone());
        let work = move |fits: &Fits| Ok(vec![weight_of(&column, fits.get(&fit))?]);
        vec![
            Step::Fit(Fit { key: key.clone(), column: self.column.clone(), kind, on: self.only }),
            Step::Columns(Columns {
                output: with_field(cx.schema, Field::new(&name, DataType::Float64, true)),
                makes: vec![Made { name, reads: vec![self.column.clone()] }],
                fits: vec![key],
                work: ColumnWork::Polars(Arc::new(work)),
            }),
        ]
    }
}

/// `n / (k · n_c)` for each of `k` classes with `n_c` of `n` labelled rows: `compute_class_weight("balanced")` in scikit-learn, after
/// King and Zeng, "Logistic Regression in Rare Events Data" (2001). Null for labels that were not counted.
fn weight_of(column: &str, fit: Option<&FitResult>) -> Result<pl::Expr> {
    let Some(FitResult::Frequencies { values, .. }) = fit else {
        return Err(Error::internal(format!("the frequencies of `{column}` are not known")));
    };
    if values.len() == 1 {
        return Err(one_class(column));
    }
    let label = pl::col(column);
    if values.is_empty() {
        let none = || pl::lit(pl::Null {});
        return Ok(pl::when(label.is_null()).then(none()).otherwise(none()).cast(pl::DataType::Float64));
    }
    let total: u64 = values.iter().map(|v| v.1).sum();
    let weights: Vec<f64> = values.iter().map(|v| total as f64 / (values.len() as f64 * v.1 as f64)).collect();
    let labels: Vec<&str> = values.iter().map(|v| v.0.as_str()).collect();
    let series = |s: pl::Series| pl::lit(s);
    let (old, new) = (pl::Series::new("label".into(), labels), pl::Series::new("weight".into(), weights));
    let none = pl::lit(pl::Null {}).cast(pl::DataType::Float64);
    Ok(label.cast(pl::DataType::String).replace_strict(series(old), series(new), Some(none), Some(pl::DataType::Float64)))
}

fn one_class(column: &str) -> Error {
    Error::input(format!("column `{column}` has only one class, so there is nothing to balance"))
        .hint("is it the right column, and do the stages above leave rows of each class?")
}

struct Resample {
    column: String,
    over: bool,
    ratio: f64,
    seed: u64,
}

#[async_trait]
impl TableDecision for Resample {
    async fn decide(&self, rows: DataFrame, cx: &TableContext) -> Result<DataFrame> {
        let labelled = rows.filter(ident(&self.column).is_not_null())?;
        let placed = placed(labelled, functions::hash(0, vec![ident(&self.column)]), self.seed)?;
        let counts = count_classes(&placed, &self.column).await?;
        match counts.len() {
            0 => cx.remarks.say(format!("no row has a label in `{}`, so there was nothing to balance", self.column)),
            1 => return Err(one_class(&self.column)),
            _ => {}
        }
        let wanted = if self.over { copies(&counts, self.ratio) } else { survivors(&counts, self.ratio) };
        if wanted.is_empty() {
            return Ok(coded(placed, &Default::default())?.filter(lit(false))?);
        }
        let cuts = find_cuts(&placed, &counts, &wanted).await?;
        coded(placed, &cuts)
    }

    fn readings(&self) -> u64 {
        cuts::READINGS
    }
}

/// In each class, the rows beyond `smallest / ratio` are rejected.
fn survivors(counts: &BTreeMap<i128, u64>, ratio: f64) -> BTreeMap<i128, Wanted> {
    let smallest = counts.values().min().copied().unwrap_or(0);
    // 1e-9 forgives that 0.1 is not quite a tenth
    let most = (smallest as f64 / ratio + 1e-9).floor() as u64;
    let too_large = counts.iter().filter(|(_, n)| **n > most);
    too_large.map(|(class, _)| (*class, Wanted { ends: vec![most], codes: vec![None, Some(0)] })).collect()
}

/// Each class reaches `ratio * largest` rows: every row as often as fits, the first ones once more.
fn copies(counts: &BTreeMap<i128, u64>, ratio: f64) -> BTreeMap<i128, Wanted> {
    let largest = counts.values().max().copied().unwrap_or(0);
    let least = (largest as f64 * ratio - 1e-9).ceil() as u64;
    let too_small = counts.iter().filter(|(_, n)| **n < least);
    let wanted = too_small.map(|(class, n)| {
        let times = u32::try_from(least / n).unwrap_or(u32::MAX - 2);
        // code 1 is what rows have anyway, and stays unsaid
        let rest = (times > 1).then_some(times);
        (*class, Wanted { ends: vec![least % n], codes: vec![Some(times + 1), rest] })
    });
    wanted.collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use polars::prelude::IntoLazy;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::stages::testing::{Bench, SHAPES, numbers, same_in_every_shape, texts, verdicts};

    fn labels(counts: &[(Option<i64>, usize)]) -> RecordBatch {
        numbers("y", counts.iter().flat_map(|(label, n)| std::iter::repeat_n(*label, *n)))
    }

    fn rows_by_class(data: &RecordBatch, options: serde_json::Value) -> BTreeMap<Option<i64>, u64> {
        use arrow::array::{Array, AsArray};
        let decide = Bench::new(data).decide("balance", options);
        let codes = same_in_every_shape(&decide, data);
        let labels = data.column(0).as_primitive::<arrow::datatypes::Int64Type>();
        let mut out = BTreeMap::new();
        for (i, code) in codes.iter().enumerate() {
            let label = labels.is_valid(i).then(|| labels.value(i));
            let times = match (&decide.gives, code) {
                (Gives::Copies, Some(times)) => u64::from(*times),
                (Gives::Rejects(_), Some(_)) => 0,
                _ => 1,
            };
            *out.entry(label).or_default() += times;
        }
        out
    }

    fn all(method: &str, ratio: f64) -> serde_json::Value {
        json!({"column": "y", "method": method, "ratio": ratio, "only": "all"})
    }

    #[test]
    fn undersampling_is_exact_and_leaves_null_alone() {
        let data = labels(&[(Some(0), 900), (Some(1), 100), (None, 50), (Some(2), 130)]);
        assert_eq!(rows_by_class(&data, all("undersample", 1.0)), [(None, 50), (Some(0), 100), (Some(1), 100), (Some(2), 100)].into());
        assert_eq!(rows_by_class(&data, all("undersample", 0.25)), [(None, 50), (Some(0), 400), (Some(1), 100), (Some(2), 130)].into());
        assert_eq!(rows_by_class(&data, all("undersample", 0.1))[&Some(0)], 900);
    }

    #[test]
    fn oversampling_is_exact_and_even() {
        let data = labels(&[(Some(0), 900), (Some(1), 100), (None, 50), (Some(2), 401)]);
        assert_eq!(rows_by_class(&data, all("oversample", 1.0)), [(None, 50), (Some(0), 900), (Some(1), 900), (Some(2), 900)].into());
        assert_eq!(rows_by_class(&data, all("oversample", 0.5)), [(None, 50), (Some(0), 900), (Some(1), 450), (Some(2), 450)].into());
        let decide = Bench::new(&data).decide("balance", all("oversample", 0.5));
        let times: std::collections::BTreeSet<_> = verdicts(&decide, &data, SHAPES[0]).unwrap()[900..1000].iter().copied().collect();
        assert_eq!(times, [Some(4), Some(5)].into());
    }

    #[test]
    fn one_class_is_an_error_and_none_is_not() {
        let data = labels(&[(Some(1), 5), (None, 5)]);
        let e = verdicts(&Bench::new(&data).decide("balance", all("undersample", 1.0)), &data, SHAPES[0]).unwrap_err();
        assert!(e.message().contains("only one class"), "{e}");
        for data in [labels(&[]), labels(&[(None, 3)])] {
            let codes = same_in_every_shape(&Bench::new(&data).decide("balance", all("oversample", 1.0)), &data);
            assert!(codes.iter().all(Option::is_none));
        }
    }

    #[test]
    fn weights_are_sklearns() {
        let data = texts("y", &[Some("a")]);
        let steps = Bench::new(&data).with_split().lower("balance", json!({"column": "y", "method": "weights"})).unwrap();
        let [Step::Fit(fit), Step::Columns(columns)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!((fit.key.as_str(), fit.on), ("stage/frequencies(y)", Scope::Train));
        assert_eq!(columns.output.field(1).name(), "y_weight");
        let ColumnWork::Polars(bind) = &columns.work else { panic!() };
        let fits = |values: &[(&str, u64)]| {
            let values = values.iter().map(|v| (v.0.to_owned(), v.1)).collect();
            Fits::from([(fit.key.clone(), FitResult::Frequencies { nulls: 1, values })])
        };
        let frame = pl::df!("y" => [Some("a"), Some("b"), None, Some("never seen")]).unwrap();
        let run = |fits| {
            let made = bind(&fits).unwrap().remove(0);
            let out = frame.clone().lazy().select([made]).collect().unwrap();
            out.columns()[0].f64().unwrap().to_vec()
        };
        // sklearn.utils.class_weight.compute_class_weight("balanced", classes=["a", "b"], y=["a"] * 6 + ["b"] * 2)
        assert_eq!(run(fits(&[("a", 6), ("b", 2)])), [Some(8.0 / 12.0), Some(2.0), None, None]);
        assert_eq!(run(fits(&[])), [None; 4]);
        assert!(bind(&fits(&[("a", 6)])).unwrap_err().message().contains("only one class"));
    }

    #[test]
    fn mistakes_come_all_at_once() {
        let bench = Bench::new(&numbers("y", std::iter::empty()));
        let of = |o: serde_json::Value| bench.mistakes("balance", o);
        assert_eq!(
            of(json!({"column": "z", "method": "undersample", "ratio": 2.0, "weight_column": "w"})),
            [
                "/column: no column `z` reaches this stage (did you mean `y`?)",
                ": the classes of the `train` split are balanced, but no `split` with such a part stands above (put a `split` above it, or say `only: all`)",
                "/ratio: 2 is no ratio above 0 and at most 1 (1 makes classes equal)",
                "/weight_column: only `method: weights` makes a column (leave it out, or say `method: weights`)",
            ]
        );
        assert!(of(json!({"column": "y", "method": "weights", "ratio": 0.5, "only": "all"}))[0].contains("weights have no ratio"));
        let floats = Bench::new(&crate::stages::testing::columns(vec![("y", Arc::new(arrow::array::Float32Array::from(vec![1.0])) as _)]));
        assert!(floats.mistakes("balance", json!({"column": "y", "method": "weights", "only": "all"}))[0].contains("is Float32"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10))]
        #[test]
        fn the_ratio_is_kept(counts in proptest::collection::vec(1usize..200, 2..5), ratio in 0.05f64..=1.0) {
            let data = labels(&counts.iter().enumerate().map(|(i, n)| (Some(i as i64), *n)).collect::<Vec<_>>());
            for method in ["undersample", "oversample"] {
                let after = rows_by_class(&data, all(method, ratio));
                let (small, large) = (after.values().min().unwrap(), after.values().max().unwrap());
                prop_assert!(*small as f64 / *large as f64 >= ratio - 1e-9, "{method} {after:?}");
                prop_assert!(after.values().all(|n| *n > 0));
            }
        }
    }
}
