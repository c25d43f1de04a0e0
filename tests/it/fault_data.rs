//! What fault runs read, how they are described, and what is looked at when they end.

use std::collections::HashMap;
use std::path::Path as FsPath;
use std::sync::{Arc, LazyLock, Mutex};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use feedline::dataset::{Dataset, Manifest, verify::verify};
use feedline::engine::run::{Outcome, RunOptions, run};
use feedline::error::Result;
use feedline::storage::Location;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

/// Input shards.
pub const SHARDS: usize = 3;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Size {
    /// A few hundred rows: every object is sent in one request.
    Small,
    /// Rows wide enough for shards that are uploaded in parts.
    Large,
}

/// The name of an input shard.
pub fn shard_path(shard: usize) -> Path {
    Path::from(format!("in/part-{shard}.parquet"))
}

/// Shards made so far, by number, size and whether they are the replaced ones.
type Shards = HashMap<(usize, Size, bool), Bytes>;

/// An input shard, made once.
pub fn shard(shard: usize, size: Size, changed: bool) -> Bytes {
    static MADE: LazyLock<Mutex<Shards>> = LazyLock::new(Mutex::default);
    MADE.lock().unwrap().entry((shard, size, changed)).or_insert_with(|| made(shard, size, changed)).clone()
}

/// Shards overlap, so that there are duplicates; `x` has nulls and outliers. A changed one has other values in as many bytes.
fn made(shard: usize, size: Size, changed: bool) -> Bytes {
    let ids: Vec<i64> = (shard as i64 * 100..shard as i64 * 100 + 150).collect();
    let shift = if changed { 1000.0 } else { 0.0 };
    let x = |i: &i64| (i % 7 != 0).then_some(shift + if i % 97 == 0 { 1e6 } else { (*i as f64).sin() * 50.0 });
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(ids.clone()))),
        ("x", Arc::new(ids.iter().map(x).collect::<Float64Array>())),
        ("name", Arc::new(ids.iter().map(|i| Some(format!("row {i:04}"))).collect::<StringArray>())),
    ];
    if size == Size::Large {
        columns.push(("blob", Arc::new(ids.iter().map(|i| Some(format!("{i:08x}").repeat(4_800))).collect::<StringArray>())));
    }
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(if size == Size::Large { Compression::SNAPPY } else { Compression::UNCOMPRESSED })
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(50))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

/// Puts the input shards into a store.
pub async fn fill(store: &dyn ObjectStore, size: Size) {
    for i in 0..SHARDS {
        store.put(&shard_path(i), shard(i, size, false).into()).await.unwrap();
    }
}

/// The pipeline, from `<root>/in` to `<root>/<out>`. `more` is what else the spec says.
pub fn spec(root: &str, out: &str, size: Size, more: &str) -> String {
    let blobs = if size == Size::Large { ", compression: none" } else { "" };
    let profile = if size == Size::Large { "report: { profile: off }\n" } else { "" };
    format!(
        "apiVersion: feedline/v1
name: faults
sources: {{ raw: {{ uri: '{root}/in/*.parquet', on_bad_shard: quarantine }} }}
stages:
  - dedup: {{ keys: [id], keep: first }}
  - split: {{ by: hash, key: id, into: {{ train: 0.8, test: 0.2 }} }}
  - clean: {{ outliers: {{ x: {{ method: zscore, threshold: 3, action: drop }} }}, fill_null: {{ x: mean }} }}
  - normalize: {{ standard: [x] }}
sink: {{ uri: '{root}/{out}', row_group_rows: 100{blobs} }}
quarantine: {{ keep_rows: true }}
resources: {{ threads: 2 }}
{profile}{more}"
    )
}

/// Runs a spec in this process.
pub async fn run_spec(text: &str, base: &FsPath) -> Result<Outcome> {
    let loaded = feedline::spec::load(text, "faults.yaml", &[], &|_| None)?;
    run(&loaded, base, &RunOptions::default()).await
}

/// Says what is wrong with the only version of a dataset, if anything is.
pub async fn wrong_version(root: Location, expected: &str) -> Option<String> {
    let dataset = Dataset::new(root);
    let versions = dataset.versions().await.unwrap();
    if versions != [1] {
        return Some(format!("versions {versions:?}"));
    }
    let manifest: Manifest = dataset.manifest(None).await.unwrap();
    let faults = verify(&dataset, &manifest).await.unwrap();
    let rejected: u64 = manifest.rows.rejected.values().flat_map(|by| by.values()).sum();
    let kept: u64 = manifest.quarantine.iter().map(|q| q.rows).sum();
    if manifest.hash != expected {
        Some(format!("hash {} instead of {expected}", manifest.hash))
    } else if !faults.is_empty() {
        Some(format!("damaged: {faults:?}"))
    } else if !manifest.rows.balances() || rejected != kept || rejected == 0 {
        Some(format!("rows do not add up: {:?}, {kept} in quarantine", manifest.rows))
    } else {
        None
    }
}
