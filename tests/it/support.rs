//! What the tests share: shards to read, specs to run, versions to look at.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use feedline::dataset::Manifest;
use feedline::engine::run::{Outcome, RunOptions, run};
use feedline::error::Result;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;

/// A folder with raw shards and specs, gone when the test ends.
pub struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// An empty one.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a Parquet file with small row groups.
    pub fn parquet(&self, path: &str, batch: &RecordBatch) -> PathBuf {
        let at = self.path().join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(100)).build();
        let mut writer = ArrowWriter::try_new(std::fs::File::create(&at).unwrap(), batch.schema(), Some(properties)).unwrap();
        for first in (0..batch.num_rows()).step_by(100) {
            writer.write(&batch.slice(first, 100.min(batch.num_rows() - first))).unwrap();
        }
        writer.close().unwrap();
        at
    }

    /// Runs a spec given as text.
    pub fn run(&self, spec: &str) -> Result<Outcome> {
        self.run_with(spec, &[])
    }

    /// Runs a spec unless the newest version was made of the same.
    pub fn run_lazily(&self, spec: &str) -> Result<Outcome> {
        self.execute(spec, &[], false)
    }

    /// Runs a spec with values set.
    pub fn run_with(&self, spec: &str, overrides: &[(&str, &str)]) -> Result<Outcome> {
        self.execute(spec, overrides, true)
    }

    fn execute(&self, spec: &str, overrides: &[(&str, &str)], force: bool) -> Result<Outcome> {
        self.run_as(spec, overrides, &RunOptions { force, ..Default::default() })
    }

    /// Runs a spec with values set and options of one's own.
    pub fn run_as(&self, spec: &str, overrides: &[(&str, &str)], options: &RunOptions) -> Result<Outcome> {
        let overrides: Vec<_> = overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let loaded = feedline::spec::load(spec, "test.yaml", &overrides, &|_| None)?;
        let threads = loaded.pipeline.resources.threads;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
        runtime.block_on(run(&loaded, self.path(), options))
    }

    /// The newest version below `out`, if there is one.
    pub fn newest(&self, out: &str) -> Option<Manifest> {
        let folder = self.path().join(out).join("_feedline/versions");
        let mut files: Vec<_> = std::fs::read_dir(folder).ok()?.map(|e| e.unwrap().path()).collect();
        // A file in the making has a name that no reader looks for.
        files.retain(|f| f.extension().is_some_and(|e| e == "json"));
        files.sort();
        Some(serde_json::from_slice(&std::fs::read(files.last()?).unwrap()).unwrap())
    }

    /// All files below a folder.
    pub fn files(&self, folder: &str) -> Vec<String> {
        fn walk(at: &Path, out: &mut Vec<String>) {
            for entry in std::fs::read_dir(at).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, out) } else { out.push(path.display().to_string()) }
            }
        }
        let mut out = Vec::new();
        walk(&self.path().join(folder), &mut out);
        out
    }

    /// All rows of a split of a version below `out`, as one batch.
    pub fn rows(&self, out: &str, manifest: &Manifest, split: &str) -> RecordBatch {
        let batches: Vec<_> = manifest.shards_of(split).map(|shard| self.batch(&format!("{out}/{}", shard.path))).collect();
        arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
    }

    /// All rows of a Parquet file.
    pub fn batch(&self, path: &str) -> RecordBatch {
        let file = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(self.path().join(path)).unwrap()).unwrap();
        let schema = file.schema().clone();
        let batches: Vec<_> = file.build().unwrap().map(|b| b.unwrap()).collect();
        arrow::compute::concat_batches(&schema, &batches).unwrap()
    }
}

/// What a process said.
pub struct Said {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

impl Said {
    /// Runs a command to its end. Whatever it was given, it must not have panicked.
    pub fn by(command: &mut Command) -> Self {
        let done = command.output().unwrap();
        let said =
            Self { code: done.status.code(), out: String::from_utf8(done.stdout).unwrap(), err: String::from_utf8(done.stderr).unwrap() };
        assert!(!said.err.contains("panicked") && !said.out.contains("panicked"), "{}", said.err);
        said
    }

    /// It ended with this code and said all of these words on stderr.
    pub fn expect(&self, case: &str, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{case}: {}", self.err);
        // miette wraps long lines; white space is no part of what is said
        let flat = self.err.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(flat.contains(word), "{case}: `{word}` is not in\n{}", self.err);
        }
        if code != 0 {
            assert!(flat.contains("hint:") || flat.contains("help:"), "{case}: nothing says what to do:\n{}", self.err);
        }
    }

    /// Its stdout, which is JSON and nothing else.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

/// The real program, in a bench's folder.
pub fn feedline(bench: &Bench, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("feedline"));
    command.args(args).current_dir(bench.path()).env("NO_COLOR", "1").env("RUST_BACKTRACE", "1").env_remove("RUST_LOG");
    command
}

/// A table of `n` rows: `id` 0.., `k` = id % 50, `x` = id / 2 with every 7th null, `name`.
pub fn table(first: i64, n: i64) -> RecordBatch {
    let ids: Vec<i64> = (first..first + n).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(ids.clone()))),
        ("k", Arc::new(ids.iter().map(|i| Some(i % 50)).collect::<Int64Array>())),
        ("x", Arc::new(ids.iter().map(|i| (i % 7 != 0).then_some(*i as f64 / 2.0)).collect::<Float64Array>())),
        ("name", Arc::new(ids.iter().map(|i| Some(format!("row {i}"))).collect::<StringArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}
