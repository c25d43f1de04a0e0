//! What row stages share: key columns in options, and how values of a column become keys.

use arrow::datatypes::DataType;
use datafusion::prelude::{Expr, ident};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::functions;
use super::{Side, StageContext};
use crate::error::{Mistake, nearest};

/// One column's name, or a list of names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a column's name or a list of names")]
pub enum OneOrMany {
    /// `tailnum`
    One(String),
    /// `[carrier, flight]`
    Many(Vec<String>),
}

impl OneOrMany {
    /// The names, in order.
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }

    /// Every mistake in the names: unknown ones, doubled ones, none at all.
    pub fn check(&self, cx: &StageContext<'_>, at: &str) -> Vec<Mistake> {
        match self {
            Self::One(name) => cx.column(at, name).err().into_iter().collect(),
            Self::Many(names) => check_names(cx, at, names),
        }
    }
}

/// Every mistake in a list of columns' names.
pub fn check_names(cx: &StageContext<'_>, at: &str, names: &[String]) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    if names.is_empty() {
        mistakes.push(Mistake::new(at, "no column is named").help("name at least one"));
    }
    for (i, name) in names.iter().enumerate() {
        let at = format!("{at}/{i}");
        if names[..i].contains(name) {
            mistakes.push(Mistake::new(&at, format!("column `{name}` is named twice")).help("name it once"));
        }
        mistakes.extend(cx.column(&at, name).err());
    }
    mistakes
}

/// Ok where there are no mistakes.
pub fn none_of(mistakes: Vec<Mistake>) -> Result<(), Vec<Mistake>> {
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

/// The mistake that a stage which brings new rows stands below a `split`, where they would belong to no part.
pub fn no_split_above(cx: &StageContext<'_>) -> Result<(), Mistake> {
    if cx.splits.is_none() {
        return Ok(());
    }
    Err(Mistake::new("", "this stage brings new rows, which would belong to no split").help("put it above the `split`"))
}

/// A side input, or the mistake that no source has this name.
pub fn side<'a>(cx: &'a StageContext<'_>, at: &str, name: &str) -> Result<&'a Side, Mistake> {
    cx.sides.get(name).ok_or_else(|| {
        let mistake = Mistake::new(at, format!("there is no side input `{name}`"));
        if cx.sides.is_empty() {
            return mistake.help(format!("add it under `sources`, after the first: `{name}: {{ uri: … }}`"));
        }
        mistake.help(nearest(name, cx.sides.keys().map(String::as_str)))
    })
}

/// A column as something DataFusion groups exactly and fast: floats with −0.0 as 0.0 and one NaN, nested values by their 128-bit hash,
/// everything else as it is.
pub fn group_key(name: &str, kind: &DataType) -> Expr {
    match kind {
        DataType::Dictionary(_, values) if !values.is_floating() => datafusion::logical_expr::cast(ident(name), values.as_ref().clone()),
        t if is_float(t) => functions::float_key(ident(name)),
        t if t.is_nested() => functions::hash(0, vec![ident(name)]),
        _ => ident(name),
    }
}

/// Whether values are floats, also in a dictionary.
pub fn is_float(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => values.is_floating(),
        other => other.is_floating(),
    }
}

/// A text cut to so many characters, with `…` where it was longer; line breaks and runs of spaces become one space.
pub fn shortened(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= most {
        return line;
    }
    line.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortening_keeps_short_lines_and_cuts_long_ones() {
        assert_eq!(shortened("a  >\n 1", 60), "a > 1");
        assert_eq!(shortened(&"ä".repeat(80), 60).chars().count(), 60);
    }
}
