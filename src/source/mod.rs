//! Shards to units to rows with an identity.
//!
//! ```text
//!  uri ── discover ──▶ shards (path, bytes) ── open: footer only ──▶ schema, row groups ──▶ units ── read ──▶ batches with `_row`
//! ```
//!
//! A **unit** is a span of row groups of one shard, chosen from footers and sizes alone, so every machine cuts the same ones.
//! Formats without a footer (JSON Lines, CSV, Arrow IPC) are read once into staging as Parquet by `ingest`, then treated the same.

mod ahead;
mod discover;
pub mod ingest;
mod open;
mod read;
pub mod types;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use indexmap::IndexMap;

pub use discover::{Found, discover};
pub use open::{Shard, open_shard};
pub use read::UnitReader;

use crate::dataset::manifest::{BadInput, Input};
use crate::error::{Error, Result};
use crate::spec::pipeline::{OnBadShard, SourceSpec};

/// Rows after which a unit is full.
const UNIT_ROWS: u64 = 1 << 20;
/// Uncompressed bytes after which a unit is full.
const UNIT_BYTES: i64 = 256 << 20;

/// A source whose shards are known.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name in the spec.
    pub name: String,
    /// Its URI, without secrets.
    pub uri: String,
    /// The columns of all shards together; hive columns last.
    pub schema: SchemaRef,
    /// The shards that can be read, ordered by path.
    pub shards: Vec<Arc<Shard>>,
    /// Those that cannot.
    pub bad: Vec<BadInput>,
    /// Differences between shards that were bridged, in words.
    pub notes: Vec<String>,
}

impl Source {
    /// Puts opened shards together: their common schema, or the error that they have none.
    pub fn new(name: &str, spec: &SourceSpec, mut shards: Vec<Shard>, bad: Vec<BadInput>) -> Result<Self> {
        shards.sort_by(|a, b| a.path.cmp(&b.path));
        let merged = types::merge(&shards, spec.hive).map_err(|e| e.at(format!("source `{name}`")))?;
        let uri = crate::storage::redacted(&spec.uri);
        let shards = shards.into_iter().map(Arc::new).collect();
        Ok(Self { name: name.to_owned(), uri, schema: merged.schema, shards, bad, notes: merged.notes })
    }

    /// Rows of all shards.
    pub fn rows(&self) -> u64 {
        self.shards.iter().map(|s| s.rows).sum()
    }

    /// Bytes of all shards, as stored.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|s| s.bytes).sum()
    }

    /// Bytes of all shards, uncompressed.
    pub fn uncompressed_bytes(&self) -> u64 {
        self.shards.iter().map(|s| s.uncompressed_bytes()).sum()
    }

    /// What the manifest says of the shards.
    pub fn inputs(&self) -> impl Iterator<Item = Input> + '_ {
        self.shards.iter().map(|s| Input {
            source: self.name.clone(),
            path: s.path.clone(),
            bytes: s.bytes,
            rows: s.rows,
            fingerprint: s.fingerprint.clone(),
        })
    }

    /// Cuts the shards into units, in the order of their paths.
    pub fn units(self: &Arc<Self>, enters: usize, first: u32) -> Vec<Unit> {
        let spans = self.shards.iter().flat_map(|shard| shard.spans().into_iter().map(move |groups| (shard.clone(), groups)));
        spans
            .zip(first..)
            .map(|((shard, groups), id)| Unit { id, source: self.clone(), rows: shard.rows_of(&groups), shard, groups, enters })
            .collect()
    }
}

/// A span of row groups of one shard. Its rows are numbered from 0; with the unit's id that is a row's identity.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Its number in the segment.
    pub id: u32,
    /// The source.
    pub source: Arc<Source>,
    /// The shard.
    pub shard: Arc<Shard>,
    /// The row groups.
    pub groups: std::ops::Range<usize>,
    /// Rows.
    pub rows: u32,
    /// The first step that concerns its rows: 0, or the one after an append.
    pub enters: usize,
}

impl Unit {
    /// The identity of a row of this unit.
    pub fn row_id(&self, row: u32) -> u64 {
        (u64::from(self.id) << 32) | u64::from(row)
    }

    /// The number of one of its rows in the shard, from 0.
    pub fn shard_row(&self, row: u32) -> u64 {
        let before = (0..self.groups.start).map(|g| self.shard.metadata().row_group(g).num_rows().max(0) as u64);
        before.sum::<u64>() + u64::from(row)
    }

    /// What a record of work on this unit is named after.
    pub fn key(&self) -> String {
        format!("{}|{}|{}|{:?}|{}", self.source.name, self.shard.path, self.shard.fingerprint, self.groups, self.enters)
    }

    /// Bytes as stored.
    pub fn bytes(&self) -> u64 {
        self.groups.clone().map(|g| self.shard.metadata().row_group(g).compressed_size().max(0) as u64).sum()
    }
}

/// Says what is to be done about shards that cannot be read: the first one stops the run, or all are listed.
pub fn settle_bad(name: &str, policy: OnBadShard, bad: Vec<(String, Error)>) -> Result<Vec<BadInput>> {
    let action = match policy {
        OnBadShard::Fail => {
            let more = bad.len().saturating_sub(1);
            return match bad.into_iter().next() {
                None => Ok(Vec::new()),
                Some((_, e)) if more == 0 => Err(e.hint("mend or remove it, or set `on_bad_shard: quarantine`")),
                Some((_, e)) => Err(e.hint(format!("{more} more are broken; mend or remove them, or set `on_bad_shard: quarantine`"))),
            };
        }
        OnBadShard::Skip => "skip",
        OnBadShard::Quarantine => "quarantine",
    };
    let listed = bad.into_iter().map(|(path, e)| {
        tracing::warn!(source = name, shard = path, "shard left out ({action}): {}", e.message());
        BadInput { source: name.to_owned(), path, reason: e.message().to_owned(), action: action.to_owned() }
    });
    Ok(listed.collect())
}

/// All sources of a run, by name, in the spec's order.
pub type Sources = IndexMap<String, Arc<Source>>;
