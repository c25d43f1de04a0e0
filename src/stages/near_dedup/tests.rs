//! The stage as a whole, run through DataFusion as a pipeline runs it.

use std::path::PathBuf;

use arrow::array::{AsArray, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use datafusion::datasource::MemTable;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::error::{Kind, Result};
use crate::stages::step::{CODE, ROW, Remarks, TableContext};

/// How a session is set up: none of it may matter.
#[derive(Debug, Clone, Copy)]
struct Setup {
    partitions: usize,
    batch_rows: usize,
    memory: usize,
}

const PLAIN: Setup = Setup { partitions: 2, batch_rows: 8192, memory: 1 << 30 };

fn session(setup: Setup) -> SessionContext {
    let config = SessionConfig::new()
        .with_target_partitions(setup.partitions)
        .with_batch_size(setup.batch_rows)
        .with_sort_spill_reservation_bytes(64 << 10)
        .with_sort_in_place_threshold_bytes(16 << 10);
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(setup.memory, 1.0).build_arc().unwrap();
    SessionContext::new_with_config_rt(config, runtime)
}

fn context(schema: &SchemaRef, options: serde_json::Value) -> Result<Vec<Step>, Vec<Mistake>> {
    let (session, sides) = (SessionContext::new(), std::collections::BTreeMap::new());
    let cx = StageContext { schema, splits: None, sides: &sides, label: "near_dedup", seed: 7, session: &session };
    serde_json::from_value::<NearDedup>(options).map_err(|e| vec![Mistake::new("", e.to_string())])?.lower(&cx)
}

/// Rows of `text`, `rank` and `source`, in units of 100 rows.
fn table(rows: &[(Option<&str>, f64, &str)]) -> RecordBatch {
    let columns: Vec<(&str, arrow::array::ArrayRef)> = vec![
        (ROW, Arc::new((0..rows.len() as u64).map(|i| (i / 100) << 32 | (i % 100)).collect::<UInt64Array>())),
        ("text", Arc::new(rows.iter().map(|r| r.0).collect::<StringArray>())),
        ("rank", Arc::new(rows.iter().map(|r| Some(r.1)).collect::<Float64Array>())),
        ("source", Arc::new(rows.iter().map(|r| Some(r.2)).collect::<StringArray>())),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// The rejected rows, as positions in the table.
async fn rejected(rows: &RecordBatch, options: serde_json::Value, setup: Setup) -> Result<Vec<u64>> {
    rejected_with(rows, options, setup, &Remarks::default()).await
}

async fn rejected_with(rows: &RecordBatch, options: serde_json::Value, setup: Setup, remarks: &Remarks) -> Result<Vec<u64>> {
    let steps = context(&rows.schema(), options).unwrap();
    let [Step::Decide(Decide { how: How::Table(decision), .. })] = steps.as_slice() else { panic!("one decision") };
    let session = session(setup);
    let mut parts: Vec<Vec<RecordBatch>> = vec![Vec::new(); setup.partitions];
    for (i, start) in (0..rows.num_rows()).step_by(setup.batch_rows).enumerate() {
        parts[i % setup.partitions].push(rows.slice(start, setup.batch_rows.min(rows.num_rows() - start)));
    }
    let table = session.read_table(Arc::new(MemTable::try_new(rows.schema(), parts)?))?;
    let units = (0..rows.num_rows()).step_by(100).map(|start| 100.min(rows.num_rows() - start) as u32).collect();
    let cx = TableContext { session: session.clone(), fits: Arc::default(), unit_rows: Arc::new(units), remarks: remarks.clone() };
    let mut found = Vec::new();
    for batch in decision.decide(table, &cx).await?.collect().await? {
        assert_eq!((batch.schema().field(0).name().as_str(), batch.schema().field(1).name().as_str()), (ROW, CODE));
        assert!(batch.column(1).as_primitive::<UInt32Type>().values().iter().all(|code| *code == 0));
        found.extend(batch.column(0).as_primitive::<UInt64Type>().values().iter().map(|row| (row >> 32) * 100 + (row & 0xffff_ffff)));
    }
    found.sort_unstable();
    assert_eq!(session.runtime_env().memory_pool.reserved(), 0, "all memory is given back");
    Ok(found)
}

const LICENCE: &str = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated \
    documentation files, to deal in the software without restriction, including without limitation the rights to use, copy, modify, merge, publish";

fn licences() -> Vec<String> {
    vec![
        format!("Copyright 2019 Ann. {LICENCE}"),
        "An essay about something else entirely, with words of its own that appear nowhere else in these texts at all".to_owned(),
        format!("Copyright 2024 Bob the Builder. {LICENCE}"),
        format!("COPYRIGHT 2021 ann -- {LICENCE}"),
        String::new(),
        String::new(),
        "— !".to_owned(),
        "too short".to_owned(),
        "Too short!".to_owned(),
    ]
}

fn licence_table() -> RecordBatch {
    let texts = licences();
    let mut rows: Vec<_> = texts.iter().enumerate().map(|(i, t)| (Some(t.as_str()), i as f64, "here")).collect();
    rows[0].1 = f64::NAN;
    rows.extend([(None, 0.0, "here"), (None, 0.0, "here")]);
    table(&rows)
}

#[tokio::test]
async fn one_of_each_cluster_stays_by_its_rank() {
    let rows = licence_table();
    for (keep, gone) in [
        (json!("first"), [2, 3, 8]),
        (json!("last"), [0, 2, 7]),
        (json!("longest"), [0, 3, 7]),
        (json!({ "highest": "rank" }), [0, 2, 7]),
        (json!({ "lowest": "rank" }), [0, 3, 8]),
    ] {
        for verify in [true, false] {
            let options = json!({ "column": "text", "keep": keep, "verify": verify });
            assert_eq!(rejected(&rows, options, PLAIN).await.unwrap(), gone, "{keep}");
        }
    }
}

#[tokio::test]
async fn limits_that_were_met_are_told() {
    // One band of one hash function: nearly all texts share it, and none is similar to another.
    let word = |i: usize| i.to_string().bytes().map(|b| char::from(b - b'0' + b'a')).collect::<String>();
    let texts: Vec<String> =
        (0..1500).map(|i| format!("common {}", (0..3).map(|k| word(i * 3 + k)).collect::<Vec<_>>().join(" "))).collect();
    let rows: Vec<_> = texts.iter().map(|t| (Some(t.as_str()), 0.0, "x")).collect();
    let remarks = Remarks::default();
    let options = json!({ "column": "text", "shingle": { "words": 1 }, "bands": 8, "rows": 1, "threshold": 0.9 });
    assert_eq!(rejected_with(&table(&rows), options.clone(), PLAIN, &remarks).await.unwrap(), [] as [u64; 0]);
    let said = remarks.take();
    assert!(said.len() == 1 && said[0].contains("not compared with all that share a band"), "{said:?}");
    rejected_with(&table(&rows[..500]), options, PLAIN, &remarks).await.unwrap();
    assert_eq!(remarks.take(), [] as [String; 0], "500 texts can be compared with all");
}

#[tokio::test]
async fn nothing_comes_of_nothing() {
    let empty = licence_table().slice(0, 0);
    assert!(rejected(&empty, json!({ "column": "text", "keep": "longest" }), PLAIN).await.unwrap().is_empty());
    let nulls = licence_table().slice(9, 2);
    let nulls = table(&vec![(None, 0.0, "x"); nulls.num_rows()]);
    assert!(rejected(&nulls, json!({ "column": "text" }), PLAIN).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_guard_stops_what_would_swallow_a_source() {
    let texts: Vec<String> = (0..300)
        .map(|i| {
            if i < 150 {
                format!("{LICENCE} by {i}")
            } else {
                format!("w{i}x ").replace(char::is_numeric, "")
                    + &"abcdefghij"[..(i % 10) as usize]
                    + &i.to_string().bytes().map(|b| char::from(b - b'0' + b'k')).collect::<String>()
            }
        })
        .collect();
    let rows: Vec<_> = texts.iter().enumerate().map(|(i, t)| (Some(t.as_str()), 0.0, if i < 150 { "mirror" } else { "blog" })).collect();
    let guard = |share: f64| json!({ "column": "text", "guard": { "column": "source", "max_rejected": share } });
    let e = rejected(&table(&rows), guard(0.9), PLAIN).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Quality);
    assert!(e.message().contains("mirror (149 of 150 rows)"), "{e}");
    assert_eq!(rejected(&table(&rows), guard(1.0), PLAIN).await.unwrap().len(), 149);
}

#[tokio::test]
async fn too_little_memory_is_said_with_what_to_change() {
    // long texts that differ by their first words: their shingles are 2.4 MB, everything else is small
    let body: String =
        (0..3000u32).map(|i| i.to_string().bytes().map(|b| char::from(b - b'0' + b'a')).chain([' ']).collect::<String>()).collect();
    let texts: Vec<String> = (0..200usize).map(|i| format!("{} {body}", "x".repeat(i + 1))).collect();
    let rows: Vec<_> = texts.iter().map(|t| (Some(t.as_str()), 0.0, "x")).collect();
    let setup = Setup { memory: 2 << 20, partitions: 1, batch_rows: 16 };
    let e = rejected(&table(&rows), json!({ "column": "text" }), setup).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Resources);
    assert!(e.to_do().unwrap().contains("verify: false"), "{e}: {:?}", e.to_do());
    let gone = rejected(&table(&rows), json!({ "column": "text", "verify": false }), setup).await.unwrap();
    assert_eq!(gone.len(), 199);
}

#[test]
fn mistakes_are_all_named() {
    let schema = licence_table().schema();
    let places = |options: serde_json::Value| context(&schema, options).unwrap_err().into_iter().map(|m| m.at).collect::<Vec<_>>();
    assert_eq!(
        places(
            json!({ "column": "rank", "threshold": 1.5, "shingle": { "words": 0 }, "keep": { "highest": "nope" }, "guard": { "column": "x", "max_rejected": 2 } })
        ),
        ["/column", "/threshold", "/shingle", "/keep", "/guard/column", "/guard/max_rejected"]
    );
    assert_eq!(places(json!({ "column": "txt" })), ["/column"]);
    assert_eq!(places(json!({ "column": "text", "threshold": 0.01 })), ["/threshold"]);
    assert_eq!(places(json!({ "column": "text", "bands": 0 })), ["/bands"]);
    assert!(context(&schema, json!({ "column": "text", "treshold": 0.5 })).unwrap_err()[0].message.contains("treshold"));
    let dictionary: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("t", DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into()), true)]));
    assert!(context(&dictionary, json!({ "column": "t" })).is_ok());
}

/// A few words in many orders: plenty of near duplicates, and of texts that are not quite.
fn texts() -> impl Strategy<Value = Vec<Option<String>>> {
    let text = prop::collection::vec(0u8..6, 0..24)
        .prop_map(|w| Some(w.iter().map(|w| format!("w{}", char::from(b'a' + w))).collect::<Vec<_>>().join(" ")));
    prop::collection::vec(prop_oneof![9 => text, 1 => Just(None)], 0..160)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn how_it_runs_does_not_change_who_stays(texts in texts(), longest: bool, verify: bool) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let rows: Vec<_> = texts.iter().map(|t| (t.as_deref(), 0.0, "x")).collect();
        let rows = table(&rows);
        let options = json!({ "column": "text", "threshold": 0.5, "shingle": { "words": 2 }, "verify": verify, "keep": if longest { "longest" } else { "first" } });
        let plain = runtime.block_on(rejected(&rows, options.clone(), PLAIN)).unwrap();
        for (partitions, batch_rows, memory) in [(1, 8192, 1 << 30), (2, 7, 1 << 30), (4, 64, 1 << 30), (3, 2, 1 << 30), (1, 32, 3 << 19)] {
            let again = runtime.block_on(rejected(&rows, options.clone(), Setup { partitions, batch_rows, memory })).unwrap();
            prop_assert_eq!(&plain, &again, "{} partitions, {} rows a batch, {} bytes", partitions, batch_rows, memory);
        }
    }
}

/// Real documents: exact 5-word-shingle Jaccard at 0.7 with connected components leaves 1,476 of 8,233 (`tests/check/near_dups_exact.py`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_documents_leave_what_exact_jaccard_leaves() {
    let root =
        std::env::var("FEEDLINE_DATA").map_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    let docs = root.join("docs");
    if !docs.exists() {
        println!("skipped: no documents in {}", docs.display());
        return;
    }
    let session = SessionContext::new();
    let read = session.read_parquet(docs.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    let mut texts: Vec<(String, String)> = Vec::new();
    for batch in read.select_columns(&["path", "text"]).unwrap().collect().await.unwrap() {
        let text = |i: usize| arrow::compute::cast(batch.column(i), &DataType::Utf8).unwrap();
        let (paths, bodies) = (text(0), text(1));
        texts.extend(
            paths.as_string::<i32>().iter().zip(bodies.as_string::<i32>()).map(|(p, t)| (p.unwrap().to_owned(), t.unwrap().to_owned())),
        );
    }
    texts.sort();
    assert_eq!(texts.len(), 8233);
    let rows: Vec<_> = texts.iter().map(|(_, text)| (Some(text.as_str()), 0.0, "x")).collect();
    let rows = table(&rows);
    let mut left = Vec::new();
    for setup in [PLAIN, Setup { partitions: 3, batch_rows: 500, memory: 64 << 20 }] {
        let gone = rejected(&rows, json!({ "column": "text", "threshold": 0.7 }), setup).await.unwrap();
        left.push((texts.len() - gone.len(), gone));
    }
    println!("{} survivors", left[0].0);
    assert!(left[0].0.abs_diff(1476) <= 1476 / 20, "{} survivors", left[0].0);
    assert_eq!(left[0], left[1]);
}
