//! How fast a profile takes in values: a million of a kind, in batches of 8,192 rows.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use feedline::quality::profile::TableProfile;

const ROWS: usize = 1_000_000;
const BATCH: usize = 8_192;

fn hash(i: usize) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&(i as u64).to_le_bytes())
}

fn columns() -> Vec<(&'static str, ArrayRef)> {
    let words = ["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "VX", "FL", "AS", "F9", "YV", "HA", "OO"];
    vec![
        ("unique floats", Arc::new((0..ROWS).map(|i| Some(hash(i) as f64 / 7.0)).collect::<Float64Array>())),
        ("40 integers", Arc::new((0..ROWS).map(|i| Some((hash(i) % 40) as i32)).collect::<Int32Array>())),
        ("5,000 integers", Arc::new((0..ROWS).map(|i| Some((hash(i) % 5_000) as i32)).collect::<Int32Array>())),
        ("16 words", Arc::new((0..ROWS).map(|i| Some(words[hash(i) as usize % 16])).collect::<StringArray>())),
        ("unique text", Arc::new((0..ROWS).map(|i| Some(format!("flight-{:016x}", hash(i)))).collect::<StringArray>())),
    ]
}

fn profile(c: &mut Criterion) {
    let mut group = c.benchmark_group("profile");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(20);
    for (name, array) in columns() {
        let Ok(batch) = RecordBatch::try_from_iter([("c", array)]) else { continue };
        let batches: Vec<RecordBatch> = (0..ROWS).step_by(BATCH).map(|at| batch.slice(at, BATCH.min(ROWS - at))).collect();
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let mut profile = TableProfile::new(&batch.schema());
                for batch in &batches {
                    let done = profile.update(black_box(batch));
                    debug_assert!(done.is_ok());
                }
                profile
            });
        });
    }
    group.finish();
}

criterion_group!(benches, profile);
criterion_main!(benches);
