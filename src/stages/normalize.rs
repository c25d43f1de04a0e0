//! `normalize`: numbers on a common scale, with statistics learned from the training rows.
//!
//! The formulas are scikit-learn's: `StandardScaler`, `MinMaxScaler` and `RobustScaler` (`sklearn/preprocessing/_data.py`). A column that is
//! constant has a scale of 1, by the same bounds as there.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use polars::prelude::{DataType as Pl, Expr};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::engine::bridge::{column, number};
use crate::error::{Mistake, Result};
use crate::stages::step::{Fit, FitKey, FitKind, Fits, Moments, Scope, Step};
use crate::stages::{Stage, StageContext, kit};

/// The reference page.
pub const PAGE: &str = "\
Puts numeric columns on a common scale. The result is `float64` under the column's own name.

| kind | value | learned |
|---|---|---|
| `standard` | (x − mean) / standard deviation | mean, variance (divided by n) |
| `minmax` | low + (x − min) · (high − low) / (max − min) | min, max |
| `robust` | (x − median) / (75 % quantile − 25 % quantile) | three quantiles |
| `log1p` | ln(1 + x); NaN below −1 | nothing |

Results agree with scikit-learn's scalers. Nulls stay null, NaN stays NaN, and neither is learned from. A constant column is only moved, not
stretched. Rows outside the training split may leave the range of `minmax`: nothing is cut off.

Use it below a `split`, so that test rows do not leak into what is learned, and below `clean`, so that outliers do not either.

```yaml
stages:
  - split: { by: hash, key: tailnum, into: { train: 0.8, test: 0.2 } }
  - normalize: { standard: [dep_delay], minmax: [distance], robust: [arr_delay], log1p: [air_time] }
```
";

/// Puts numeric columns on a common scale.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Normalize {
    /// Columns to move to mean 0 and stretch to standard deviation 1.
    #[serde(default)]
    pub standard: Vec<String>,
    /// Columns to stretch to a range, 0 to 1 unless another is given.
    #[serde(default)]
    pub minmax: MinMax,
    /// Columns to move to median 0 and stretch to an interquartile range of 1: outliers count little.
    #[serde(default)]
    pub robust: Vec<String>,
    /// Columns of which ln(1 + x) is taken: for counts and other numbers from 0 with a long tail.
    #[serde(default)]
    pub log1p: Vec<String>,
    /// The rows to learn from; `train` where a `split` stands above.
    #[serde(default)]
    pub fit_on: Option<Scope>,
}

/// Columns to stretch to a range.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a list of columns, or `columns` with a `range` of two numbers")]
pub enum MinMax {
    /// To 0 … 1.
    Columns(Vec<String>),
    /// To another range.
    Ranged(Ranged),
}

/// Columns to stretch to a given range.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ranged {
    /// The columns.
    pub columns: Vec<String>,
    /// The values that the smallest and the largest value become.
    #[serde(default = "unit")]
    pub range: [f64; 2],
}

impl Default for MinMax {
    fn default() -> Self {
        MinMax::Columns(Vec::new())
    }
}

fn unit() -> [f64; 2] {
    [0.0, 1.0]
}

/// How a column is scaled.
#[derive(Debug, Clone, Copy)]
enum Scaling {
    Standard,
    MinMax([f64; 2]),
    Robust,
    Log1p,
}

/// A column to scale, and the fit it needs.
#[derive(Debug, Clone)]
struct Scaled {
    name: String,
    scaling: Scaling,
    fit: FitKey,
}

impl Stage for Normalize {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let scaled = self.scaled(cx, &mut mistakes);
        if scaled.is_empty() && mistakes.is_empty() {
            return Err(kit::idle("name columns under `standard`, `minmax`, `robust` or `log1p`"));
        }
        let learns = scaled.iter().any(|s| s.kind().is_some());
        let on = if learns {
            cx.fit_scope(self.fit_on).unwrap_or_else(|m| {
                mistakes.push(m);
                Scope::All
            })
        } else {
            Scope::All
        };
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let fits = scaled.iter().filter_map(|s| Some(Step::Fit(Fit { key: s.fit.clone(), column: s.name.clone(), kind: s.kind()?, on })));
        let mut steps: Vec<Step> = fits.collect();
        let needs = scaled.iter().filter(|s| s.kind().is_some()).map(|s| s.fit.clone()).collect();
        let columns: Vec<_> = scaled.iter().map(|s| (s.name.clone(), DataType::Float64)).collect();
        steps.push(kit::replace(cx.schema, &columns, needs, move |fits| scaled.iter().map(|s| s.expr(fits)).collect()));
        Ok(steps)
    }
}

impl Normalize {
    fn scaled(&self, cx: &StageContext<'_>, mistakes: &mut Vec<Mistake>) -> Vec<Scaled> {
        let (minmax, range, minmax_at) = match &self.minmax {
            MinMax::Columns(columns) => (columns, unit(), "/minmax"),
            MinMax::Ranged(ranged) => (&ranged.columns, ranged.range, "/minmax/columns"),
        };
        if !(range[0] < range[1] && range[0].is_finite() && range[1].is_finite()) {
            mistakes.push(Mistake::new("/minmax/range", "the range must go from a smaller to a larger number").help("for example [-1, 1]"));
        }
        let lists = [
            (&self.standard, "/standard", Scaling::Standard),
            (minmax, minmax_at, Scaling::MinMax(range)),
            (&self.robust, "/robust", Scaling::Robust),
            (&self.log1p, "/log1p", Scaling::Log1p),
        ];
        let mut seen = BTreeSet::new();
        let mut scaled = Vec::new();
        for (names, at, scaling) in lists {
            for (name, _) in kit::each(names, at, &mut seen, mistakes, |at, name| kit::numeric(cx, at, name)) {
                let what = if matches!(scaling, Scaling::Robust) { "quantiles" } else { "moments" };
                scaled.push(Scaled { fit: format!("{}/{what}({name})", cx.label), name, scaling });
            }
        }
        scaled
    }
}

impl Scaled {
    fn kind(&self) -> Option<FitKind> {
        match self.scaling {
            Scaling::Standard | Scaling::MinMax(_) => Some(FitKind::Moments),
            Scaling::Robust => Some(FitKind::Quantiles(vec![0.25, 0.5, 0.75])),
            Scaling::Log1p => None,
        }
    }

    fn expr(&self, fits: &Fits) -> Result<Expr> {
        let x = column(&self.name).cast(Pl::Float64);
        Ok(match self.scaling {
            Scaling::Standard => {
                let m = kit::moments(fits, &self.fit)?;
                (x - number(m.mean)) / number(deviation(&m))
            }
            Scaling::MinMax([low, high]) => {
                let m = kit::moments(fits, &self.fit)?;
                let (min, span) = if m.count == 0 { (0.0, 1.0) } else { (m.min, not_zero(m.max - m.min)) };
                // scikit-learn computes x · scale + (low − min · scale), which loses digits where |min| is much larger than the span.
                (x - number(min)) * number((high - low) / span) + number(low)
            }
            Scaling::Robust => {
                let [q1, median, q3] = kit::quantiles(fits, &self.fit)?.unwrap_or([-0.5, 0.0, 0.5]);
                (x - number(median)) / number(not_zero(q3 - q1))
            }
            Scaling::Log1p => x.log1p(),
        })
    }
}

/// The standard deviation to divide by; 1 where the column is constant up to rounding (`_is_constant_feature` in scikit-learn).
fn deviation(m: &Moments) -> f64 {
    let n = m.count as f64;
    let rounding = n * f64::EPSILON * m.variance + (n * m.mean * f64::EPSILON).powi(2);
    if m.variance <= rounding { 1.0 } else { m.variance.sqrt() }
}

/// A span to divide by; 1 where it is zero up to rounding (`_handle_zeros_in_scale` in scikit-learn).
fn not_zero(span: f64) -> f64 {
    if span < 10.0 * f64::EPSILON { 1.0 } else { span }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::column_testing::{batch, lower_below, mistakes, run, run_with, stage};
    use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
    use arrow::datatypes::{Float64Type, Schema};
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn results_are_those_of_scikit_learn() {
        for case in crate::stages::golden::cases("scalers") {
            let rows = batch(vec![("x", case.floats("input"))]);
            // scikit-learn's own rounding, see `Scaled::expr`.
            let blurred = if case.name() == "huge_offset" { 1e-6 } else { 1e-9 };
            for (options, expected, tolerance) in [
                (json!({ "standard": ["x"] }), "standard", 1e-9),
                (json!({ "minmax": ["x"] }), "minmax_exact", 1e-12),
                (json!({ "minmax": ["x"] }), "minmax", blurred),
                (json!({ "minmax": { "columns": ["x"], "range": [-1, 1] } }), "minmax_symmetric", blurred),
                (json!({ "robust": ["x"] }), "robust", 1e-9),
                (json!({ "log1p": ["x"] }), "log1p", 1e-12),
            ] {
                let out = run_with(&stage::<Normalize>(options), &rows, &|fit, _| case.learned(&fit.kind)).unwrap();
                case.assert_close(out.batch.column(0), expected, tolerance);
            }
        }
    }

    #[test]
    fn integers_become_floats_and_order_is_kept() {
        let rows = batch(vec![
            ("a", Arc::new(StringArray::from(vec!["x", "y", "z"]))),
            ("n", Arc::new(Int64Array::from(vec![Some(0), None, Some(10)]))),
            ("b", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ]);
        let out = run(&stage::<Normalize>(json!({ "minmax": { "columns": ["n"], "range": [10, 20] } })), &rows).unwrap().batch;
        assert_eq!(out.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["a", "n", "b"]);
        let made: ArrayRef = Arc::new(Float64Array::from(vec![Some(10.0), None, Some(20.0)]));
        assert_eq!(out.column(1), &made);
    }

    #[test]
    fn nothing_learned_leaves_what_is_there() {
        let nothing: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(f64::NAN)]));
        let columns = ["s", "m", "r"].map(|n| (n, nothing.clone()));
        let out =
            run(&stage::<Normalize>(json!({ "standard": ["s"], "minmax": ["m"], "robust": ["r"] })), &batch(columns.to_vec())).unwrap();
        for made in out.batch.columns() {
            let made = made.as_primitive::<Float64Type>();
            assert!(made.is_null(0) && made.value(1).is_nan());
        }
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let schema = Arc::new(Schema::new(vec![
            arrow::datatypes::Field::new("distance", DataType::Int64, true),
            arrow::datatypes::Field::new("carrier", DataType::Utf8View, true),
        ]));
        let said = mistakes(
            &stage::<Normalize>(
                json!({ "standard": ["distnace", "distance"], "robust": ["carrier"], "minmax": { "columns": ["distance"], "range": [1, 1] } }),
            ),
            &schema,
        );
        assert_eq!(said.len(), 4, "{said:?}");
        assert!(said[0].starts_with("/minmax/range"), "{said:?}");
        assert!(said[1].starts_with("/standard/0: no column `distnace`") && said[1].ends_with("did you mean `distance`?"), "{said:?}");
        assert!(said[2].starts_with("/minmax/columns/0: `distance` is named twice"), "{said:?}");
        assert!(said[3].starts_with("/robust/0: column `carrier`"), "{said:?}");
        assert!(mistakes(&stage::<Normalize>(json!({})), &schema)[0].contains("nothing to do"));
        let leaking = lower_below(&stage::<Normalize>(json!({ "standard": ["distance"] })), &schema, None).unwrap_err();
        assert!(leaking[0].message.contains("no `split`"), "{leaking:?}");
        assert!(lower_below(&stage::<Normalize>(json!({ "log1p": ["distance"] })), &schema, None).is_ok());
        assert!(lower_below(&stage::<Normalize>(json!({ "standard": ["distance"], "fit_on": "all" })), &schema, None).is_ok());
    }
}
