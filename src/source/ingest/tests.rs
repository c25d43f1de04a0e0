mod properties;

use std::io::Write;

use arrow::array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use arrow::json::WriterBuilder;
use arrow::json::writer::JsonArray;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::*;
use crate::error::Kind;
use crate::source::discover;

/// A folder with a file, and a dataset's root beside it.
struct Case {
    folder: tempfile::TempDir,
    name: String,
    spec: Value,
}

impl Case {
    fn new(name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), bytes).unwrap();
        Self { folder, name: name.to_owned(), spec: json!({ "uri": name }) }
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.spec[key] = value;
        self
    }

    fn spec(&self) -> SourceSpec {
        serde_json::from_value(self.spec.clone()).unwrap()
    }

    fn root(&self) -> Location {
        Location::open("out", self.folder.path()).unwrap()
    }

    async fn found(&self) -> Found {
        discover("s", &self.spec(), self.folder.path(), &Default::default()).await.unwrap().remove(0)
    }

    async fn try_stage(&self) -> Result<Shard> {
        ingest(&self.found().await, &self.spec(), Some(&self.root()), &FileKeys::default(), &Vault::default()).await
    }

    async fn stage(&self) -> Shard {
        self.try_stage().await.unwrap()
    }

    async fn error(&self) -> Error {
        let e = self.try_stage().await.unwrap_err();
        assert!(e.place().unwrap().ends_with(&self.name), "{e}");
        e
    }

    async fn glance(&self) -> Result<Shard> {
        ingest(&self.found().await, &self.spec(), None, &FileKeys::default(), &Vault::default()).await
    }
}

async fn batches(at: &Location) -> Vec<RecordBatch> {
    let bytes = at.read().await.unwrap().unwrap();
    ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap().map(Result::unwrap).collect()
}

async fn rows(at: &Location) -> Value {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    for batch in batches(at).await {
        writer.write(&batch).unwrap();
    }
    writer.finish().unwrap();
    let bytes = writer.into_inner();
    if bytes.is_empty() { json!([]) } else { serde_json::from_slice(&bytes).unwrap() }
}

fn types(shard: &Shard) -> Vec<(String, String)> {
    assert!(shard.reader.schema().fields().iter().all(|f| f.is_nullable()));
    shard.reader.schema().fields().iter().map(|f| (f.name().clone(), f.data_type().to_string())).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

/// `(number, reason, line)` of the rejected lines, and their counts.
async fn rejected(shard: &Shard) -> Vec<(u64, String, String)> {
    let Some(at) = &shard.rejected_lines else {
        assert!(shard.rejected.is_empty());
        return Vec::new();
    };
    let found = rows(at).await;
    let lines: Vec<_> = found.as_array().unwrap().iter().collect();
    for (reason, count) in &shard.rejected {
        assert_eq!(lines.iter().filter(|l| l["_reason"] == reason.as_str()).count() as u64, *count);
    }
    assert!(lines.iter().all(|l| l["_stage"] == "source" && l["_shard"] == shard.path.as_str()));
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    lines.iter().map(|l| (l["_shard_row"].as_u64().unwrap(), text(&l["_reason"]), text(&l["_line"]))).collect()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

#[tokio::test]
async fn json_lines_become_rows_with_the_types_of_all_lines() {
    let mut text = String::from("\u{feff}{\"i\": 1, \"f\": 1, \"m\": true, \"n\": null}\r\n\r\n   \n");
    for i in 0..3000 {
        text += &format!("{{\"i\": {i}, \"f\": 2.5, \"m\": 7}}\n");
    }
    text += r#"{"late": [{"a": "x"}, {"b": [1, 2]}], "o": {"k": {"z": 1}}, "m": "t", "i": null, "big": 18446744073709551615, "e": {}}"#;
    let case = Case::new("a.jsonl", &text);
    let shard = case.stage().await;
    assert_eq!((shard.rows, shard.bytes, shard.path.as_str()), (3002, text.len() as u64, "a.jsonl"));
    let t = types(&shard);
    assert_eq!(t[..4], pairs(&[("i", "Int64"), ("f", "Float64"), ("m", "Utf8View"), ("n", "Null")]));
    assert_eq!(t.iter().map(|t| t.0.as_str()).collect::<Vec<_>>(), ["i", "f", "m", "n", "late", "o", "big"]);
    assert_eq!(t[6].1, "UInt64");
    let found = rows(&shard.location).await;
    assert_eq!(found[0], json!({"i": 1, "f": 1.0, "m": "true", "n": null, "late": null, "o": null, "big": null}));
    assert_eq!(
        found[3001],
        json!({"i": null, "f": null, "m": "t", "n": null, "late": [{"a": "x", "b": null}, {"a": null, "b": [1, 2]}], "o": {"k": {"z": 1}}, "big": 18446744073709551615_u64})
    );
    assert!(rejected(&shard).await.is_empty());
    let stored = std::fs::read(case.folder.path().join("a.jsonl")).unwrap();
    assert_eq!(shard.fingerprint, hex::encode(<sha2::Sha256 as sha2::Digest>::digest(stored)));
}

#[tokio::test]
async fn a_bad_line_costs_no_other() {
    let mut text = b"{\"a\": 1, \"s\": \"x\"}\n{\"a\": 2 \"s\": \"y\"}\n[1]\n{\"a\": 3}\n\"t\"\n{\"a\": 4, \"s\": \"\xff\"}\n".to_vec();
    text.extend_from_slice(
        b"{\"a\": 5}{\"a\": 6}\n{\"a\": {\"k\": 1}}\n{\"a\": 1-2}\n\n{\"s\": \"\\ud800\"}\n{\"a\": 1e999}\n{\"a\": 7}\n{\"a\": 8",
    );
    let case = Case::new("a.jsonl", &text);
    let shard = case.stage().await;
    assert_eq!(types(&shard), pairs(&[("a", "Int64"), ("s", "Utf8View")]));
    assert_eq!(rows(&shard.location).await, json!([{"a": 1, "s": "x"}, {"a": 3, "s": null}, {"a": 7, "s": null}]));
    let bad = rejected(&shard).await;
    let numbers: Vec<u64> = bad.iter().map(|b| b.0).collect();
    assert_eq!(numbers, [2, 3, 5, 6, 7, 8, 9, 11, 12, 14]);
    let reasons: Vec<&str> = bad.iter().map(|b| b.1.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "not JSON: expected `,` or `}`",
            "not an object",
            "not an object",
            "not UTF-8",
            "not JSON: trailing characters",
            "value of `a` is not Int64",
            "not JSON: expected `,` or `}`",
            "not JSON: unexpected end of hex escape",
            "not JSON: number out of range",
            "not JSON: EOF while parsing an object",
        ]
    );
    assert_eq!(bad[0].2, "{\"a\": 2 \"s\": \"y\"}");
}

#[tokio::test]
async fn declared_types_hold_for_json() {
    let text = r#"{"a": 1.0, "b": "5", "c": "2013-01-01", "d": "2013-01-01T10:00:00", "e": 7, "f": 300}
{"a": 1.5}
{"b": "x"}
{"c": 5}
{"d": "tomorrow"}
{"f": -1}
{"e": {"k": 1}}
{"a": 1, "e": null}"#;
    let columns = json!({"a": "int64", "b": "int8", "c": "date", "d": "timestamp", "e": "utf8", "f": "uint16"});
    let case = Case::new("a.jsonl", text).with("columns", columns);
    let shard = case.stage().await;
    let t = [("a", "Int64"), ("b", "Int8"), ("c", "Date32"), ("d", "Timestamp(µs)"), ("e", "Utf8View"), ("f", "UInt16")];
    assert_eq!(types(&shard), pairs(&t));
    assert_eq!(rows(&shard.location).await[0], json!({"a": 1, "b": 5, "c": "2013-01-01", "d": "2013-01-01T10:00:00", "e": "7", "f": 300}));
    let reasons: Vec<String> = rejected(&shard).await.into_iter().map(|b| b.1).collect();
    let expected =
        ["`a` is not Int64", "`b` is not Int8", "`c` is not a date", "`d` is not a timestamp", "`f` is not UInt16", "`e` is not text"];
    assert_eq!(reasons, expected.map(|e| format!("value of {e}")));
    assert_eq!(shard.rows, 2);
}

#[tokio::test]
async fn an_odd_shape_does_not_decide_a_column() {
    let text = "{\"x\": {\"k\": 1}, \"l\": 5}\n{\"x\": 1, \"l\": [1]}\n{\"x\": 2, \"l\": [\"a\"]}\n{\"x\": 3, \"l\": [{}]}\n";
    let case = Case::new("a.jsonl", text);
    let shard = case.stage().await;
    assert_eq!(rows(&shard.location).await, json!([{"x": 1, "l": ["1"]}, {"x": 2, "l": ["a"]}]));
    assert_eq!(rejected(&shard).await.iter().map(|b| b.0).collect::<Vec<_>>(), [1, 4]);
}

#[tokio::test]
async fn unknown_columns_are_named() {
    for (name, text) in [("a.jsonl", "{\"tailnum\": 1}\n"), ("a.csv", "tailnum\n1\n")] {
        let e = Case::new(name, text).with("columns", json!({"tailnmu": "int64"})).error().await;
        assert_eq!(e.kind(), Kind::Spec);
        assert_eq!(e.message(), "`columns` names `tailnmu`, which the file lacks");
        assert_eq!(e.to_do(), Some("did you mean `tailnum`?"));
    }
}

#[tokio::test]
async fn files_that_are_something_else_say_so() {
    let cases: &[(&str, &[u8], &str)] = &[
        ("a.jsonl", b"", "the file is empty"),
        ("a.csv", b"", "the file is empty"),
        ("a.arrow", b"", "the file is empty"),
        ("a.csv", b"\xEF\xBB\xBF\n", "the file has no line"),
        ("a.json", b"[\n  {\"a\": 1},\n  {\"a\": 2}\n]\n", "the file is a JSON array, not JSON Lines"),
        ("a.json", b"{\n  \"a\": 1\n}\n", "no line of the file can be read; line 1: not JSON: EOF while parsing an object"),
        ("a.jsonl", b"\n\n", "the file has no records, so no columns"),
        ("a.jsonl", b"{}\n", "the file's objects have no columns"),
        ("a.jsonl", b"\xFF\xFE{\0", "the file is text in UTF-16"),
        ("a.csv", b"a,b,a\n1,2,3\n", "columns 1 and 3 of the header are both named `a`"),
        ("a.csv", b"a,,c\n1,2,3\n", "column 2 of the header has no name"),
        ("a.csv", b"a,b\r1,2\r", "the file's lines end in CR alone"),
        ("a.jsonl", b"{\"_row\": 1}\n", "the column name `_row` is Feedline's own"),
        ("a.arrow", b"no arrow at all", "the Arrow IPC file is cut short, or damaged"),
        ("a.jsonl.gz", b"{\"a\": 1}\n{\"a\": 2}\n", "the file cannot be unpacked: invalid gzip header"),
        ("a.jsonl.zst", b"{\"a\": 1}\n", "the file cannot be unpacked: Unknown frame descriptor"),
    ];
    for (name, bytes, message) in cases {
        let case = Case::new(name, bytes);
        let e = case.try_stage().await.unwrap_err();
        assert_eq!((e.message(), e.kind()), (*message, Kind::Input));
        assert!(case.glance().await.is_err());
    }
}

#[tokio::test]
async fn packed_files_that_are_cut_short_are_bad_as_a_whole() {
    let text: String = (0..20_000).map(|i| format!("{{\"a\": {}}}\n", i * 7919 % 10_007)).collect();
    for (name, bytes) in [("a.jsonl.gz", gz(text.as_bytes())), ("a.jsonl.zst", zstd::encode_all(text.as_bytes(), 1).unwrap())] {
        for keep in [bytes.len() - 1, bytes.len() / 2] {
            let e = Case::new(name, &bytes[..keep]).error().await;
            assert_eq!(e.kind(), Kind::Input);
            assert_eq!(e.message(), "the file is cut short: it ends in the middle of packed data");
        }
    }
}

#[tokio::test]
async fn long_lines_are_read_whole_and_rejected_ones_are_cut() {
    let long = "x".repeat(10 << 20);
    let text = format!("{{\"s\": \"{long}\"}}\n{{\"s\": \"{long}\n{{\"s\": \"ü\"}}\n");
    let case = Case::new("a.jsonl", &text);
    let shard = case.stage().await;
    let found = rows(&shard.location).await;
    assert_eq!((found[0]["s"].as_str().unwrap().len(), found[1]["s"].as_str()), (10 << 20, Some("ü")));
    let bad = rejected(&shard).await;
    assert_eq!((bad.len(), bad[0].0, bad[0].2.chars().count()), (1, 2, 4096));
}

#[tokio::test]
async fn csv_becomes_rows_with_the_types_of_all_records() {
    let text = "\u{feff}id,name,day,at,ok,x,none,zip\r\n\
                1,\"A, \"\"B\"\"\r\nC\",2013-01-01,2013-01-01T10:00:00Z,true,1,,007\r\n\
                \r\n\
                2,,2013-01-02,2013-01-01 12:00:00+02:00,False,2.5,,12\r\n";
    let case = Case::new("a.csv", text);
    let shard = case.stage().await;
    let t = [
        ("id", "Int64"),
        ("name", "Utf8View"),
        ("day", "Date32"),
        ("at", "Timestamp(µs)"),
        ("ok", "Boolean"),
        ("x", "Float64"),
        ("none", "Null"),
        ("zip", "Utf8View"),
    ];
    assert_eq!(types(&shard), pairs(&t));
    assert_eq!(
        rows(&shard.location).await,
        json!([
            {"id": 1, "name": "A, \"B\"\r\nC", "day": "2013-01-01", "at": "2013-01-01T10:00:00", "ok": true, "x": 1.0, "none": null, "zip": "007"},
            {"id": 2, "name": null, "day": "2013-01-02", "at": "2013-01-01T10:00:00", "ok": false, "x": 2.5, "none": null, "zip": "12"},
        ])
    );
}

#[tokio::test]
async fn a_bad_record_costs_no_other() {
    let text = b"a;b\n1;\"x\ny\"\n2\n3;z;z\n4;\"open\n5;w\n6;\"v\"\n\xff;u\n7;t\n8;\"last\n9;s";
    let case = Case::new("a.csv", text).with("delimiter", json!(";"));
    let shard = case.stage().await;
    assert_eq!(
        rows(&shard.location).await,
        json!([{"a": 1, "b": "x\ny"}, {"a": 5, "b": "w"}, {"a": 6, "b": "v"}, {"a": 7, "b": "t"}, {"a": 9, "b": "s"}])
    );
    let line = |n, reason: &str, text: &str| (n, reason.to_owned(), text.to_owned());
    assert_eq!(
        rejected(&shard).await,
        [
            line(4, "1 fields where 2 are expected", "2"),
            line(5, "3 fields where 2 are expected", "3;z;z"),
            line(6, "a quote is not closed", "4;\"open"),
            line(9, "not UTF-8", "\u{fffd};u"),
            line(11, "a quote is not closed", "8;\"last"),
        ]
    );
}

#[tokio::test]
async fn declared_types_hold_for_csv() {
    let text = "a,b,c,d\n1,1.5,1,2013-01-01\n300,2,true,2013-01-02\n2,x,0,2013-01-03\n3,,maybe,\n4, 5 ,,2013-13-01\n";
    let columns = json!({"a": "uint8", "b": "float32", "c": "boolean", "d": "timestamp"});
    let case = Case::new("a.csv", text).with("columns", columns);
    let shard = case.stage().await;
    assert_eq!(types(&shard), pairs(&[("a", "UInt8"), ("b", "Float32"), ("c", "Boolean"), ("d", "Timestamp(µs)")]));
    assert_eq!(rows(&shard.location).await, json!([{"a": 1, "b": 1.5, "c": true, "d": "2013-01-01T00:00:00"}]));
    let reasons: Vec<_> = rejected(&shard).await.into_iter().map(|b| (b.0, b.1)).collect();
    let expected = [(3, "`a` is not UInt8"), (4, "`b` is not Float32"), (5, "`c` is not Boolean"), (6, "`d` is not a timestamp")];
    assert_eq!(reasons, expected.map(|(n, e)| (n, format!("value of {e}"))));
}

#[tokio::test]
async fn without_a_header_columns_are_numbered() {
    let case = Case::new("a.csv", "1,x\n2,y\n").with("header", json!(false));
    let shard = case.stage().await;
    assert_eq!(rows(&shard.location).await, json!([{"column_1": 1, "column_2": "x"}, {"column_1": 2, "column_2": "y"}]));
    let e = Case::new("a.csv", "1\n").with("delimiter", json!("ü")).error().await;
    assert_eq!(e.kind(), Kind::Spec);
}

#[tokio::test]
async fn a_file_without_records_has_the_columns_that_are_known() {
    let case = Case::new("a.csv", "a,b\n").with("columns", json!({"b": "int64"}));
    let shard = case.stage().await;
    assert_eq!((shard.rows, types(&shard)), (0, pairs(&[("a", "Null"), ("b", "Int64")])));
    let case = Case::new("a.jsonl", "\n").with("columns", json!({"b": "int64"}));
    let shard = case.stage().await;
    assert_eq!((shard.rows, types(&shard)), (0, pairs(&[("b", "Int64")])));
}

fn table() -> RecordBatch {
    let texts: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("b")].into_iter().collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
        ("d", Arc::new(texts)),
        ("s", Arc::new(StringArray::from(vec!["x", "y", "a text longer than a view holds inline"]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}

fn ipc_file(file: bool, batches: &[RecordBatch]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let schema = batches[0].schema();
    if file {
        let mut to = arrow::ipc::writer::FileWriter::try_new(&mut bytes, &schema).unwrap();
        batches.iter().for_each(|b| to.write(b).unwrap());
        to.finish().unwrap();
    } else {
        let mut to = arrow::ipc::writer::StreamWriter::try_new(&mut bytes, &schema).unwrap();
        batches.iter().for_each(|b| to.write(b).unwrap());
        to.finish().unwrap();
    }
    bytes
}

#[tokio::test]
async fn arrow_files_and_streams_come_through() {
    for file in [true, false] {
        let case = Case::new("a.arrow", ipc_file(file, &[table(), table()]));
        let shard = case.stage().await;
        assert_eq!(types(&shard), pairs(&[("i", "Int64"), ("d", "Utf8View"), ("s", "Utf8View")]));
        let found = rows(&shard.location).await;
        assert_eq!(found.as_array().unwrap().len(), 6);
        assert_eq!(found[5], json!({"i": 3, "d": "b", "s": "a text longer than a view holds inline"}));
        let case = Case::new("a.arrow", ipc_file(file, &[table().slice(0, 0)]));
        let empty = case.stage().await;
        assert_eq!((empty.rows, types(&empty)), (0, types(&shard)));
    }
    let e = Case::new("a.arrow", ipc_file(true, &[table()])).with("columns", json!({"i": "int8"})).error().await;
    assert_eq!(e.kind(), Kind::Spec);
}

#[tokio::test]
async fn packed_arrow_buffers_are_read_and_not_trusted() {
    use arrow::ipc::CompressionType;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(std::iter::repeat_n(7, 2000)));
    let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
    for codec in [CompressionType::ZSTD, CompressionType::LZ4_FRAME] {
        let options = arrow::ipc::writer::IpcWriteOptions::default().try_with_compression(Some(codec)).unwrap();
        let mut bytes = Vec::new();
        let mut to = arrow::ipc::writer::StreamWriter::try_new_with_options(&mut bytes, &batch.schema(), options).unwrap();
        to.write(&batch).unwrap();
        to.finish().unwrap();
        let case = Case::new("a.arrow", &bytes);
        assert_eq!(rows(&case.stage().await.location).await[1999], json!({"n": 7}));
        // The size before packing stands in front of the packed bytes.
        let size = 16_000_i64.to_le_bytes();
        let at = (0..bytes.len() - 8).rev().find(|at| bytes[*at..*at + 8] == size).unwrap();
        bytes[at..at + 8].copy_from_slice(&(1_i64 << 60).to_le_bytes());
        let e = Case::new("a.arrow", &bytes).error().await;
        assert_eq!(e.message(), "the Arrow IPC file is damaged: the sizes of its values contradict each other");
    }
}

#[tokio::test]
async fn a_damaged_arrow_file_is_an_input_error() {
    for file in [true, false] {
        let whole = ipc_file(file, &[table(), table()]);
        // A stream may end between two messages; anywhere else the end is a cut.
        for keep in (9..whole.len() - if file { 1 } else { 9 }).step_by(17) {
            if let Err(e) = Case::new("a.arrow", &whole[..keep]).try_stage().await {
                assert_eq!(e.kind(), Kind::Input, "{keep}: {e}");
            } else {
                assert!(!file, "{keep} of {} bytes passed", whole.len());
            }
        }
        // Whatever is overwritten, nothing ends but this file.
        for at in (0..whole.len()).step_by(11) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x5A;
            if let Err(e) = Case::new("a.arrow", &bytes).try_stage().await {
                assert_eq!(e.kind(), Kind::Input, "{at}: {e}");
            }
        }
    }
}

#[tokio::test]
async fn a_second_run_takes_up_what_the_first_one_read() {
    let case = Case::new("a.jsonl", "{\"a\": 1}\nbad\n");
    let first = case.stage().await;
    let local = first.location.local.clone().unwrap();
    let before = std::fs::metadata(&local).unwrap().modified().unwrap();
    let second = case.stage().await;
    assert_eq!(std::fs::metadata(&local).unwrap().modified().unwrap(), before);
    assert_eq!((&first.rejected, &first.fingerprint, first.rows), (&second.rejected, &second.fingerprint, second.rows));
    assert_eq!(first.rejected, [("not JSON: expected value".to_owned(), 1)]);
    assert_eq!(rejected(&second).await.len(), 1);
    // Another reading of the same file lies beside it.
    let third = case.with("columns", json!({"a": "float64"})).stage().await;
    assert_ne!(third.location.path, second.location.path);
}

#[tokio::test]
async fn a_half_done_reading_is_done_again() {
    let case = Case::new("a.csv", "a\n1\n");
    let staged = case.stage().await.location.local.unwrap();
    std::fs::write(&staged, "half").unwrap();
    std::fs::remove_file(staged.with_extension("json")).unwrap();
    assert_eq!(case.stage().await.rows, 1);
}

#[tokio::test]
async fn a_glance_reads_the_first_records_into_memory() {
    let text: String = (0..5000).map(|i| format!("{{\"a\": {i}}}\n")).collect::<String>() + "{\"late\": 1}\n";
    let case = Case::new("a.jsonl", &text).with("columns", json!({"late": "int8"}));
    let shard = case.glance().await.unwrap();
    assert_eq!((shard.rows, shard.bytes), (1000, text.len() as u64));
    assert_eq!(types(&shard), pairs(&[("a", "Int64"), ("late", "Int8")]));
    assert!(shard.location.local.is_none() && !case.folder.path().join("out").exists());
    let many = ipc_file(false, &vec![table(); 500]);
    assert_eq!(Case::new("a.arrow", many).glance().await.unwrap().rows, 1000);
    let csv: String = "a\n".to_owned() + &"1\n".repeat(5000);
    assert_eq!(Case::new("a.csv", csv).glance().await.unwrap().rows, 1000);
}

async fn in_memory(name: &str, bytes: Vec<u8>) -> Found {
    let case = Case::new(name, &bytes);
    let mut found = case.found().await;
    let store = Arc::new(InMemory::new());
    found.location = Location::of(store, name);
    // Another object, whose ETag nobody has told.
    found.e_tag = None;
    found.location.store.put(&found.location.path, bytes.into()).await.unwrap();
    found
}

#[tokio::test]
async fn packing_store_and_threads_do_not_change_a_byte() {
    let text: String = (0..30_000).map(|i| format!("{{\"a\": {i}, \"s\": \"{}\"}}\n", i * i)).collect::<String>() + "bad\n";
    let csv: String = "a,s\n".to_owned() + &(0..30_000).map(|i| format!("{i},\"q {i}\"\n")).collect::<String>();
    for (ending, text) in [("jsonl", text), ("csv", csv)] {
        let bytes = text.as_bytes();
        let mut staged = Vec::new();
        for (packed, bytes) in [("", bytes.to_vec()), (".gz", gz(bytes)), (".zst", zstd::encode_all(bytes, 1).unwrap())] {
            let case = Case::new(&format!("a.{ending}{packed}"), &bytes);
            let shard = case.stage().await;
            staged.push(shard.location.read().await.unwrap().unwrap());
            let found = in_memory(&case.name, bytes.clone()).await;
            let at = Location::of(found.location.store.clone(), "d");
            let again = ingest(&found, &case.spec(), Some(&at), &FileKeys::default(), &Vault::default()).await.unwrap();
            assert_eq!((again.fingerprint, again.rejected), (shard.fingerprint, shard.rejected));
            staged.push(again.location.read().await.unwrap().unwrap());
        }
        assert!(staged.iter().all(|s| *s == staged[0]));
    }
}

#[tokio::test]
async fn a_missing_object_is_the_stores_error() {
    let mut found = in_memory("a.jsonl.gz", gz(b"{}")).await;
    found.location.path = "gone".into();
    let spec = Case::new("x", "").spec();
    assert_eq!(ingest(&found, &spec, None, &FileKeys::default(), &Vault::default()).await.unwrap_err().kind(), Kind::Storage);
}

/// Found by fuzzing: the Parquet footer is whole, but the Arrow schema in it has a type that makes the library panic.
#[tokio::test]
async fn a_reader_that_panics_is_a_damaged_file() {
    let e = Case::new("a.parquet", include_bytes!("../../../tests/damaged/schema-of-noise.parquet")).error().await;
    assert_eq!((e.kind(), e.message()), (Kind::Input, "the file is damaged: its reader gave up"));
}
