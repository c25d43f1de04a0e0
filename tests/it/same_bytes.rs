//! Rule 4: the same bytes, whatever ran it. Every stage of the registry goes through every shape of run.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use crate::support::Bench;

/// Rows with duplicates, nulls, outliers, near-duplicate texts, classes of unequal size, in a poor order.
fn dirty(first: i64, n: i64) -> RecordBatch {
    let ids: Vec<i64> = (first..first + n).map(|i| (i * 7919) % 1_000_003).collect();
    let text = |i: &i64| {
        format!(
            "Permission is hereby granted free of charge to person {} to deal with the {} software as they see fit",
            i % 40,
            ["old", "new"][(*i % 2) as usize]
        )
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("zone", Arc::new(ids.iter().map(|i| (i % 11 != 0).then(|| format!("Z{}", i % 13))).collect::<StringArray>())),
        ("id", Arc::new(Int64Array::from(ids.clone()))),
        ("key", Arc::new(ids.iter().map(|i| Some(i % 700)).collect::<Int64Array>())),
        (
            "x",
            Arc::new(
                ids.iter()
                    .map(|i| (i % 7 != 0).then_some(if i % 101 == 0 { 1e6 } else { (*i as f64).sin() * 50.0 }))
                    .collect::<Float64Array>(),
            ),
        ),
        ("y", Arc::new(ids.iter().map(|i| Some((*i as f64) / 3.0)).collect::<Float64Array>())),
        ("label", Arc::new(ids.iter().map(|i| Some(["no", "no", "no", "yes"][(*i % 4) as usize])).collect::<StringArray>())),
        ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(ids.iter().map(|i| i * 1_000_000)))),
        ("text", Arc::new(ids.iter().map(|i| Some(text(i))).collect::<StringArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}

/// Stages under test; each list is one pipeline.
const CASES: &[(&str, &str)] = &[
    ("filter, sample, select, rename", "[{filter: 'x > -20'}, {sample: {fraction: 0.7}}, {select: {drop: [at]}}, {rename: {y: why}}]"),
    ("sample rows", "[{sample: {rows: 500}}]"),
    ("dedup keys first", "[{dedup: {keys: [key], keep: first}}]"),
    ("dedup by order", "[{dedup: {keys: [key], keep: first, order_by: ['y desc']}}]"),
    ("dedup row and text", "[{dedup: {row: true}}, {dedup: {text: text}}]"),
    ("near_dedup", "[{near_dedup: {column: text, threshold: 0.7}}]"),
    (
        "split hash, clean, normalize, encode",
        "[{split: {by: hash, key: key, into: {train: 0.8, test: 0.2}}}, {clean: {outliers: {x: {method: zscore, threshold: 3, action: drop}}, fill_null: {x: mean, zone: mode}}}, {derive: {z: 'x * 2 + y'}}, {normalize: {standard: [x], minmax: [z], robust: [y]}}, {encode: {ordinal: [zone]}}]",
    ),
    (
        "split stratified, undersample",
        "[{split: {by: stratified, column: label, into: {train: 0.75, validation: 0.25}}}, {balance: {column: label, method: undersample}}]",
    ),
    (
        "split group, oversample, fit after copies",
        "[{split: {by: group, key: zone, into: {train: 0.6, test: 0.4}}}, {balance: {column: label, method: oversample}}, {normalize: {standard: [y]}}]",
    ),
    (
        "split time, weights",
        "[{split: {by: time, column: at, into: {train: 0.7, test: 0.3}}}, {balance: {column: label, method: weights}}]",
    ),
    ("join, concat", "[{concat: {with: more}}, {join: {with: zones, on: [zone], how: left}}]"),
    ("shuffle", "[{filter: 'key < 300'}, {shuffle: {}}]"),
    ("sql", "[{sql: 'select zone, label, count(*) as n, avg(y) as mean_y, sum(x) as sum_x from input group by zone, label'}]"),
    (
        "cast",
        "[{cast: {columns: {key: float64, label: utf8}}}, {clean: {outliers: {y: {method: iqr, action: clip}}, drop_nulls: [zone], fit_on: all}}]",
    ),
];

fn spec(stages: &str) -> String {
    format!(
        "apiVersion: feedline/v1\nname: same\nsources:\n  raw: {{ uri: 'raw/*.parquet' }}\n  more: {{ uri: more.parquet }}\n  zones: {{ uri: zones.parquet }}\nstages: {stages}\nsink: {{ uri: out, row_group_rows: 500 }}\nquarantine: {{ keep_rows: true }}\nseed: 11\n"
    )
}

#[test]
fn every_stage_gives_the_same_version_whatever_ran_it() {
    let bench = Bench::new();
    for part in 0..4 {
        bench.parquet(&format!("raw/part-{part}.parquet"), &dirty(part * 900, 1000));
    }
    bench.parquet("more.parquet", &dirty(50_000, 300));
    let zones: ArrayRef = Arc::new((0..13).map(|i| Some(format!("Z{i}"))).collect::<StringArray>());
    let sizes: ArrayRef = Arc::new((0..13).map(Some).collect::<Int64Array>());
    bench.parquet("zones.parquet", &RecordBatch::try_from_iter(vec![("zone", zones), ("size", sizes)]).unwrap());
    let shapes = [("1", "4GiB", "8192"), ("2", "256MiB", "1000"), ("2", "4GiB", "65536"), ("3", "512MiB", "7")];
    for (name, stages) in CASES {
        let mut hashes = Vec::new();
        for (threads, memory, batch) in shapes {
            let set = [("resources.threads", threads), ("resources.memory", memory), ("resources.batch_rows", batch)];
            let outcome = bench.run_with(&spec(stages), &set).unwrap_or_else(|e| panic!("{name}: {e}\n{:?}", e.to_do()));
            let m = outcome.manifest;
            assert!(m.rows.balances(), "{name}: {:?}", m.rows);
            assert!(m.rows.output > 0, "{name}: nothing came out");
            // Rows that a query does not give again are counted, but were never rejected by a decision.
            let decided = m.rows.rejected.values().flatten().filter(|(reason, _)| *reason != "not in the result");
            let rejected: u64 = decided.map(|(_, n)| n).sum();
            let kept: u64 = m.quarantine.iter().map(|q| q.rows).sum();
            assert_eq!(kept, rejected, "{name}: rows in quarantine against rows rejected");
            hashes.push(m.hash);
        }
        assert!(hashes.iter().all(|h| *h == hashes[0]), "{name}: {hashes:?}");
    }
}

#[test]
fn every_registered_stage_is_among_the_cases() {
    for def in feedline::stages::REGISTRY {
        assert!(CASES.iter().any(|(_, stages)| stages.contains(&format!("{{{}:", def.name))), "no case runs `{}`", def.name);
    }
}
