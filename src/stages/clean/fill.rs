//! The third part of `clean`: what missing values become.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use indexmap::IndexMap;
use polars::prelude::{Expr, when};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Lowering, Need, is_missing};
use crate::engine::bridge::{column, literal, polars_type};
use crate::error::{Mistake, Result, nearest};
use crate::stages::kit;
use crate::stages::step::{FitKey, FitKind, Fits};

/// More distinct values than this, and a column has no mode worth the name.
const MODE_AT_MOST: usize = 1_000_000;

/// What a missing value becomes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Fill(#[schemars(with = "Shape")] Value);

/// What a fill looks like: only for the JSON Schema, as mistakes are told better by hand.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)]
enum Shape {
    /// Learned from the column.
    Learned(Statistic),
    /// A constant of the column's type.
    Number(f64),
    /// A constant of the column's type.
    Bool(bool),
    /// A constant of the column's type.
    Text(String),
    /// A constant that looks like a statistic: `{ value: mean }`.
    Constant {
        /// The constant.
        value: Value,
    },
}

/// A statistic of the values that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Statistic {
    /// The arithmetic mean; numeric columns.
    Mean,
    /// The median; numeric columns.
    Median,
    /// The most frequent value; of equally frequent ones the smallest.
    Mode,
}

/// A column with its fill.
#[derive(Debug, Clone)]
struct Filled {
    name: String,
    from: DataType,
    to: DataType,
    with: With,
}

#[derive(Debug, Clone)]
enum With {
    Constant(ArrayRef),
    Learned(Statistic, FitKey),
}

/// Adds the steps that learn what to fill with and fill it in.
pub fn lower(fills: &IndexMap<String, Fill>, lowering: &mut Lowering<'_>) {
    let mut filled = Vec::new();
    for (name, fill) in fills {
        match Filled::plan(lowering, name, &fill.0) {
            Ok(found) => filled.push(found),
            Err(mistake) => lowering.mistakes.push(mistake),
        }
    }
    if filled.is_empty() {
        return;
    }
    let needs = filled.iter().filter_map(Filled::need).collect();
    let fits = lowering.learn(needs);
    let columns: Vec<_> = filled.iter().map(|f| (f.name.clone(), f.to.clone())).collect();
    lowering.replace(&columns, fits, move |fits| filled.iter().map(|f| f.expr(fits)).collect());
}

impl Filled {
    fn plan(lowering: &Lowering<'_>, name: &str, fill: &Value) -> Result<Self, Mistake> {
        let at = kit::below("/fill_null", name);
        let field = lowering.cx.column(&at, name)?;
        let from = kit::carried(&at, field)?;
        let statistic = match fill.as_str() {
            Some("mean") => Some(Statistic::Mean),
            Some("median") => Some(Statistic::Median),
            Some("mode") => Some(Statistic::Mode),
            _ => None,
        };
        let name = name.to_owned();
        let Some(statistic) = statistic else {
            let constant = fill.as_object().filter(|o| o.len() == 1).and_then(|o| o.get("value")).unwrap_or(fill);
            let with = With::Constant(kit::constant(constant, &from).map_err(|why| no_constant(&at, why, fill, &from))?);
            return Ok(Self { name, to: from.clone(), from, with });
        };
        if statistic == Statistic::Mode {
            if from.is_nested() || from.is_null() || matches!(from, DataType::BinaryView | DataType::Duration(_)) {
                return Err(
                    Mistake::new(at, format!("column `{name}` is {from}, which has no mode")).help("give a constant, or leave it out")
                );
            }
            let key = format!("{}/fill_null/frequencies({name})", lowering.cx.label);
            return Ok(Self { name, to: from.clone(), from, with: With::Learned(statistic, key) });
        }
        if !from.is_numeric() {
            let text = fill.as_str().unwrap_or_default();
            return Err(Mistake::new(at, format!("column `{name}` is {from}, which has no {text}"))
                .help(format!("use `mode`, or a constant; the text itself is `{{ value: {text} }}`")));
        }
        // A mean or a median may have a fraction.
        let to = if from.is_floating() { from.clone() } else { DataType::Float64 };
        let what = if statistic == Statistic::Mean { "moments" } else { "quantiles" };
        let key = format!("{}/fill_null/{what}({name})", lowering.cx.label);
        Ok(Self { name, from, to, with: With::Learned(statistic, key) })
    }

    fn need(&self) -> Option<Need> {
        let With::Learned(statistic, key) = &self.with else { return None };
        let kind = match statistic {
            Statistic::Mean => FitKind::Moments,
            Statistic::Median => FitKind::Quantiles(vec![0.5]),
            Statistic::Mode => FitKind::Frequencies { at_most: MODE_AT_MOST },
        };
        Some(Need { key: key.clone(), column: self.name.clone(), kind })
    }

    fn expr(&self, fits: &Fits) -> Result<Expr> {
        let x = if self.from == self.to { column(&self.name) } else { column(&self.name).cast(polars_type(&self.to)?) };
        let value = match &self.with {
            With::Constant(value) => Some(value.clone()),
            With::Learned(statistic, key) => self.learned(*statistic, key, fits)?,
        };
        // Without a value to learn from, what is missing stays missing.
        let Some(value) = value else { return Ok(x) };
        Ok(when(is_missing(&self.name, &self.from)).then(literal(&value)?).otherwise(x))
    }

    fn learned(&self, statistic: Statistic, key: &str, fits: &Fits) -> Result<Option<ArrayRef>> {
        let number = match statistic {
            Statistic::Mean => Some(kit::moments(fits, key)?).filter(|m| m.count > 0).map(|m| m.mean),
            Statistic::Median => kit::quantiles(fits, key)?.map(|[median]| median),
            Statistic::Mode => return mode(kit::frequencies(fits, key)?, &self.from),
        };
        number.map(|n| kit::saturated(n, &self.to)).transpose()
    }
}

/// The most frequent value; of equally frequent ones the smallest, compared in the column's own type (9 before 10).
fn mode(counts: &[(String, u64)], t: &DataType) -> Result<Option<ArrayRef>> {
    let values = counts.iter().filter(|(text, _)| !(t.is_floating() && text == "NaN"));
    let most = values.clone().map(|(_, n)| *n).max();
    let tied = values.filter(|(_, n)| Some(*n) == most).map(|(text, _)| text.as_str());
    let tied = kit::parse(tied, t)?;
    if tied.is_empty() {
        return Ok(None);
    }
    let order = arrow::compute::sort_to_indices(&tied, None, Some(1))?;
    Ok(Some(arrow::compute::take(&tied, &order, None)?))
}

fn no_constant(at: &str, why: String, fill: &Value, t: &DataType) -> Mistake {
    let help = match fill.as_str() {
        Some(text) => nearest(text, ["mean", "median", "mode"]),
        None if *t == DataType::Utf8View => "put text in quotes".to_owned(),
        None => "give a constant of the column's type, or `mean`, `median` or `mode`".to_owned(),
    };
    Mistake::new(at, why).help(help)
}
