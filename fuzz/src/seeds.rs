//! Where mutation begins: small inputs that are right, or nearly.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::ipc::writer::{FileWriter, StreamWriter};
use parquet::arrow::ArrowWriter;

/// A spec with most of what specs have.
pub const SPEC: &str = r#"apiVersion: feedline/v1
name: fuzz
description: "costs $${x}, in ${HOME}"
vars: { raw: data/raw, share: 0.8, keys: [a, b], nested: "${raw}/x" }
sources:
  s: { uri: "${raw}/**/*.parquet", on_bad_shard: quarantine }
  t: { uri: "${ODD:-t.csv}", format: csv, delimiter: ";", columns: { a: int64 } }
stages:
  - dedup: { keys: "${keys}", keep: first }
  - filter: "a > 1 AND b <> ''"
  - split: { by: hash, key: a, into: { train: "${share}", test: 0.2 } }
  - clean: { fill_null: { a: mean }, outliers: { c: { method: zscore, threshold: 4, action: drop } } }
  - balance: { column: b, method: undersample }
  - normalize: { standard: [a] }
  - shuffle
sink: { uri: out, shard_bytes: 128MiB, compression: zstd }
feed: { batch_rows: 64, features: [a], label: b, shuffle: global }
report: { profile: sample }
resources: { memory: 1GiB, threads: 2 }
seed: 7
tests:
  - name: one
    given: { s: [{ a: 1, b: x }], t: [] }
    expect: { rows: 1 }
"#;

/// Words that the formats know, for mutations to put in.
pub const WORDS: &[&str] = &[
    "${", "$${", "${HOME}", "${ODD}", "${a:-b}", "${a:?b}", "}", "{", "[", "]", "&a", "*a", "<<: *a", "- ", ": ", "? ", "|", ">", "\"", "'", "!!str ",
    "---\n", "...\n", "#", "\n", "\r\n", "\t", "\u{feff}", "\0", "null", "true", "1e400", "-0", "0x1F", ".nan", "18446744073709551616",
    "2013-01-31T05:00:00Z", "\\u0000", "\\ud800", "stages", "vars", "sources", "sink", "PAR1", "ARROW1", "[1,[2,{\"a\":3}]]", "\"\"", "\"a\"\"b\"",
    "<script>alert(1)</script>",
];

fn rows() -> RecordBatch {
    let columns: [(&str, ArrayRef); 3] = [
        ("a", Arc::new(Int64Array::from(vec![Some(1), None, Some(-3)]))),
        ("b", Arc::new(StringArray::from(vec![Some("x"), Some("a longer text than fits a view"), None]))),
        ("c", Arc::new(Float64Array::from(vec![0.5, f64::NAN, 1e300]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
}

fn manifest() -> serde_json::Value {
    serde_json::json!({
        "format": "feedline-manifest/v1", "version": 2, "parent": 1, "hash": "c0ffee", "name": "fuzz", "spec_hash": "ab", "seed": 7,
        "inputs": [{ "source": "s", "path": "a.parquet", "bytes": 10, "rows": 3, "fingerprint": "00" }],
        "spec": { "feed": { "batch_rows": 4, "features": ["a"], "label": "b" } }, "splits": ["train", "test"],
        "schema": [{ "name": "a", "type": "Int64", "nullable": true }, { "name": "t", "type": "List(Int32)", "nullable": true }],
        "fits": {
            "n/moments(a)": { "kind": "moments", "count": 3, "nulls": 0, "nans": 0, "mean": "1.5", "variance": "0", "min": "-inf", "max": "NaN" },
            "n/quantiles(a)": { "kind": "quantiles", "count": 3, "values": ["1", "2.5"] },
            "n/frequencies(b)": { "kind": "frequencies", "nulls": 1, "values": [["x", 2]] },
        },
        "rows": { "input": 3, "added": { "concat": 1 }, "rejected": { "filter": { "a > 1": 1 } }, "output": 3, "by_split": { "train": 2, "test": 1 } },
        "shards": [{ "path": "data/split=train/part-0.parquet", "split": "train", "rows": 2, "bytes": 9, "sha256": "00", "row_groups": [1, 1],
            "min_max": { "a": ["1", "2"] } }],
        "run": { "feedline": "0.1.0", "started": "2026-01-01T00:00:00Z", "committed": "2026-01-01T00:00:01Z", "uris": { "s": "raw" } },
    })
}

fn report() -> serde_json::Value {
    serde_json::json!({
        "format": "feedline-report/v1", "pipeline": "fuzz <b>", "seed": 7, "feedline": "0.1.0", "version": 1,
        "warnings": [{ "about": "x", "message": "every value is null" }],
        "sources": [{ "name": "s", "uri": "raw", "shards": 1, "rows": 3, "bytes": 9, "columns": 2,
            "bad_shards": [{ "path": "b", "reason": "cut short", "action": "skip" }] }],
        "rows": { "input": 3, "added": 0, "rejected": 1, "output": 2 },
        "stages": [{ "label": "filter", "name": "filter", "rows_in": 3, "rejected": { "a > 1": 1 }, "rows_out": 2 }],
        "splits": [{ "name": "train", "rows": 2, "share": 1.0 }],
        "label": { "column": "b", "values": [{ "value": "x", "by_split": { "train": 2 } }] },
        "columns": [{ "name": "a" }], "profile": "full", "timings": [{ "pass": "deliver", "seconds": 0.1 }],
    })
}

/// The inputs that a target begins with.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|t| t.as_bytes().to_vec()).collect();
    match target {
        "spec" => texts(&[SPEC, "a: &x [1, *x]\n", "{apiVersion: feedline/v1, name: x, sources: {s: {uri: a}}, stages: [], sink: {uri: b}}"]),
        "overrides" => texts(&["vars.raw=x y\nstages.2.split.by=${HOME}\nseed=8", "sources.\"s\".uri=*a\nstages.9=shuffle\nsink={uri: \"$${x}\"}"]),
        "csv" => texts(&["\0a,b,c\n1,x,2013-01-31\n,\"q \"\"uoted\"\"\nline\",\n", "\x0da;b\r\n1;2;3\r\n", "\x04\u{feff}1,2.5,true\n-0,1e9,f"]),
        "jsonl" => texts(&[
            "\0{\"a\": 1, \"b\": \"x\", \"c\": [1, 2], \"d\": {\"e\": null}}\n{\"a\": 1.5, \"c\": []}\n\n{\"b\": \"2013-01-31T05:00:00Z\"}",
            "\x01{\"a\": 18446744073709551615}\n[1]\n{\"a\": 1,}\n{\"a\": \"\\ud83d\\ude00\"}\n",
        ]),
        "arrow_ipc" => {
            let (mut file, mut stream) = (Vec::new(), Vec::new());
            let rows = rows();
            let mut writer = FileWriter::try_new(&mut file, &rows.schema()).unwrap();
            writer.write(&rows).and_then(|()| writer.finish()).unwrap();
            drop(writer);
            let mut writer = StreamWriter::try_new(&mut stream, &rows.schema()).unwrap();
            writer.write(&rows).and_then(|()| writer.finish()).unwrap();
            drop(writer);
            vec![file, stream]
        }
        "parquet" => {
            let mut file = Vec::new();
            let rows = rows();
            let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), None).unwrap();
            writer.write(&rows).unwrap();
            writer.close().unwrap();
            vec![file]
        }
        "manifest" => vec![manifest().to_string().into_bytes()],
        "state" => texts(&[r#"{"format":"feedline-feed/v1","version":"ab","split":"train","seed":7,"epoch":2,"shuffle":"global","window_rows":10,"position":5,"tokens_taken":3}"#]),
        "report" => vec![report().to_string().into_bytes()],
        _ => Vec::new(),
    }
}
