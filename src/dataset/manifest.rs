//! The manifest: one JSON document that is a dataset version. What it does not name is not in the dataset.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::stages::step::Fits;

/// A dataset version. [`Manifest::hash`] covers `inputs`, `spec`, `splits`, `schema`, `fits`, `rows` and `shards`; `run` stands beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of this document.
    pub format: String,
    /// The version's number: 1, 2, 3 …
    pub version: u64,
    /// The version it followed.
    pub parent: Option<u64>,
    /// SHA-256 over what the version is, in hex.
    pub hash: String,
    /// The pipeline's name.
    pub name: String,
    /// What was read.
    pub inputs: Vec<Input>,
    /// Shards that could not be read, and what was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_inputs: Vec<BadInput>,
    /// The resolved spec.
    pub spec: serde_json::Value,
    /// SHA-256 of what in the spec shapes the data: sources without their URIs, stages, sink without its URI, seed.
    pub spec_hash: String,
    /// The seed.
    pub seed: u64,
    /// Names of the splits in order; one, `all`, where the pipeline does not split.
    pub splits: Vec<String>,
    /// The columns, in order.
    pub schema: Vec<ColumnInfo>,
    /// The columns that came in: what `feedline apply` expects of new data.
    #[serde(default)]
    pub input_schema: Vec<ColumnInfo>,
    /// What the stages learned, by key.
    pub fits: Fits,
    /// Row accounting.
    pub rows: Rows,
    /// The shards, ordered by split, then position.
    pub shards: Vec<Shard>,
    /// The rejected rows' shards, where the spec keeps them. Paths are relative to the dataset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<QuarantineShard>,
    /// When, where and by what it was made: not part of the hash.
    pub run: RunInfo,
}

/// One input shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Input {
    /// The source's name.
    pub source: String,
    /// The path below the source's root: the same wherever the data lies.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// SHA-256 of the Parquet footer, or of the whole file for formats without one, in hex.
    pub fingerprint: String,
}

/// An input shard that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BadInput {
    /// The source's name.
    pub source: String,
    /// The path below the source's root.
    pub path: String,
    /// Why it cannot be read.
    pub reason: String,
    /// `skip` or `quarantine`.
    pub action: String,
}

/// A column of the dataset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ColumnInfo {
    /// Its name.
    pub name: String,
    /// Its Arrow type, as Arrow prints it.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may hold nulls.
    pub nullable: bool,
}

/// Row accounting: `input + Σ added = output + Σ rejected`, which [`Rows::balances`] checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Rows of the first source.
    pub input: u64,
    /// Rows that stages added, by stage label (`concat`, oversampling, a reshape's result).
    pub added: IndexMap<String, u64>,
    /// Rows that stages rejected, by stage label and reason.
    pub rejected: IndexMap<String, IndexMap<String, u64>>,
    /// Rows delivered.
    pub output: u64,
    /// Rows delivered, by split.
    pub by_split: IndexMap<String, u64>,
}

impl Rows {
    /// Whether every row is accounted for.
    pub fn balances(&self) -> bool {
        let added: u64 = self.added.values().sum();
        let rejected: u64 = self.rejected.values().flat_map(IndexMap::values).sum();
        self.input + added == self.output + rejected && self.by_split.values().sum::<u64>() == self.output
    }
}

/// One shard of the dataset: an immutable Parquet file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shard {
    /// The path below the dataset's root: `data/split=train/part-<id>.parquet`.
    pub path: String,
    /// The split's name.
    pub split: String,
    /// Rows.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// SHA-256 of the rows, in hex, where the dataset is encrypted: see [`crate::crypt::RowsHash`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_sha256: Option<String>,
    /// Rows of each row group, in order: enough to find any row without opening the file.
    pub row_groups: Vec<u64>,
    /// Smallest and largest value by column, as text, where Parquet's statistics have them.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub min_max: IndexMap<String, (String, String)>,
}

/// A file of rejected rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineShard {
    /// The path below the dataset's root.
    pub path: String,
    /// Rows.
    pub rows: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

/// When, where and by what a version was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Feedline's version.
    pub feedline: String,
    /// When the run began, RFC 3339, UTC.
    pub started: String,
    /// When it committed.
    pub committed: String,
    /// Where each source lay.
    pub uris: IndexMap<String, String>,
}

/// The `format` of manifests that this Feedline writes.
pub const FORMAT: &str = "feedline-manifest/v1";

impl Manifest {
    /// The hash of what the version is: everything but its number, parent, `hash`, `run`, the spec's resources and URIs (of which
    /// `spec_hash` says the rest), and the quarantine.
    ///
    /// The bytes of an encrypted shard differ from run to run, and so does its name: the hash covers what its rows are instead (`rows_sha256`),
    /// so that two runs of one spec over the same input make versions of one hash.
    pub fn content_hash(&self) -> Result<String> {
        let shard = |s: &Shard| match &s.rows_sha256 {
            Some(rows) => Ok(serde_json::json!({
                "split": s.split, "rows": s.rows, "rows_sha256": rows, "row_groups": s.row_groups, "min_max": s.min_max,
            })),
            None => serde_json::to_value(s),
        };
        let shards = self.shards.iter().map(shard).collect::<Result<Vec<_>, _>>()?;
        let content = serde_json::json!({
            "format": self.format, "inputs": self.inputs, "bad_inputs": self.bad_inputs, "spec_hash": self.spec_hash, "seed": self.seed,
            "splits": self.splits, "schema": self.schema, "fits": self.fits, "rows": self.rows, "shards": shards,
        });
        Ok(hash_json(&content))
    }

    /// The shards of a split, in order.
    pub fn shards_of<'a>(&'a self, split: &'a str) -> impl Iterator<Item = &'a Shard> {
        self.shards.iter().filter(move |s| s.split == split)
    }
}

/// SHA-256 of a JSON value, keys sorted, in hex.
pub fn hash_json(value: &serde_json::Value) -> String {
    fn sorted(value: &serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(map) => {
                let mut keys: Vec<_> = map.keys().collect();
                keys.sort();
                keys.into_iter().map(|k| (k.clone(), sorted(&map[k]))).collect::<serde_json::Map<_, _>>().into()
            }
            serde_json::Value::Array(list) => list.iter().map(sorted).collect::<Vec<_>>().into(),
            other => other.clone(),
        }
    }
    hex::encode(Sha256::digest(sorted(value).to_string()))
}
