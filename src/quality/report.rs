//! The result model of a run's report: what `report.json` holds and every renderer reads.
//!
//! Whatever a run did not look at (profiles switched off, no label, no split) is empty or absent. Counts, splits, columns, labels and leakage
//! follow from inputs, spec and seed alone; `started`, `finished`, `feedline` and `timings` tell of the run.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::format::{count, plural};
pub use super::leakage::{LeakExample, LeakPair, Leakage};
pub use super::profile::{ColumnSummary, TableSummary};
use crate::error::{Error, Result};

/// The `format` of reports that this Feedline writes.
pub const FORMAT: &str = "feedline-report/v1";

/// A run's report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The format of this document: [`FORMAT`].
    pub format: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// What the pipeline is for, where its spec says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The number of the dataset version; none where the run did not publish one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The version's hash, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The hash of what in the spec shapes the data, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_hash: Option<String>,
    /// The seed.
    pub seed: u64,
    /// Feedline's version.
    pub feedline: String,
    /// When the run began, RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// What a reader should look at first.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// What was read: the first source flows through the stages, the others are side inputs.
    #[serde(default)]
    pub sources: Vec<SourceReport>,
    /// Rows through the stages.
    #[serde(default)]
    pub rows: RowCounts,
    /// The stages, in order.
    #[serde(default)]
    pub stages: Vec<StageReport>,
    /// The splits, in order; one, `all`, where the pipeline does not split.
    #[serde(default)]
    pub splits: Vec<SplitReport>,
    /// How values of the label spread over the splits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<LabelReport>,
    /// Entities that splits share, for each key looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leakage: Vec<Leakage>,
    /// The columns, before and after: those of the source in its order, then those that stages made.
    #[serde(default)]
    pub columns: Vec<ColumnReport>,
    /// How much was profiled: `full`, `sample` or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What stages learned, in short, by key.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub fits: IndexMap<String, String>,
    /// Seconds by pass. They differ from run to run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timings: Vec<Timing>,
}

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What it is about: a column, a stage, a source, `label` or `leakage`.
    pub about: String,
    /// What is odd, and what it may mean.
    pub message: String,
}

/// A source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Its name.
    pub name: String,
    /// Where it lies, without secrets.
    pub uri: String,
    /// Shards that were read.
    pub shards: u64,
    /// Rows in them.
    pub rows: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Columns.
    pub columns: u64,
    /// Shards that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_shards: Vec<BadShard>,
}

/// A shard that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadShard {
    /// The path below the source's root.
    pub path: String,
    /// Why.
    pub reason: String,
    /// `skip` or `quarantine`.
    pub action: String,
}

/// Rows of the whole run: `input + added = output + rejected`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Rows that came in.
    pub input: u64,
    /// Rows that stages added.
    pub added: u64,
    /// Rows that stages rejected.
    pub rejected: u64,
    /// Rows that were delivered.
    pub output: u64,
}

/// What a stage did to the rows: `rows_in + added = rows_out + Σ rejected`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageReport {
    /// The label, unique in the pipeline: `clean`, or `clean#2`.
    pub label: String,
    /// The stage's name.
    pub name: String,
    /// What it does, in a line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Rows that reached it.
    pub rows_in: u64,
    /// Rows it added.
    #[serde(default)]
    pub added: u64,
    /// Rows it rejected, by reason.
    #[serde(default)]
    pub rejected: IndexMap<String, u64>,
    /// Rows that left it.
    pub rows_out: u64,
}

impl StageReport {
    /// Rows it rejected for any reason.
    pub fn rejected_rows(&self) -> u64 {
        self.rejected.values().sum()
    }
}

/// A split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitReport {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Its share of the rows delivered.
    pub share: f64,
}

/// How values of the label spread over the splits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelReport {
    /// The label's column.
    pub column: String,
    /// Its values, most frequent first; `(null)` stands for none.
    pub values: Vec<LabelValue>,
    /// Values that are too many to list: how many different ones, and rows of theirs by split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<LabelValue>,
}

/// A value of the label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelValue {
    /// The value as text.
    pub value: String,
    /// Rows that have it, by split.
    pub by_split: IndexMap<String, u64>,
}

/// A column, before the first stage and after the last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ColumnReport {
    /// Its name.
    pub name: String,
    /// As it came in; none where a stage made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ColumnSummary>,
    /// As it was delivered; none where a stage dropped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ColumnSummary>,
}

/// How long a pass took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The pass.
    pub pass: String,
    /// Its wall-clock time in seconds.
    pub seconds: f64,
}

/// A stage that rejects more than this share of its rows is warned of.
const HIGH_REJECTION: f64 = 0.5;
/// A label whose most frequent value has more than this share is warned of.
const HIGH_IMBALANCE: f64 = 0.99;

impl Report {
    /// The report as `report.json`.
    ///
    /// # Errors
    /// None that is expected: every number in a report is finite.
    pub fn to_json_pretty(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads `report.json`.
    ///
    /// # Errors
    /// Where the text is not JSON, or a report of another format.
    pub fn from_json(text: &str) -> Result<Self> {
        let report: Self = serde_json::from_str(text)
            .map_err(|e| Error::input(format!("this is no report: {e}")).hint("a report is the report.json of a dataset version"))?;
        if report.format != FORMAT {
            return Err(Error::input(format!("a report of format `{}`, where this Feedline reads `{FORMAT}`", report.format))
                .hint("read it with the Feedline that wrote it"));
        }
        Ok(report)
    }

    /// Pairs the columns of a table before the stages and after them: those of `before` in order, then the new ones.
    pub fn columns_of(before: Option<&TableSummary>, after: Option<&TableSummary>) -> Vec<ColumnReport> {
        let mut columns: IndexMap<&str, ColumnReport> = IndexMap::new();
        for (table, is_after) in [(before, false), (after, true)] {
            for summary in table.iter().flat_map(|table| &table.columns) {
                let column =
                    columns.entry(&summary.name).or_insert_with(|| ColumnReport { name: summary.name.clone(), before: None, after: None });
                *(if is_after { &mut column.after } else { &mut column.before }) = Some(summary.clone());
            }
        }
        columns.into_values().collect()
    }

    /// What in the report is odd: to be put in [`Report::warnings`] once everything else is filled in.
    pub fn find_warnings(&self) -> Vec<Warning> {
        let mut found = Vec::new();
        let mut warn = |about: &str, message: String| found.push(Warning { about: about.to_owned(), message });
        if self.rows.input > 0 && self.rows.output == 0 {
            warn("rows", format!("all of {} were rejected: the version is empty", plural(self.rows.input + self.rows.added, "row")));
        }
        for source in self.sources.iter().filter(|source| !source.bad_shards.is_empty()) {
            let first = source.bad_shards.first().map(|bad| format!(": {}: {}", bad.path, bad.reason)).unwrap_or_default();
            warn(&source.name, format!("{} unreadable, left out{first}", plural(source.bad_shards.len() as u64, "shard")));
        }
        for split in self.splits.iter().filter(|split| split.rows == 0 && self.rows.output > 0) {
            warn(&split.name, "this split has no rows".to_owned());
        }
        for stage in &self.stages {
            let share = stage.rejected_rows() as f64 / stage.rows_in.max(1) as f64;
            if share > HIGH_REJECTION {
                warn(&stage.label, format!("this stage rejected {:.0} % of its rows", share * 100.0));
            }
        }
        for leakage in self.leakage.iter().filter(|leakage| leakage.leaked > 0) {
            let keys = leakage.keys.join(", ");
            let (leaked, distinct) = (count(leakage.leaked), plural(leakage.distinct, "value"));
            warn("leakage", format!("{leaked} of {distinct} of {keys} in more than one split: a test on them tells too good a story"));
        }
        if let Some(label) = &self.label {
            label.warnings().into_iter().for_each(|message| warn(&label.column, message));
        }
        for column in &self.columns {
            column.warnings().into_iter().for_each(|message| warn(&column.name, message));
        }
        found
    }
}

impl LabelReport {
    fn warnings(&self) -> Vec<String> {
        if self.others.is_some() || self.values.is_empty() {
            return Vec::new();
        }
        let total = |value: &LabelValue| value.by_split.values().sum::<u64>();
        let all: u64 = self.values.iter().map(total).sum();
        let present: Vec<&LabelValue> = self.values.iter().filter(|value| total(value) > 0).collect();
        let mut found = Vec::new();
        match present.iter().max_by_key(|value| total(value)) {
            Some(only) if present.len() == 1 => found.push(format!("the label has one value, `{}`: there is nothing to learn", only.value)),
            Some(most) if total(most) as f64 > HIGH_IMBALANCE * all as f64 => {
                found.push(format!("`{}` is the label of {:.1} % of the rows", most.value, 100.0 * total(most) as f64 / all as f64));
            }
            _ => {}
        }
        let splits: Vec<&String> =
            self.values.iter().flat_map(|value| value.by_split.keys()).collect::<indexmap::IndexSet<_>>().into_iter().collect();
        for value in present.iter().filter(|_| present.len() > 1) {
            let missing: Vec<&str> =
                splits.iter().filter(|split| value.by_split.get(**split).is_none_or(|n| *n == 0)).map(|split| split.as_str()).collect();
            if !missing.is_empty() {
                found.push(format!("no row of the split {} has the label `{}`", missing.join(", "), value.value));
            }
        }
        found
    }
}

impl ColumnReport {
    fn warnings(&self) -> Vec<String> {
        let Some(after) = &self.after else { return Vec::new() };
        let before = self.before.as_ref();
        let share = |n: u64, of: &ColumnSummary| n as f64 / of.count.max(1) as f64;
        let mut found = Vec::new();
        if after.count > 0 && after.nulls == after.count {
            found.push("every value is null".to_owned());
        } else if before.is_some_and(|before| share(after.nulls, after) > share(before.nulls, before) + 0.05) {
            let before = before.map_or(0.0, |before| share(before.nulls, before));
            found.push(format!("nulls grew from {:.1} % to {:.1} %", 100.0 * before, 100.0 * share(after.nulls, after)));
        } else if after.count > 1 && after.nulls == 0 && after.distinct.is_some_and(|d| d.estimate == 1 && d.is_exact()) {
            found.push("every value is the same".to_owned());
        }
        let odd = after.nan + after.positive_infinite + after.negative_infinite;
        if odd > 0 {
            found.push(format!("{odd} values are NaN or infinite: most losses become NaN of one of them"));
        }
        found
    }
}

#[cfg(test)]
pub(super) mod tests;
