//! `clean`: tidy text, outliers, missing values; always in the order text, outliers, fill, drop.
//!
//! ```text
//!  text ─▶ fits of outliers ─▶ outliers ─▶ fits of fills ─▶ fill_null ─▶ drop_nulls
//! ```

mod fill;
mod outliers;
mod text;

use arrow::datatypes::{DataType, Field, SchemaRef};
use indexmap::IndexMap;
use polars::prelude::Expr;
use schemars::JsonSchema;
use serde::Deserialize;

pub use fill::Fill;
pub use outliers::{Action, Method, Outlier};
pub use text::{TextOptions, Unicode, Whitespace};

use crate::engine::bridge::column;
use crate::error::{Mistake, Result};
use crate::stages::step::{Fit, FitKey, FitKind, Scope, Step};
use crate::stages::{Stage, StageContext, kit};

/// The reference page.
pub const PAGE: &str = "\
Tidies text, treats outliers, fills missing values and drops rows that still miss some. Whatever the order in the spec, it happens in this
order:

1. `text`: control characters go (but line feeds and tabs), Unicode is normalized, whitespace trimmed or collapsed, empty text becomes null;
2. `outliers`: values too far out are clipped, set to null, or their rows rejected (`arr_delay: outlier (zscore > 4)`);
3. `fill_null`: missing values are replaced by a constant, or by the mean, median or mode of what step 2 left;
4. `drop_nulls`: rows that still miss a value are rejected (`null in tailnum`).

Missing is null and, in a column of floats, NaN. All statistics are learned from the training rows and applied to all rows. A column without
any value to learn from stays as it is. Integers and decimals filled with a mean or a median become `float64`, as either may have a fraction.

| method | outliers are |
|---|---|
| `zscore` | further from the mean than `threshold` (4) standard deviations (divided by n) |
| `iqr` | further than `threshold` (1.5) interquartile ranges below the first or above the third quartile |
| `bounds` | below `lower` or above `upper` |

```yaml
stages:
  - split: { by: hash, key: tailnum, into: { train: 0.8, test: 0.2 } }
  - clean:
      text: { columns: [tailnum], empty_to_null: true }
      outliers: { arr_delay: { method: zscore, threshold: 4, action: drop }, air_time: { method: bounds, lower: 1, action: null } }
      fill_null: { air_time: median, dep_delay: 0, tailnum: unknown }
      drop_nulls: [arr_delay]
```
";

/// Tidies text, treats outliers, fills missing values, drops rows that still miss some: always in this order.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clean {
    /// First: how text is tidied.
    #[serde(default)]
    pub text: Option<TextOptions>,
    /// Second: what happens to values that are too far out, by numeric column.
    #[serde(default)]
    pub outliers: IndexMap<String, Outlier>,
    /// Third: what missing values become, by column: `mean`, `median`, `mode`, or a constant of the column's type.
    #[serde(default)]
    pub fill_null: IndexMap<String, Fill>,
    /// Last: the columns in which no value may be missing; `true` for all.
    #[serde(default)]
    pub drop_nulls: Option<DropNulls>,
    /// The rows to learn from; `train` where a `split` stands above.
    #[serde(default)]
    pub fit_on: Option<Scope>,
}

/// The columns in which no value may be missing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a list of columns, or true for all columns")]
pub enum DropNulls {
    /// All, or none.
    All(bool),
    /// These.
    Columns(Vec<String>),
}

/// A fit that a part of the stage needs.
struct Need {
    key: FitKey,
    column: String,
    kind: FitKind,
}

/// Collects a stage's steps and mistakes while the schema changes.
struct Lowering<'a> {
    cx: &'a StageContext<'a>,
    schema: SchemaRef,
    steps: Vec<Step>,
    mistakes: Vec<Mistake>,
    asked: Option<Scope>,
}

impl Stage for Clean {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        let mut lowering = Lowering { cx, schema: cx.schema.clone(), steps: Vec::new(), mistakes: Vec::new(), asked: self.fit_on };
        if let Some(options) = &self.text {
            text::lower(options, &mut lowering);
        }
        outliers::lower(&self.outliers, &mut lowering);
        fill::lower(&self.fill_null, &mut lowering);
        self.drop_nulls(&mut lowering);
        if !lowering.mistakes.is_empty() {
            return Err(lowering.mistakes);
        }
        if lowering.steps.is_empty() {
            return Err(kit::idle("say `text`, `outliers`, `fill_null` or `drop_nulls`"));
        }
        Ok(lowering.steps)
    }
}

impl Clean {
    fn drop_nulls(&self, lowering: &mut Lowering<'_>) {
        let fields: Vec<Field> = match &self.drop_nulls {
            None | Some(DropNulls::All(false)) => return,
            Some(DropNulls::All(true)) => lowering.schema.fields().iter().map(|f| f.as_ref().clone()).collect(),
            Some(DropNulls::Columns(names)) => {
                let schema = lowering.schema.clone();
                kit::each(names, "/drop_nulls", &mut Default::default(), &mut lowering.mistakes, |at, name| {
                    lowering.cx.column(at, name)?;
                    schema.field_with_name(name).cloned().map_err(|e| Mistake::new(at, e.to_string()))
                })
            }
        };
        if fields.is_empty() {
            return;
        }
        let names: Vec<String> = fields.iter().map(|f| f.name().clone()).collect();
        let reasons = names.iter().map(|n| format!("null in {n}")).collect();
        lowering.steps.push(missing::reject(names, reasons));
    }
}

impl Lowering<'_> {
    /// The steps that learn what a part needs, and the keys.
    fn learn(&mut self, needs: Vec<Need>) -> Vec<FitKey> {
        if needs.is_empty() {
            return Vec::new();
        }
        let on = match self.cx.fit_scope(self.asked) {
            Ok(on) => on,
            Err(mistake) => {
                // Once is enough, however many parts learn.
                if !self.mistakes.contains(&mistake) {
                    self.mistakes.push(mistake);
                }
                return Vec::new();
            }
        };
        let keys = needs.iter().map(|n| n.key.clone()).collect();
        self.steps.extend(needs.into_iter().map(|n| Step::Fit(Fit { key: n.key, column: n.column, kind: n.kind, on })));
        keys
    }

    /// A step that replaces columns, each made from itself.
    fn replace(
        &mut self,
        columns: &[(String, DataType)],
        fits: Vec<FitKey>,
        bind: impl Fn(&crate::stages::step::Fits) -> Result<Vec<Expr>> + Send + Sync + 'static,
    ) {
        let step = kit::replace(&self.schema, columns, fits, bind);
        if let Step::Columns(columns) = &step {
            self.schema = columns.output.clone();
        }
        self.steps.push(step);
    }
}

/// True where a value is missing: null or, in floats, NaN.
fn is_missing(name: &str, t: &DataType) -> Expr {
    let null = column(name).is_null();
    if t.is_floating() { null.or(column(name).is_nan().fill_null(polars::prelude::lit(true))) } else { null }
}

/// Rows that miss a value, by Arrow's null masks: any type will do, and nothing crosses to Polars.
mod missing {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
    use arrow::compute::{is_null, kernels::boolean::or};
    use arrow::datatypes::{DataType, Float64Type, SchemaRef};

    use crate::error::{Error, Result};
    use crate::stages::kit;
    use crate::stages::step::{Decide, Fits, Gives, How, RowDecision, RowTest, Scope, Step};

    pub fn reject(names: Vec<String>, reasons: Vec<String>) -> Step {
        let how = How::Rows(Arc::new(Missing(names.clone())));
        Step::Decide(Decide { reads: names, fits: Vec::new(), gives: Gives::Rejects(reasons), on: Scope::All, how })
    }

    struct Missing(Vec<String>);

    impl RowDecision for Missing {
        fn bind(&self, _: &SchemaRef, _: &Fits) -> Result<Box<dyn RowTest>> {
            Ok(Box::new(Missing(self.0.clone())))
        }
    }

    impl RowTest for Missing {
        fn codes(&self, batch: &RecordBatch) -> Result<UInt32Array> {
            let masks = self.0.iter().map(|name| {
                let column = batch.column_by_name(name).ok_or_else(|| Error::internal(format!("a batch lacks `{name}`")))?;
                Ok(Arc::new(mask(column)?) as ArrayRef)
            });
            kit::first_true(&masks.collect::<Result<Vec<_>>>()?, batch.num_rows())
        }
    }

    fn mask(column: &ArrayRef) -> Result<BooleanArray> {
        let null = match column.logical_nulls() {
            Some(nulls) => BooleanArray::new(!nulls.inner(), None),
            None => is_null(column)?,
        };
        if !column.data_type().is_floating() {
            return Ok(null);
        }
        let floats = arrow::compute::cast(column, &DataType::Float64)?;
        let nan: BooleanArray = floats.as_primitive::<Float64Type>().values().iter().map(|v| Some(v.is_nan())).collect();
        Ok(or(&null, &nan)?)
    }
}

#[cfg(test)]
mod tests;
