//! Tables that are written by others' writers come back equal, and no bytes break a reader.

use std::path::Path as FsPath;

use arrow::array::{Array, Float64Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use serde_json::json;

use super::{Case, batches, rejected};
use crate::error::Kind;

#[derive(Debug, Clone)]
struct Row(Option<i64>, Option<f64>, Option<bool>, Option<String>);

fn a_row() -> impl Strategy<Value = Row> {
    let text = proptest::string::string_regex("[a-z\",;\\n\\r ü€0-9{}\\[\\]\\\\]{1,20}").unwrap();
    let float = prop::num::f64::NORMAL | prop::num::f64::ZERO;
    (prop::option::of(any::<i64>()), prop::option::of(float), prop::option::of(any::<bool>()), prop::option::of(text))
        .prop_map(|(i, f, b, s)| Row(i, f, b, s))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap().block_on(future)
}

/// The rows that were staged, with declared types so that a column of nulls has one.
fn staged_rows(name: &str, bytes: &[u8]) -> Vec<Row> {
    let columns = json!({"i": "int64", "f": "float64", "b": "boolean", "s": "utf8"});
    run(async {
        let case = Case::new(name, bytes).with("columns", columns);
        let shard = case.stage().await;
        assert_eq!(rejected(&shard).await, []);
        let mut found = Vec::new();
        for batch in batches(&shard.location).await {
            let i = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
            let f = batch.column(1).as_any().downcast_ref::<Float64Array>().unwrap();
            let b = arrow::array::as_boolean_array(batch.column(2));
            let s = batch.column(3).as_any().downcast_ref::<StringArray>().unwrap();
            found.extend((0..batch.num_rows()).map(|r| {
                let text = s.is_valid(r).then(|| s.value(r).to_owned());
                Row(i.is_valid(r).then(|| i.value(r)), f.is_valid(r).then(|| f.value(r)), b.is_valid(r).then(|| b.value(r)), text)
            }));
        }
        found
    })
}

fn same(a: &[Row], b: &[Row]) -> bool {
    let bits = |r: &Row| (r.0, r.1.map(f64::to_bits), r.2, r.3.clone());
    a.iter().map(bits).eq(b.iter().map(bits))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn tables_survive_json(table in prop::collection::vec(a_row(), 1..40)) {
        let lines = table.iter().map(|Row(i, f, b, s)| json!({"i": i, "f": f, "b": b, "s": s}).to_string() + "\n");
        let found = staged_rows("t.jsonl", lines.collect::<String>().as_bytes());
        prop_assert!(same(&found, &table), "{found:?}");
    }

    #[test]
    fn tables_survive_csv(table in prop::collection::vec(a_row(), 1..40)) {
        let mut to = ::csv::Writer::from_writer(Vec::new());
        to.write_record(["i", "f", "b", "s"]).unwrap();
        fn text<T: ToString>(v: &Option<T>) -> String {
            v.as_ref().map(T::to_string).unwrap_or_default()
        }
        for Row(i, f, b, s) in &table {
            to.write_record([text(i), text(f), text(b), text(s)]).unwrap();
        }
        let found = staged_rows("t.csv", &to.into_inner().unwrap());
        prop_assert!(same(&found, &table), "{found:?}");
    }

    #[test]
    fn inferred_types_never_reject_what_a_table_holds(table in prop::collection::vec(a_row(), 1..40)) {
        let lines: String = table.iter().map(|Row(i, f, b, s)| json!({"i": i, "f": [f], "b": {"x": b}, "s": s}).to_string() + "\n").collect();
        let shard = run(async { Case::new("t.jsonl", lines).stage().await });
        prop_assert_eq!((shard.rows, shard.rejected.len()), (table.len() as u64, 0));
    }

    #[test]
    fn no_bytes_break_a_reader(bytes in prop::collection::vec(prop::sample::select(b"{}[]:,\"\\\n\r1a-e\xff t".to_vec()), 0..200)) {
        for name in ["t.jsonl", "t.csv"] {
            let case = Case::new(name, &bytes);
            if let Err(e) = run(case.try_stage()) {
                prop_assert_eq!(e.kind(), Kind::Input, "{}", e);
            }
        }
    }
}

#[tokio::test]
async fn the_flights_survive_csv_and_json() {
    let data = std::env::var("FEEDLINE_DATA").map_or_else(|_| FsPath::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), Into::into);
    let Some(path) = first_parquet(&data) else {
        println!("no data at {}: nothing to check", data.display());
        return;
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
    let batches: Vec<RecordBatch> = builder.with_limit(20_000).build().unwrap().map(Result::unwrap).collect();
    let mut json = arrow::json::LineDelimitedWriter::new(Vec::new());
    json.write_batches(&batches.iter().collect::<Vec<_>>()).unwrap();
    json.finish().unwrap();
    let case = Case::new("f.jsonl", json.into_inner());
    let shard = case.stage().await;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!((shard.rows, shard.rejected.len()), (rows as u64, 0));
    let mut csv = arrow::csv::Writer::new(Vec::new());
    batches.iter().for_each(|b| csv.write(b).unwrap());
    let case = Case::new("f.csv", csv.into_inner());
    let shard = case.stage().await;
    assert_eq!((shard.rows, shard.rejected.len()), (rows as u64, 0));
}

/// A shard of the flights, where the data is there.
fn first_parquet(data: &FsPath) -> Option<std::path::PathBuf> {
    let mut folders = vec![data.join("flights")];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).collect();
        entries.sort();
        match entries.iter().find(|p| p.extension().is_some_and(|e| e == "parquet")) {
            Some(found) => return Some(found.clone()),
            None => folders.extend(entries.into_iter().filter(|p| p.is_dir())),
        }
    }
    None
}
