//! A scan over S3 whose every request takes 20 ms longer, against the same scan without: many small shards and a few large ones.
//!
//! `cargo bench --bench s3_scan`. The server is s3s-fs in this process, on loopback; requests are counted where they arrive. A scan opens all
//! footers and reads all columns of all rows, through the same code as a run's pass.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../tests/it/s3_server.rs"]
#[allow(dead_code)]
mod s3_server;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use feedline::crypt::Vault;
use feedline::engine::run::{idle, open_sources};
use feedline::progress::Progress;
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
    println!("{:>14} {:>9} {:>10} {:>10} {:>7} {:>16}", "shards", "MiB", "0 ms", "20 ms", "ratio", "requests a shard");
    for shards in [1000, 10] {
        let bytes = write(&server, shards);
        scan(dir.path(), &server, shards);
        let mut pairs: Vec<(Duration, Duration)> = (0..PAIRS)
            .map(|_| {
                server.plan(HttpPlan::default());
                let near = scan(dir.path(), &server, shards);
                server.plan(HttpPlan { delay: LATENCY, ..Default::default() });
                (near, scan(dir.path(), &server, shards))
            })
            .collect();
        let requests = server.count(Asked::Get, &format!("of-{shards}/")) as f64 / shards as f64;
        let ratio = |(near, far): &(Duration, Duration)| far.as_secs_f64() / near.as_secs_f64();
        pairs.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        let middle = &pairs[PAIRS / 2];
        let seconds = |d: Duration| format!("{:.2} s", d.as_secs_f64());
        let mib = bytes as f64 / f64::from(1 << 20);
        println!("{shards:>14} {mib:>9.0} {:>10} {:>10} {:>7.2} {requests:>16.1}", seconds(middle.0), seconds(middle.1), ratio(middle));
    }
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

/// Opens and reads everything, on two threads.
fn scan(base: &Path, server: &S3Server, shards: i64) -> Duration {
    let endpoint = server.endpoint();
    let spec = format!(
        "apiVersion: feedline/v1\nname: scan\nsources: {{ s: {{ uri: 's3://{BUCKET}/of-{shards}' }} }}\nsink: {{ uri: out }}\n\
         resources: {{ threads: 2 }}\n\
         stores: {{ 's3://': {{ endpoint: '{endpoint}', region: us-east-1, allow_http: true, credentials_file: keys }} }}\n"
    );
    let loaded = feedline::spec::load(&spec, "scan.yaml", &[], &|_| None).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
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
