//! Work over S3 whose every request takes 20 ms longer, against the same work without: many small shards and a few large ones.
//!
//! `cargo bench --bench s3`. The server is s3s-fs in this process, on loopback; requests are counted where they arrive. A scan opens all
//! footers and reads all columns of all rows, through the same code as a run's pass. A run looks for duplicates, splits, and writes a version to S3.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../tests/it/s3_server.rs"]
#[allow(dead_code)]
mod s3_server;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use feedline::crypt::Vault;
use feedline::engine::run::{RunOptions, idle, open_sources, run};
use feedline::progress::Progress;
use feedline::spec::Loaded;
use feedline::storage::Location;
use parquet::arrow::ArrowWriter;
use s3_server::{ACCESS_KEY, Asked, BUCKET, HttpPlan, S3Server, SECRET_KEY};

/// Rows of all shards together.
const ROWS: i64 = 4_000_000;
/// What each request waits.
const LATENCY: Duration = Duration::from_millis(20);
/// Paired scans; the median ratio is what counts.
const PAIRS: usize = 5;

fn main() {
    // `cargo test --benches` asks for a list.
    if std::env::args().any(|a| a == "--list" || a == "--test") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(dir.path());
    let keys = format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    std::fs::write(dir.path().join("keys"), keys).unwrap();
    println!("{:>6} {:>8} {:>8} {:>10} {:>10} {:>7} {:>18}", "", "shards", "MiB", "0 ms", "20 ms", "ratio", "readings a shard");
    for shards in [1000, 10] {
        let bytes = write(&server, shards);
        let mib = bytes as f64 / f64::from(1 << 20);
        for (name, work) in [("scan", scan as Work), ("run", whole_run)] {
            let (near, far, readings) = compare(&server, || work(dir.path(), &server, shards), &format!("of-{shards}/"));
            let ratio = far.as_secs_f64() / near.as_secs_f64();
            let seconds = |d: Duration| format!("{:.2} s", d.as_secs_f64());
            let readings = readings as f64 / shards as f64;
            println!("{name:>6} {shards:>8} {mib:>8.0} {:>10} {:>10} {ratio:>7.2} {readings:>18.1}", seconds(near), seconds(far));
        }
    }
}

/// Work over the shards below the server.
type Work = fn(&Path, &S3Server, i64) -> Duration;

/// Times of the pair with the median ratio, and the readings of objects below a folder.
fn compare(server: &S3Server, work: impl Fn() -> Duration, folder: &str) -> (Duration, Duration, u64) {
    server.plan(HttpPlan::default());
    work();
    let pair = || {
        server.plan(HttpPlan::default());
        let near = work();
        server.plan(HttpPlan { delay: LATENCY, ..Default::default() });
        (near, work())
    };
    let mut pairs: Vec<_> = (0..PAIRS).map(|_| pair()).collect();
    let ratio = |(near, far): &(Duration, Duration)| far.as_secs_f64() / near.as_secs_f64();
    pairs.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
    let (near, far) = pairs[PAIRS / 2];
    (near, far, server.count(Asked::Get, folder))
}

/// Writes the shards where the server serves them; gives their bytes.
fn write(server: &S3Server, shards: i64) -> u64 {
    let each = ROWS / shards;
    let folder = server.file(&format!("of-{shards}"));
    std::fs::create_dir_all(&folder).unwrap();
    let mut bytes = 0;
    for shard in 0..shards {
        let ids: Vec<i64> = (shard * each..(shard + 1) * each).collect();
        let mixed = |i: &i64| (*i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(Int64Array::from(ids.clone()))),
            ("x", Arc::new(Float64Array::from_iter_values(ids.iter().map(|i| mixed(i) as f64)))),
            ("y", Arc::new(Float64Array::from_iter_values(ids.iter().map(|i| (mixed(i) % 1000) as f64)))),
            ("name", Arc::new(ids.iter().map(|i| Some(format!("row {}", mixed(i) % 100_000))).collect::<StringArray>())),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let path = folder.join(format!("part-{shard:05}.parquet"));
        let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes += path.metadata().unwrap().len();
    }
    bytes
}

/// A pipeline over the shards, with more of its spec.
fn loaded(server: &S3Server, shards: i64, more: &str) -> Loaded {
    let endpoint = server.endpoint();
    let spec = format!(
        "apiVersion: feedline/v1\nname: scan\nsources: {{ s: {{ uri: 's3://{BUCKET}/of-{shards}' }} }}\nresources: {{ threads: 2 }}\n\
         stores: {{ 's3://': {{ endpoint: '{endpoint}', region: us-east-1, allow_http: true, credentials_file: keys }} }}\n{more}"
    );
    feedline::spec::load(&spec, "scan.yaml", &[], &|_| None).unwrap()
}

/// Waits for some work on two threads.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

/// Writes a version to S3, which is removed again.
fn whole_run(base: &Path, server: &S3Server, shards: i64) -> Duration {
    let more = format!(
        "sink: {{ uri: 's3://{BUCKET}/out' }}\nreport: {{ profile: off }}\nstages:\n  - dedup: {{ keys: [id] }}\n\
         \x20 - split: {{ by: hash, key: id, into: {{ train: 0.8, test: 0.2 }} }}\n"
    );
    let loaded = loaded(server, shards, &more);
    let begin = Instant::now();
    let outcome = block_on(run(&loaded, base, &RunOptions::default())).unwrap();
    let took = begin.elapsed();
    assert_eq!(outcome.manifest.rows.output as i64, ROWS / shards * shards);
    std::fs::remove_dir_all(server.file("out")).unwrap();
    took
}

/// Opens and reads everything, on two threads.
fn scan(base: &Path, server: &S3Server, shards: i64) -> Duration {
    let loaded = loaded(server, shards, "sink: { uri: out }\n");
    block_on(async {
        let begin = Instant::now();
        let sources = open_sources(&loaded, base, &Vec::new(), None, &Vault::default(), &Progress::default()).await.unwrap();
        let source = sources.values().next().unwrap();
        let live = idle(source, &loaded.pipeline.resources, Location::open("staging", base).unwrap());
        let view = live.view(0, None);
        let parts = live.deal(0, 2).into_iter().map(|units| {
            let mut rows = view.read(units, source.schema.clone()).unwrap();
            tokio::spawn(async move {
                let mut seen = 0;
                while let Some((_, batch)) = rows.next().await.unwrap() {
                    seen += batch.num_rows();
                }
                seen
            })
        });
        let seen: usize = futures::future::join_all(parts).await.into_iter().map(|part| part.unwrap()).sum();
        assert_eq!(seen as i64, ROWS / shards * shards);
        begin.elapsed()
    })
}
