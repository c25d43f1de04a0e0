//! What a stage brings: steps. A stage lowers to a short list of them; the planner packs steps into passes.
//!
//! ```text
//!  Columns   new or changed columns, from each row alone            runs inside whatever pass reads them
//!  Decide    a verdict on every row: rejected, split, copies        Rows: inside the next pass; Table: a pass of its own
//!  Fit       a small result learned from all rows left              one pass for neighbouring fits
//!  Append    rows of another source come in here                    no pass
//!  Reshape   new rows out of many                                   ends a segment: its result is materialized
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use datafusion::prelude::{DataFrame, SessionContext};
use polars::prelude::Expr;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// The hidden column that identifies a row: `unit << 32 | row in unit`, `UInt64`, never null.
pub const ROW: &str = "_row";
/// The hidden column with a row's split, as an index into the split's names, `UInt8`, never null.
pub const SPLIT: &str = "_split";
/// The column in which a [`TableDecision`] gives its code, `UInt32`.
pub const CODE: &str = "_code";

/// One thing that a stage does.
#[derive(Debug, Clone)]
pub enum Step {
    /// New or changed columns.
    Columns(Columns),
    /// A verdict on every row.
    Decide(Decide),
    /// Statistics learned from the rows that are left.
    Fit(Fit),
    /// The rows of another source come in.
    Append(Append),
    /// New rows out of many.
    Reshape(Reshape),
}

/// New or changed columns, each from its own row alone.
#[derive(Clone)]
pub struct Columns {
    /// All visible columns after the step, in order. A column that the step does not make passes through by its name.
    pub output: SchemaRef,
    /// The columns that the step makes.
    pub makes: Vec<Made>,
    /// The fits whose results it needs.
    pub fits: Vec<FitKey>,
    /// How.
    pub work: ColumnWork,
}

/// A column that a step makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its name in the output.
    pub name: String,
    /// The columns it is made from.
    pub reads: Vec<String>,
}

/// Gives one Polars expression for every column made, in the order of `makes`, once the fits are known.
pub type BindExprs = dyn Fn(&Fits) -> Result<Vec<Expr>> + Send + Sync;
/// Makes all columns of a step out of a batch that holds at least the columns read, in the order of `makes`.
pub type MakeArrays = dyn Fn(&RecordBatch) -> Result<Vec<ArrayRef>> + Send + Sync;

/// How columns are made.
#[derive(Clone)]
pub enum ColumnWork {
    /// By Polars expressions, each elementwise.
    Polars(Arc<BindExprs>),
    /// By a kernel over Arrow arrays (a join with a small table).
    Arrow(Arc<MakeArrays>),
}

impl fmt::Debug for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = if matches!(self.work, ColumnWork::Polars(_)) { "polars" } else { "arrow" };
        write!(f, "Columns({engine}: {:?})", self.makes.iter().map(|m| &m.name).collect::<Vec<_>>())
    }
}

/// A verdict on every row.
#[derive(Clone)]
pub struct Decide {
    /// The columns that are looked at.
    pub reads: Vec<String>,
    /// The fits whose results it needs.
    pub fits: Vec<FitKey>,
    /// What the verdict says.
    pub gives: Gives,
    /// Which rows it looks at.
    pub on: Scope,
    /// How.
    pub how: How,
}

impl fmt::Debug for Decide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if matches!(self.how, How::Rows(_)) { "by row" } else { "over all rows" };
        write!(f, "Decide({how}, reads {:?}, gives {:?}, on {:?})", self.reads, self.gives, self.on)
    }
}

/// What a verdict says of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gives {
    /// Rejected, with one of these reasons (code 0 is the first); rows that are not named stay.
    Rejects(Vec<String>),
    /// Only with [`How::Table`]: the rows named **stay**, all others are rejected with this reason.
    Survivors(String),
    /// The row's split: an index into these names. Every row is named.
    Splits(Vec<String>),
    /// How many copies of the row are delivered, 1 or more; rows that are not named stay single.
    Copies,
}

/// Which rows a decision or a fit looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All rows that are left.
    All,
    /// The rows of the split named `train`.
    #[default]
    Train,
}

/// How a decision is made.
#[derive(Clone)]
pub enum How {
    /// From each row alone.
    Rows(Arc<dyn RowDecision>),
    /// From all rows, by DataFusion.
    Table(Arc<dyn TableDecision>),
}

/// A decision from each row alone.
pub trait RowDecision: Send + Sync {
    /// Makes the test, once the fits are known. `schema` is what the batches will have: at least the columns read, and [`ROW`].
    fn bind(&self, schema: &SchemaRef, fits: &Fits) -> Result<Box<dyn RowTest>>;
}

/// A test over batches.
pub trait RowTest: Send + Sync {
    /// One code a row (see [`Gives`]); null where a rejecting test lets the row stay.
    fn codes(&self, batch: &RecordBatch) -> Result<arrow::array::UInt32Array>;
}

/// A decision that needs all rows.
#[async_trait]
pub trait TableDecision: Send + Sync {
    /// `rows` has the columns read and [`ROW`] (unique, `UInt64`); the result has [`ROW`] and, unless it gives survivors, [`CODE`] (`UInt32`).
    /// The result's order does not matter, its set of rows must not depend on partitions, batches or memory.
    async fn decide(&self, rows: DataFrame, cx: &TableContext) -> Result<DataFrame>;

    /// How often it reads the rows, at most: what a progress bar expects.
    fn readings(&self) -> u64 {
        1
    }
}

/// What a table decision may use.
#[derive(Clone)]
pub struct TableContext {
    /// The session with the run's memory budget; side inputs are registered in it by name.
    pub session: SessionContext,
    /// The results of the fits named.
    pub fits: Arc<Fits>,
    /// Number of units, and of rows in each, for dense arrays over rows.
    pub unit_rows: Arc<Vec<u32>>,
    /// What readers of the report shall look at.
    pub remarks: Remarks,
}

/// What a decision wants readers of the report to look at: it follows from the rows alone, like the decision. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct Remarks(Arc<Mutex<Vec<String>>>);

impl Remarks {
    /// Adds one: what is odd, and what it may mean.
    pub fn say(&self, remark: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(remark.into());
    }

    /// All that were added.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Statistics learned from the rows that are left.
#[derive(Debug, Clone)]
pub struct Fit {
    /// Under which name the result is kept in the manifest.
    pub key: FitKey,
    /// The column it looks at.
    pub column: String,
    /// What it learns.
    pub kind: FitKind,
    /// From which rows.
    pub on: Scope,
}

/// Names a fit in the manifest, for example `clean#1/moments(air_time)`.
pub type FitKey = String;

/// What a fit learns about a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FitKind {
    /// Count, mean, variance, minimum and maximum; nulls are left out, NaN is counted apart.
    Moments,
    /// Exact quantiles with linear interpolation (numpy's default), of the values that are neither null nor NaN.
    Quantiles(Vec<f64>),
    /// How often each value occurs, at most so many distinct ones.
    Frequencies {
        /// More distinct values than this are an error.
        at_most: usize,
    },
}

/// What a fit learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum FitResult {
    /// See [`FitKind::Moments`].
    Moments(Moments),
    /// The quantiles asked for, in that order; NaN where there was no value.
    Quantiles {
        /// Values looked at.
        count: u64,
        /// One value for each quantile.
        #[serde(with = "exact::list")]
        values: Vec<f64>,
    },
    /// Values with their counts: most frequent first, equal counts by value.
    Frequencies {
        /// Rows without a value.
        nulls: u64,
        /// Value (as text) and count.
        values: Vec<(String, u64)>,
    },
}

impl FitResult {
    /// Whether there was no value to learn from.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Moments(m) => m.count == 0,
            Self::Quantiles { count, .. } => *count == 0,
            Self::Frequencies { values, .. } => values.is_empty(),
        }
    }
}

/// Moments of a numeric column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Values that are neither null nor NaN.
    pub count: u64,
    /// Nulls.
    pub nulls: u64,
    /// NaNs.
    pub nans: u64,
    /// Arithmetic mean; 0 where there was no value.
    #[serde(with = "exact")]
    pub mean: f64,
    /// Population variance (divided by n, as scikit-learn's `StandardScaler` does).
    #[serde(with = "exact")]
    pub variance: f64,
    /// Smallest value; +∞ where there was none.
    #[serde(with = "exact")]
    pub min: f64,
    /// Largest value; −∞ where there was none.
    #[serde(with = "exact")]
    pub max: f64,
}

/// All that was learned so far.
pub type Fits = BTreeMap<FitKey, FitResult>;

/// The rows of another source come in after the rows so far.
#[derive(Debug, Clone)]
pub struct Append {
    /// The source's name.
    pub source: String,
}

/// New rows out of many; their identities are new.
#[derive(Clone)]
pub struct Reshape {
    /// The columns that come out.
    pub output: SchemaRef,
    /// The side inputs it reads.
    pub sides: Vec<String>,
    /// How.
    pub work: Arc<dyn Reshaping>,
}

impl fmt::Debug for Reshape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reshape(to {:?})", self.output.fields().iter().map(|f| f.name()).collect::<Vec<_>>())
    }
}

/// How a reshape makes its rows.
#[async_trait]
pub trait Reshaping: Send + Sync {
    /// `rows` has all visible columns and [`ROW`]; the result has the output's columns **in a total order** that depends on the rows alone.
    async fn reshape(&self, rows: DataFrame, session: &SessionContext) -> Result<DataFrame>;
}

/// True where a column can be scaled, filled with a mean or tested for outliers.
pub fn is_numeric(t: &DataType) -> bool {
    t.is_numeric()
}

/// A schema with one field replaced, or appended where there is none of its name.
pub fn with_field(schema: &SchemaRef, field: Field) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    match fields.iter().position(|f| f.name() == field.name()) {
        Some(i) => fields[i] = Arc::new(field),
        None => fields.push(Arc::new(field)),
    }
    Arc::new(arrow::datatypes::Schema::new(fields))
}

/// Floating point as text in JSON: exact to the last bit, and able to say NaN and infinity, which JSON's numbers are not.
mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(x: &f64, s: S) -> Result<S::Ok, S::Error> {
        x.to_string().serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }

    pub mod list {
        use super::{Deserialize, Deserializer, Error, Serialize, Serializer};

        pub fn serialize<S: Serializer>(values: &[f64], s: S) -> Result<S::Ok, S::Error> {
            values.iter().map(f64::to_string).collect::<Vec<_>>().serialize(s)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f64>, D::Error> {
            let texts = Vec::<String>::deserialize(d)?;
            texts.iter().map(|t| t.parse().map_err(D::Error::custom)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_survive_json_to_the_last_bit() {
        let moments = Moments {
            mean: 1e9 + 0.1 + 0.2,
            variance: f64::MIN_POSITIVE / 3.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            ..Default::default()
        };
        let quantiles = FitResult::Quantiles { count: 2, values: vec![0.1 + 0.2, 1.0 / 3.0] };
        for fit in [FitResult::Moments(moments), quantiles] {
            let back: FitResult = serde_json::from_str(&serde_json::to_string(&fit).unwrap()).unwrap();
            assert_eq!(back, fit);
        }
    }
}
