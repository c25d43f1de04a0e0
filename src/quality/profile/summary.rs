//! What a profile says, as `report.json` holds it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A table in numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TableSummary {
    /// Rows looked at.
    pub rows: u64,
    /// The columns, in order.
    pub columns: Vec<ColumnSummary>,
}

impl TableSummary {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&ColumnSummary> {
        self.columns.iter().find(|c| c.name == name)
    }
}

/// A column in numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ColumnSummary {
    /// Its name.
    pub name: String,
    /// Its Arrow type, as Arrow prints it.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Rows, with nulls.
    pub count: u64,
    /// Rows without a value.
    pub nulls: u64,
    /// Values that are not a number. They, and the infinite ones, are left out of everything below.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nan: u64,
    /// Values +∞.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub positive_infinite: u64,
    /// Values −∞.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub negative_infinite: u64,
    /// How many different values there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<Distinct>,
    /// Numbers, dates and times: where they lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<Numbers>,
    /// Booleans: how many are true and false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booleans: Option<Booleans>,
    /// Text (in characters), bytes and lists: their lengths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lengths: Option<Lengths>,
    /// Text that begins or ends with white space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padded: Option<u64>,
    /// The most frequent values, most frequent first, equal ones by value; at most [`TOP`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<TopValue>,
    /// What could not be said, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Values that are listed as most frequent.
pub const TOP: usize = 10;
/// The quantiles of a column.
pub const QUANTILES: [f64; 7] = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];

/// A number of different values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distinct {
    /// The number, or its estimate by HyperLogLog (Flajolet et al. 2007) where there are more than 1,024.
    pub estimate: u64,
    /// Lower end of the estimate's 95 % interval; the number itself where it is exact.
    pub low: u64,
    /// Upper end of the estimate's 95 % interval; the number itself where it is exact.
    pub high: u64,
}

impl Distinct {
    /// Whether the number was counted, not estimated.
    pub fn is_exact(&self) -> bool {
        self.low == self.high
    }
}

/// Where numbers, dates and times lie. Durations are in seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// The smallest value, exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Value>,
    /// The largest value, exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Value>,
    /// Arithmetic mean; none for dates and times, or where it is too large for 64 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Standard deviation of the population (divided by n).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// Quantiles by nearest rank: share and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<(f64, Value)>,
    /// How far the rank of a quantile may be off, as a share of the values: 0 where all were counted exactly.
    pub rank_error: f64,
    /// How the values spread; counts carry `rank_error` too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
}

/// Counts of values in bins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Edges of the bins, one more than bins; a bin holds its lower edge, the last one both. In the column's own unit (dates in days, times in ticks).
    pub edges: Vec<f64>,
    /// Values in each bin.
    pub counts: Vec<u64>,
    /// Values below the first edge: far-off ones would squeeze all others into one bin.
    pub below: u64,
    /// Values above the last edge.
    pub above: u64,
    /// The first edge as it is shown.
    pub from: Value,
    /// The last edge as it is shown.
    pub to: Value,
}

/// How many values are true and false.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booleans {
    /// True ones.
    #[serde(rename = "true")]
    pub trues: u64,
    /// False ones.
    #[serde(rename = "false")]
    pub falses: u64,
}

/// Lengths of texts (characters), bytes (bytes) or lists (elements).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// The shortest.
    pub min: u64,
    /// The mean.
    pub mean: f64,
    /// The longest.
    pub max: u64,
    /// How many are empty.
    pub empty: u64,
    /// How many are 0, 1, 2–3, 4–7, 8–15 … long: bin `i` > 0 holds lengths from 2^(i−1) to 2^i − 1.
    pub by_doubling: Vec<u64>,
}

/// A frequent value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopValue {
    /// The value; long text is cut at 80 characters.
    pub value: Value,
    /// How often it occurs at least.
    pub count: u64,
    /// How often it occurs at most: `count` itself where values were counted exactly.
    pub at_most: u64,
}

/// A value as it is shown. Written to JSON as a number or a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// A whole number above `i64`.
    UInt(u64),
    /// A number.
    Float(f64),
    /// Text, a date, a time.
    Text(String),
}

impl Default for Value {
    fn default() -> Self {
        Self::Int(0)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(v) => v.fmt(f),
            Self::UInt(v) => v.fmt(f),
            Self::Float(v) => v.fmt(f),
            Self::Text(v) => v.fmt(f),
        }
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}
