//! The stages: one file each, registered below. A new stage is a file, a `mod` line and a registry line.
//!
//! A stage's file holds its options (their doc comments are the reference and the JSON Schema), what it does to the schema,
//! and how it lowers to [`step`]s. No stage touches storage, and none knows which engine or machine runs it.

// row stages
pub mod balance;
pub mod concat;
pub mod dedup;
pub mod filter;
pub mod join;
pub mod near_dedup;
pub mod sample;
pub mod shuffle;
pub mod split;
pub mod sql;

// column stages
pub mod cast;
pub mod clean;
pub mod derive;
pub mod encode;
pub mod normalize;
pub mod rename;
pub mod select;

// what stages share
pub mod cuts;
pub mod functions;
pub mod kernel;
pub mod keys;
mod kit;
pub mod query;
pub mod step;

#[cfg(test)]
pub(crate) mod column_testing;
#[cfg(test)]
mod flights_tests;
#[cfg(test)]
pub(crate) mod golden;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;
use std::fmt::Debug;

use arrow::datatypes::SchemaRef;
use datafusion::prelude::SessionContext;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

use crate::error::{Mistake, nearest};
use step::{Scope, Step};

/// What one entry of `stages:` does.
pub trait Stage: Debug + Send + Sync {
    /// Lowers the stage to steps, or says every mistake it has against the columns that reach it. Places are relative to the options
    /// (`/keys/0`).
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>>;
}

/// What a stage knows when it lowers.
pub struct StageContext<'a> {
    /// The columns that reach it (hidden ones are not among them).
    pub schema: &'a SchemaRef,
    /// The names of the splits, where a `split` stands above.
    pub splits: Option<&'a [String]>,
    /// The side inputs: every source but the first, with its schema and size in bytes of uncompressed data.
    pub sides: &'a BTreeMap<String, Side>,
    /// A label that is unique to the stage: `clean`, or `clean#2` for the second of its name. Prefix of its fits' keys.
    pub label: &'a str,
    /// A number for every random choice of the stage: a hash of the pipeline's seed and the stage's label.
    pub seed: u64,
    /// A session without data, to plan SQL in.
    pub session: &'a SessionContext,
}

/// A side input.
#[derive(Debug, Clone)]
pub struct Side {
    /// Its columns.
    pub schema: SchemaRef,
    /// Bytes of its data, uncompressed, from footers.
    pub bytes: u64,
    /// Its rows, all in memory: filled in before a run for sides that a lookup join uses, empty while planning.
    pub table: std::sync::Arc<std::sync::OnceLock<Vec<arrow::array::RecordBatch>>>,
}

impl StageContext<'_> {
    /// A column's type, or the mistake that there is none of this name.
    pub fn column(&self, at: &str, name: &str) -> Result<&arrow::datatypes::Field, Mistake> {
        self.schema.field_with_name(name).map_err(|_| {
            Mistake::new(at, format!("no column `{name}` reaches this stage"))
                .help(nearest(name, self.schema.fields().iter().map(|f| f.name().as_str())))
        })
    }

    /// A numeric column, or the mistake that it is none.
    pub fn numeric(&self, at: &str, name: &str) -> Result<&arrow::datatypes::Field, Mistake> {
        let field = self.column(at, name)?;
        if step::is_numeric(field.data_type()) {
            return Ok(field);
        }
        Err(Mistake::new(at, format!("column `{name}` is {}, which is not a number", field.data_type()))
            .help("cast it first: `- cast: { columns: { … } }`"))
    }

    /// Which rows a fitted stage learns from (rule 3): train where a split stands above; without one, `fit_on: all` must be said.
    pub fn fit_scope(&self, asked: Option<Scope>) -> Result<Scope, Mistake> {
        let has_train = self.splits.is_some_and(|s| s.iter().any(|n| n == "train"));
        match asked {
            Some(Scope::All) => Ok(Scope::All),
            _ if has_train => Ok(Scope::Train),
            _ => Err(Mistake::new("", "this stage learns from data, but no `split` with a `train` part stands above it")
                .help("put a `split` above it, or say `fit_on: all`: then test rows leak into what is learned")),
        }
    }
}

/// One registered stage.
pub struct StageDef {
    /// The name in the spec.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Its reference page: what, when, an example that runs.
    pub page: &'static str,
    /// The JSON Schema of its options.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// Reads its options.
    pub parse: fn(serde_json::Value) -> Result<Box<dyn Stage>, Mistake>,
}

/// A registry line for a stage whose options are `T`.
pub const fn def<T: Stage + DeserializeOwned + JsonSchema + 'static>(
    name: &'static str,
    summary: &'static str,
    page: &'static str,
) -> StageDef {
    StageDef { name, summary, page, schema: |g| g.subschema_for::<T>(), parse: parse::<T> }
}

fn parse<T: Stage + DeserializeOwned + 'static>(options: serde_json::Value) -> Result<Box<dyn Stage>, Mistake> {
    // `- shuffle` without options is `- shuffle: {}`
    let options = if options.is_null() { serde_json::json!({}) } else { options };
    match serde_json::from_value::<T>(options) {
        Ok(stage) => Ok(Box::new(stage)),
        Err(e) => Err(Mistake::new("", e.to_string())),
    }
}

/// All stages, in the order in which a pipeline usually has them.
pub static REGISTRY: &[StageDef] = &[
    // rows
    def::<concat::Concat>("concat", "add the rows of another source", concat::PAGE),
    def::<join::Join>("join", "bring columns of another source to the rows, or keep those that match", join::PAGE),
    def::<filter::Filter>("filter", "keep the rows for which a predicate is true", filter::PAGE),
    def::<dedup::Dedup>("dedup", "keep one row of those that are equal", dedup::PAGE),
    def::<near_dedup::NearDedup>("near_dedup", "of texts that are nearly the same, keep one", near_dedup::PAGE),
    def::<sample::Sample>("sample", "keep some of the rows, chosen by hash", sample::PAGE),
    def::<split::Split>("split", "send every row to train, validation, test or another part", split::PAGE),
    def::<balance::Balance>("balance", "bring the classes of a label into better proportion", balance::PAGE),
    def::<sql::Sql>("sql", "make new rows by a query", sql::PAGE),
    def::<shuffle::Shuffle>("shuffle", "put all rows in a random order on disk", shuffle::PAGE),
    // columns
    def::<select::Select>("select", "keep or drop columns", select::PAGE),
    def::<rename::Rename>("rename", "give columns other names", rename::PAGE),
    def::<cast::Cast>("cast", "give columns other types", cast::PAGE),
    def::<clean::Clean>("clean", "tidy text, treat outliers, fill and drop missing values", clean::PAGE),
    def::<derive::Derive>("derive", "make columns out of SQL expressions", derive::PAGE),
    def::<normalize::Normalize>("normalize", "put numeric columns on a common scale", normalize::PAGE),
    def::<encode::Encode>("encode", "turn categories into numbers", encode::PAGE),
];

/// The stage of a name.
pub fn find(name: &str) -> Option<&'static StageDef> {
    REGISTRY.iter().find(|d| d.name == name)
}
