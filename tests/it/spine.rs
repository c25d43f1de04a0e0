//! The way of the data from shards to a version.

use crate::support::{Bench, table};

const SPEC: &str = "
apiVersion: feedline/v1
name: spine
sources: { raw: { uri: raw } }
stages:
  - filter: id % 3 <> 0
sink: { uri: out }
resources: { threads: 2 }
";

#[test]
fn a_filter_is_decided_delivered_and_accounted_for() {
    let bench = Bench::new();
    bench.parquet("raw/a.parquet", &table(0, 1000));
    bench.parquet("raw/b.parquet", &table(1000, 500));
    let outcome = bench.run(SPEC).unwrap();
    let m = outcome.manifest;
    assert_eq!((m.version, m.rows.input, m.rows.output), (1, 1500, 1000));
    assert!(m.rows.balances());
    let rows = bench.rows("out", &m, "all");
    assert_eq!(rows.num_rows(), 1000);
    let again = bench.run(SPEC).unwrap().manifest;
    assert_eq!((again.version, &again.hash), (2, &m.hash));
}

/// The shards' columns stand in another order than the filter's; a test that knew columns by their places would look at the wrong one.
#[test]
fn a_filter_finds_its_columns_by_name() {
    let bench = Bench::new();
    bench.parquet("raw/a.parquet", &table(0, 100));
    let m = bench.run(&SPEC.replace("id % 3 <> 0", "x >= 40 AND name <> 'row 99'")).unwrap().manifest;
    // x = id / 2, every 7th is null: ids 80 … 98 but 84, 91, 98
    assert_eq!(m.rows.output, 16);
    let reasons: Vec<_> = m.rows.rejected["filter"].values().copied().collect();
    assert_eq!(reasons.iter().sum::<u64>(), 84);
    assert_eq!(reasons.len(), 2, "{:?}", m.rows.rejected);
}

#[test]
fn the_same_spec_and_inputs_are_not_run_twice() {
    let bench = Bench::new();
    bench.parquet("raw/a.parquet", &table(0, 100));
    let first = bench.run_lazily(SPEC).unwrap();
    let second = bench.run_lazily(SPEC).unwrap();
    assert!(first.fresh && !second.fresh);
    assert_eq!(second.manifest.version, 1);
    // A trainer reads the `feed` section from the manifest: changing it must arrive there, over the same data.
    let fed = bench.run_lazily(&format!("{SPEC}feed: {{ features: [id] }}\n")).unwrap();
    assert_eq!((fed.manifest.version, &fed.manifest.hash), (2, &first.manifest.hash));
    bench.parquet("raw/b.parquet", &table(100, 100));
    assert_eq!(bench.run_lazily(SPEC).unwrap().manifest.version, 3);
}

/// Serving sees what training saw: the same columns through the same statistics.
#[test]
fn a_version_applies_to_new_data() {
    let bench = Bench::new();
    bench.parquet("raw/a.parquet", &table(0, 1000));
    let spec = SPEC.replace("filter: id % 3 <> 0", "split: { by: hash, key: id, into: { train: 0.8, test: 0.2 } }\n  - clean: { fill_null: { x: mean } }\n  - normalize: { standard: [x] }");
    let m = bench.run(&spec).unwrap().manifest;
    bench.parquet("new/a.parquet", &table(0, 1000).project(&[0, 2]).unwrap());
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_feedline"))
        .current_dir(bench.path())
        .args(["apply", "out", "new", "--to", "applied"])
        .status()
        .unwrap();
    assert!(status.success());
    let file = std::fs::File::open(bench.path().join("applied/part-00000.parquet")).unwrap();
    let applied: Vec<_> = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().collect();
    let mut x_of = std::collections::BTreeMap::new();
    for batch in applied {
        pairs(&batch.unwrap(), &mut x_of);
    }
    assert_eq!(x_of.len(), 1000);
    for split in ["train", "test"] {
        let mut delivered = std::collections::BTreeMap::new();
        pairs(&bench.rows("out", &m, split), &mut delivered);
        assert!(!delivered.is_empty());
        assert!(delivered.iter().all(|(id, x)| x_of[id].to_bits() == x.to_bits()));
    }
}

fn pairs(batch: &arrow::array::RecordBatch, out: &mut std::collections::BTreeMap<i64, f64>) {
    use arrow::array::AsArray;
    let ids = batch.column_by_name("id").unwrap().as_primitive::<arrow::datatypes::Int64Type>();
    let xs = batch.column_by_name("x").unwrap().as_primitive::<arrow::datatypes::Float64Type>();
    out.extend(ids.values().iter().copied().zip(xs.values().iter().copied()));
}
