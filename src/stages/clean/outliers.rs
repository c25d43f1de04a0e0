//! The second part of `clean`: values that are too far out.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use indexmap::IndexMap;
use polars::prelude::{DataType as Pl, Expr, lit, when};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::{Lowering, Need};
use crate::engine::bridge::{column, literal, number};
use crate::error::{Mistake, Result};
use crate::stages::kit;
use crate::stages::step::{FitKey, FitKind, Fits};

/// What is an outlier of a column, and what happens to it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outlier {
    /// What an outlier is.
    pub method: Method,
    /// `zscore`: how many standard deviations from the mean (4 unless given). `iqr`: how many interquartile ranges beyond the quartiles (1.5).
    #[serde(default)]
    pub threshold: Option<f64>,
    /// `bounds`: the smallest value that is none.
    #[serde(default)]
    pub lower: Option<f64>,
    /// `bounds`: the largest value that is none.
    #[serde(default)]
    pub upper: Option<f64>,
    /// What happens to an outlier.
    #[serde(deserialize_with = "null_is_a_choice")]
    #[schemars(with = "Option<Action>")]
    pub action: Action,
}

/// What an outlier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Too many standard deviations from the mean.
    Zscore,
    /// Too far beyond the quartiles, in interquartile ranges.
    Iqr,
    /// Outside of fixed bounds.
    Bounds,
}

/// What happens to an outlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Its row is rejected.
    Drop,
    /// It becomes the nearest value that is none.
    Clip,
    /// It becomes null.
    Null,
}

/// In YAML, `action: null` says nothing rather than the word.
fn null_is_a_choice<'de, D: Deserializer<'de>>(from: D) -> Result<Action, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(Action::Null))
}

/// A column with its limits, before they are known.
#[derive(Debug, Clone)]
struct Test {
    name: String,
    t: DataType,
    limits: Limits,
    reason: String,
}

/// Where the limits come from.
#[derive(Debug, Clone)]
enum Limits {
    Zscore(FitKey, f64),
    Iqr(FitKey, f64),
    Fixed(Option<f64>, Option<f64>),
}

/// Adds the steps that learn limits and apply them. All limits are learned before any is applied.
pub fn lower(outliers: &IndexMap<String, Outlier>, lowering: &mut Lowering<'_>) {
    let (mut drops, mut changes) = (Vec::new(), Vec::new());
    for (name, outlier) in outliers {
        match Test::plan(lowering, name, outlier) {
            Ok(test) if outlier.action == Action::Drop => drops.push(test),
            Ok(test) => changes.push((test, outlier.action)),
            Err(mistakes) => lowering.mistakes.extend(mistakes),
        }
    }
    let needs = drops.iter().chain(changes.iter().map(|(t, _)| t)).filter_map(Test::need).collect();
    lowering.learn(needs);
    if !drops.is_empty() {
        let fits = drops.iter().filter_map(|t| t.need().map(|n| n.key)).collect();
        let names = drops.iter().map(|t| t.name.clone()).collect();
        let reasons = drops.iter().map(|t| t.reason.clone()).collect();
        lowering.steps.push(kit::reject(names, reasons, fits, move |fits| drops.iter().map(|t| Ok(t.found(fits)?.any())).collect()));
    }
    if !changes.is_empty() {
        let fits = changes.iter().filter_map(|(t, _)| t.need().map(|n| n.key)).collect();
        let columns: Vec<_> = changes.iter().map(|(t, _)| (t.name.clone(), t.t.clone())).collect();
        lowering.replace(&columns, fits, move |fits| changes.iter().map(|(t, action)| t.changed(fits, *action)).collect());
    }
}

/// Conditions under which a value is too small or too large, with the limit.
struct Found {
    low: Option<(Expr, f64)>,
    high: Option<(Expr, f64)>,
}

impl Found {
    fn any(self) -> Expr {
        [self.low, self.high].into_iter().flatten().map(|(found, _)| found).reduce(Expr::or).unwrap_or_else(|| lit(false))
    }
}

impl Test {
    fn plan(lowering: &Lowering<'_>, name: &str, outlier: &Outlier) -> Result<Self, Vec<Mistake>> {
        let at = kit::below("/outliers", name);
        let (name, t) = kit::numeric(lowering.cx, &at, name).map_err(|m| vec![m])?;
        let mistakes = outlier.mistakes(&at);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let key = |what: &str| format!("{}/outliers/{what}({name})", lowering.cx.label);
        let (limits, why) = match outlier.method {
            Method::Zscore => {
                let threshold = outlier.threshold.unwrap_or(4.0);
                (Limits::Zscore(key("moments"), threshold), format!("zscore > {threshold}"))
            }
            Method::Iqr => {
                let threshold = outlier.threshold.unwrap_or(1.5);
                (Limits::Iqr(key("quantiles"), threshold), format!("iqr > {threshold}"))
            }
            Method::Bounds => {
                let why = match (outlier.lower, outlier.upper) {
                    (Some(low), Some(high)) => format!("outside {low} to {high}"),
                    (Some(low), None) => format!("below {low}"),
                    (_, high) => format!("above {}", high.unwrap_or(f64::INFINITY)),
                };
                (Limits::Fixed(outlier.lower, outlier.upper), why)
            }
        };
        let reason = format!("{name}: outlier ({why})");
        Ok(Self { name, t, limits, reason })
    }

    fn need(&self) -> Option<Need> {
        let (key, kind) = match &self.limits {
            Limits::Zscore(key, _) => (key, FitKind::Moments),
            Limits::Iqr(key, _) => (key, FitKind::Quantiles(vec![0.25, 0.75])),
            Limits::Fixed(..) => return None,
        };
        Some(Need { key: key.clone(), column: self.name.clone(), kind })
    }

    /// The limits, where there are any: a constant column has none for `zscore`, nor has one without values.
    fn limits(&self, fits: &Fits) -> Result<(Option<f64>, Option<f64>)> {
        let (low, high) = match &self.limits {
            Limits::Zscore(key, threshold) => {
                let m = kit::moments(fits, key)?;
                let reach = threshold * m.variance.sqrt();
                if m.count == 0 || m.variance == 0.0 { (f64::NAN, f64::NAN) } else { (m.mean - reach, m.mean + reach) }
            }
            Limits::Iqr(key, threshold) => match kit::quantiles(fits, key)? {
                Some([q1, q3]) => (q1 - threshold * (q3 - q1), q3 + threshold * (q3 - q1)),
                None => (f64::NAN, f64::NAN),
            },
            Limits::Fixed(low, high) => return Ok((*low, *high)),
        };
        // Limits that are beyond all numbers limit nothing.
        Ok((Some(low).filter(|l| l.is_finite()), Some(high).filter(|h| h.is_finite())))
    }

    fn found(&self, fits: &Fits) -> Result<Found> {
        let (low, high) = self.limits(fits)?;
        let x = || column(&self.name).cast(Pl::Float64);
        // Polars sorts NaN above every number; here it is a missing value, not an outlier.
        let is = |found: Expr| if self.t.is_floating() { found.and(x().is_not_nan()) } else { found };
        Ok(Found { low: low.map(|l| (is(x().lt(number(l))), l)), high: high.map(|h| (is(x().gt(number(h))), h)) })
    }

    fn changed(&self, fits: &Fits, action: Action) -> Result<Expr> {
        let found = self.found(fits)?;
        if action == Action::Null {
            return Ok(when(found.any()).then(lit(polars::prelude::NULL)).otherwise(column(&self.name)));
        }
        let (low, high) = (found.low.as_ref().map(|f| f.1), found.high.as_ref().map(|f| f.1));
        let mut changed = column(&self.name);
        for (side, limit) in [(found.low, nearest_value(low, high, false)), (found.high, nearest_value(high, low, true))] {
            if let Some((found, _)) = side {
                changed = when(found).then(literal(&typed(limit, &self.t)?)?).otherwise(changed);
            }
        }
        Ok(changed)
    }
}

/// A limit, for whole numbers the nearest one inside; where none lies inside, the nearest one.
fn nearest_value(limit: Option<f64>, other: Option<f64>, is_upper: bool) -> (f64, f64) {
    let limit = limit.unwrap_or_default();
    let inside = if is_upper { limit.floor() } else { limit.ceil() };
    let fits = other.is_none_or(|o| if is_upper { inside >= o } else { inside <= o });
    (limit, if fits { inside } else { limit.round_ties_even() })
}

/// A limit as a value of the column's type: as it is for floats and decimals, whole for integers, at the type's own end if it lies beyond.
fn typed((limit, whole): (f64, f64), t: &DataType) -> Result<ArrayRef> {
    let value = if t.is_integer() { whole } else { limit };
    kit::saturated(value, t)
}

impl Outlier {
    fn mistakes(&self, at: &str) -> Vec<Mistake> {
        let wrong = |key: &str, message: &str, help: &str| Mistake::new(kit::below(at, key), message).help(help);
        let mut mistakes = Vec::new();
        if self.method == Method::Bounds {
            if self.threshold.is_some() {
                mistakes.push(wrong("threshold", "`bounds` has no threshold", "say `lower` or `upper`"));
            }
            if self.lower.is_none() && self.upper.is_none() {
                mistakes.push(Mistake::new(at, "`bounds` needs `lower` or `upper`").help("for example `lower: 0`"));
            }
            if self.lower.zip(self.upper).is_some_and(|(l, u)| l > u) {
                mistakes.push(wrong("lower", "`lower` is above `upper`", "swap them"));
            }
            return mistakes;
        }
        for (key, bound) in [("lower", self.lower), ("upper", self.upper)] {
            if bound.is_some() {
                mistakes.push(wrong(key, "only `bounds` has bounds", "say `method: bounds`, or give a `threshold`"));
            }
        }
        if self.threshold.is_some_and(|t| !(t > 0.0 && t.is_finite())) {
            mistakes.push(wrong("threshold", "the threshold must be a number above 0", "4 is usual for `zscore`, 1.5 for `iqr`"));
        }
        mistakes
    }
}
