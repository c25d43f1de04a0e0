//! Small datasets for tests, written as a sink writes them.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::{Batch, Feed, FeedOptions};
use crate::dataset::Manifest;
use crate::spec::pipeline::FeedSpec;
use crate::storage::Location;

/// A dataset in a temporary folder.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub root: Location,
    pub manifest: Manifest,
}

/// Rows `from..to` of a table whose columns all follow from the row's number `id`.
pub fn rows(from: i64, to: i64) -> RecordBatch {
    let ids: Vec<i64> = (from..to).collect();
    let x: ArrayRef = Arc::new(Float64Array::from_iter_values(ids.iter().map(|&i| i as f64 / 4.0)));
    let k: ArrayRef = Arc::new(Int32Array::from_iter_values(ids.iter().map(|&i| (i % 100) as i32)));
    let late: ArrayRef = Arc::new(BooleanArray::from_iter(ids.iter().map(|&i| Some(i % 3 == 0))));
    let name: ArrayRef = Arc::new(StringArray::from_iter_values(ids.iter().map(|i| format!("row {i}"))));
    let holes: ArrayRef = Arc::new(Float64Array::from_iter(ids.iter().map(|&i| (i != 77).then_some(1.0))));
    let tokens: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(ids.iter().map(|&i| Some(tokens_of(i).map(Some)))));
    let id: ArrayRef = Arc::new(Int64Array::from(ids));
    RecordBatch::try_from_iter([("id", id), ("x", x), ("k", k), ("late", late), ("name", name), ("holes", holes), ("tokens", tokens)])
        .unwrap()
}

/// The tokens of a row: 0 to 16 of them, each telling the row and its place.
pub fn tokens_of(id: i64) -> impl Iterator<Item = i32> {
    (0..(id * 7 % 17) as i32).map(move |k| id as i32 * 20 + k)
}

impl Fixture {
    /// `shards` files of `rows_each` rows in the split `train`, in row groups of `group` rows; a file of 50 rows in `test`.
    pub fn new(shards: i64, rows_each: i64, group: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut listed = Vec::new();
        for s in 0..shards {
            listed.push(write(dir.path(), "train", s, &rows(s * rows_each, (s + 1) * rows_each), group));
        }
        listed.push(write(dir.path(), "test", 0, &rows(1_000_000, 1_000_050), group));
        let schema: Vec<_> = rows(0, 1)
            .schema()
            .fields()
            .iter()
            .map(|f| serde_json::json!({"name": f.name(), "type": f.data_type().to_string(), "nullable": f.is_nullable()}))
            .collect();
        let total = shards * rows_each;
        let mut manifest: Manifest = serde_json::from_value(serde_json::json!({
            "format": crate::dataset::manifest::FORMAT, "version": 1, "parent": null, "hash": "", "name": "fixture", "inputs": [],
            "spec": {"feed": {"features": ["x"], "batch_rows": 32}}, "spec_hash": "s", "seed": 7, "splits": ["test", "train", "empty"],
            "schema": schema, "fits": {},
            "rows": {"input": total + 50, "added": {}, "rejected": {}, "output": total + 50, "by_split": {"train": total, "test": 50}},
            "shards": listed,
            "run": {"feedline": "0", "started": "", "committed": "", "uris": {}},
        }))
        .unwrap();
        manifest.hash = manifest.content_hash().unwrap();
        let root = Location::open(dir.path().to_str().unwrap(), dir.path()).unwrap();
        Self { dir, root, manifest }
    }

    pub fn open(&self, spec: &FeedSpec, options: FeedOptions) -> Feed {
        Feed::open(&self.root, &self.manifest, spec, options).unwrap()
    }

    /// The path of a shard of `train`.
    pub fn shard(&self, index: usize) -> std::path::PathBuf {
        self.dir.path().join(&self.manifest.shards_of("train").nth(index).unwrap().path)
    }
}

fn write(dir: &Path, split: &str, number: i64, rows: &RecordBatch, group: usize) -> serde_json::Value {
    let path = format!("data/split={split}/part-{number}.parquet");
    let file = dir.join(&path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&file).unwrap(), rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    let footer = writer.close().unwrap();
    let groups: Vec<i64> = footer.row_groups().iter().map(|g| g.num_rows()).collect();
    let bytes = std::fs::metadata(&file).unwrap().len();
    serde_json::json!({"path": path, "split": split, "rows": rows.num_rows(), "bytes": bytes, "sha256": "", "row_groups": groups})
}

/// A spec from JSON, with defaults.
pub fn spec(json: serde_json::Value) -> FeedSpec {
    serde_json::from_value(json).unwrap()
}

/// The ids of a batch whose labels are the column `id`.
pub fn ids(batch: &Batch) -> Vec<i64> {
    match batch.labels() {
        Some(super::Labels::I64(v)) => v.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// All ids that are left of a feed.
pub fn drain(feed: &mut Feed) -> Vec<i64> {
    feed.flat_map(|b| ids(&b.unwrap())).collect()
}
