//! Whole runs over the less usual ways: text formats, sampled profiles, packed tokens.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use feedline::feed::{Feed, FeedOptions, spec_of};
use feedline::storage::Location;

use crate::support::{Bench, table};

fn spec(uri: &str, rest: &str) -> String {
    format!(
        "apiVersion: feedline/v1\nname: formats\nsources: {{ raw: {{ uri: {uri} }} }}\n{rest}\nsink: {{ uri: out, row_group_rows: 500 }}\n\
         quarantine: {{ keep_rows: true }}\nseed: 3\n"
    )
}

const SHAPES: [(&str, &str, &str); 3] = [("1", "4GiB", "8192"), ("2", "256MiB", "1000"), ("3", "512MiB", "7")];

fn put(bench: &Bench, path: &str, bytes: &[u8]) {
    let at = bench.path().join(path);
    std::fs::create_dir_all(at.parent().unwrap()).unwrap();
    if path.ends_with(".gz") {
        let mut packed = flate2::write::GzEncoder::new(std::fs::File::create(at).unwrap(), flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap();
    } else {
        std::fs::write(at, bytes).unwrap();
    }
}

/// Parquet, packed JSON Lines and CSV with the same rows: the same shards, byte for byte, whatever ran it.
#[test]
fn a_format_leaves_no_trace_in_the_shards() {
    let bench = Bench::new();
    for part in 0..2 {
        let rows = table(part * 700, 700);
        bench.parquet(&format!("parquet/{part}.parquet"), &rows);
        // With explicit nulls, so that the first line names all columns in their order.
        let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
        let mut lines = builder.build::<_, arrow::json::writer::LineDelimited>(Vec::new());
        lines.write(&rows).unwrap();
        lines.finish().unwrap();
        put(&bench, &format!("jsonl/{part}.jsonl.gz"), &lines.into_inner());
        let mut csv = Vec::new();
        arrow::csv::Writer::new(&mut csv).write(&rows).unwrap();
        put(&bench, &format!("csv/{part}.csv"), &csv);
    }
    let stages = "stages:\n  - dedup: { keys: [k, name] }\n  - split: { by: hash, key: id, into: { train: 0.8, test: 0.2 } }\n  \
                  - clean: { fill_null: { x: median } }\n  - filter: k <> 7\n  - normalize: { standard: [x] }";
    let mut shards = BTreeMap::new();
    for format in ["parquet", "jsonl", "csv"] {
        let mut hashes = Vec::new();
        for (threads, memory, batch) in SHAPES {
            let set = [("resources.threads", threads), ("resources.memory", memory), ("resources.batch_rows", batch)];
            let m = bench.run_with(&spec(format, stages), &set).unwrap().manifest;
            assert_eq!((m.rows.input, m.rows.output, m.quarantine.iter().map(|q| q.rows).sum::<u64>()), (1400, 1372, 28), "{format}");
            shards.insert(format, m.shards.iter().map(|s| (s.split.clone(), s.rows, s.sha256.clone())).collect::<Vec<_>>());
            hashes.push(m.hash);
        }
        assert!(hashes.iter().all(|h| *h == hashes[0]), "{format}: {hashes:?}");
    }
    assert_eq!(shards["jsonl"], shards["parquet"]);
    assert_eq!(shards["csv"], shards["parquet"]);
}

/// A line that cannot be read costs itself alone, and is accounted for and kept.
#[test]
fn lines_that_cannot_be_read_are_rejected_with_their_text() {
    let bench = Bench::new();
    put(&bench, "jsonl/a.jsonl.gz", b"{\"id\": 1}\n{\"id\": 2,}\n{\"id\": 3}\n");
    put(&bench, "csv/a.csv", b"id,name\n1,a\n2,b,c\n3,d\n");
    for format in ["jsonl", "csv"] {
        let m = bench.run(&spec(format, "stages: [{ filter: id > 1 }]")).unwrap().manifest;
        assert!(m.rows.balances());
        assert_eq!((m.rows.input, m.rows.output, m.rows.rejected["source raw"].values().sum::<u64>()), (3, 1, 1), "{format}");
        assert_eq!(m.quarantine.iter().map(|q| q.rows).sum::<u64>(), 2, "{format}: the line and the filtered row");
    }
}

/// A sampled profile looks at the first 8,192 of every 131,072 rows, wherever batches are cut, and shapes no byte of the data.
#[test]
fn a_sampled_profile_looks_at_some_rows_and_changes_none() {
    let bench = Bench::new();
    bench.parquet("in/a.parquet", &table(0, 20_000));
    let stages = "stages: [{ filter: k > 4 }]";
    let mut hashes = Vec::new();
    let mut seen = Vec::new();
    for (profile, batch) in [("sample", "8192"), ("sample", "999"), ("full", "8192"), ("off", "8192")] {
        let outcome = bench.run_with(&spec("in", stages), &[("report.profile", profile), ("resources.batch_rows", batch)]).unwrap();
        hashes.push(outcome.manifest.hash);
        let report = outcome.report.unwrap().0;
        assert_eq!(report.profile.as_deref(), Some(profile));
        assert_eq!((report.rows.input, report.rows.output), (20_000, 18_000), "counts are of all rows");
        seen.push(report.columns);
    }
    assert!(hashes.iter().all(|h| *h == hashes[0]), "{hashes:?}");
    let rows = |columns: &[feedline::quality::report::ColumnReport]| -> Vec<(u64, u64)> {
        columns.iter().map(|c| (c.before.as_ref().unwrap().count, c.after.as_ref().unwrap().count)).collect()
    };
    assert_eq!(rows(&seen[0]), [(8192, 8192); 4]);
    assert_eq!(seen[0], seen[1], "the rows looked at do not depend on batches");
    assert_eq!(rows(&seen[2]), [(20_000, 18_000); 4]);
    assert!(seen[3].is_empty());
}

/// Documents of many lengths, from JSON Lines to packed rows: every token arrives once, in its document's order, and a state goes on where it was.
#[test]
fn packed_tokens_of_a_real_run_lose_nothing() {
    let bench = Bench::new();
    let document = |d: u32| -> Vec<u32> { (0..1 + d * 7 % 40).map(|i| d * 100 + i + 1).collect() };
    let lines: String = (0..300).map(|d| format!("{}\n", serde_json::json!({ "id": d, "tokens": document(d) }))).collect();
    put(&bench, "docs/a.jsonl.gz", lines.as_bytes());
    let feed = "feed: { batch_rows: 3, tokens: { column: tokens, length: 24, mode: pack, pad_id: 0 } }\nstages: [{ filter: id % 5 <> 0 }]";
    let m = bench.run(&spec("docs", feed)).unwrap().manifest;
    let root = Location::open("out", bench.path()).unwrap();
    let open = |options| Feed::open(&root, &m, &spec_of(&m).unwrap(), options).unwrap();

    let mut pieces: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let (mut batches, mut states) = (Vec::new(), Vec::new());
    let mut whole = open(FeedOptions { window_rows: 50, ..Default::default() });
    while let Some(batch) = whole.next() {
        let batch = batch.unwrap();
        let tokens = batch.tokens().unwrap();
        let (segments, positions) = (tokens.segments.unwrap(), tokens.positions.unwrap());
        for (i, id) in tokens.ids.iter().enumerate() {
            assert_eq!(*id == 0, segments[i] == 0, "padding is in no segment");
            if *id != 0 {
                assert!(i % 24 == 0 || positions[i] == 0 || tokens.ids[i - 1] + 1 == *id, "a segment is one document's");
                pieces.entry((id - 1) / 100).or_default().push(*id);
            }
        }
        batches.push((batch.position(), tokens.ids.to_vec(), segments.to_vec()));
        states.push(whole.state());
    }
    let expected: BTreeMap<u32, Vec<u32>> = (0..300).filter(|d| d % 5 != 0).map(|d| (d, document(d))).collect();
    assert_eq!(pieces, expected);

    let middle = batches.len() / 2;
    let resumed = open(FeedOptions { resume: Some(states[middle].clone()), threads: 1, prefetch: 1, ..Default::default() });
    let rest: Vec<_> = resumed
        .map(|b| b.unwrap())
        .map(|b| (b.position(), b.tokens().unwrap().ids.to_vec(), b.tokens().unwrap().segments.unwrap().to_vec()))
        .collect();
    assert_eq!(rest, batches[middle + 1..]);
    assert!(Path::new(&bench.path().join("out")).exists());
}
