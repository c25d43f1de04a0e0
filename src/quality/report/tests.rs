//! A small report, told in full; and one of real flights, to be looked at.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Schema};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};

use super::*;
use crate::quality::leakage::leakage;
use crate::quality::profile::TableProfile;

fn summary(columns: Vec<(&str, ArrayRef)>) -> TableSummary {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap();
    let mut profile = TableProfile::new(&batch.schema());
    profile.update(&batch).unwrap();
    profile.summary()
}

/// Two columns, two stages, two splits, and every kind of trouble; names that would break a careless page.
pub(in crate::quality) fn small() -> Report {
    let text = |values: [Option<&str>; 5]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let before = summary(vec![
        ("<script>\"", text([Some("a"), Some("<b>&"), Some(" a"), None, Some("a")])),
        ("price", Arc::new(Float64Array::from(vec![1.0, 2.0, f64::NAN, 4.0, 1000.0]))),
    ]);
    let after = summary(vec![
        ("<script>\"", text([Some("a"), Some("<b>&"), Some("a"), None, None]).slice(0, 3)),
        ("price", Arc::new(Float64Array::from(vec![-1.0, 0.0, 1.0]))),
        ("new' col", Arc::new(Int8Array::from(vec![None, None, None]))),
    ]);
    let splits = [("train", 2), ("test", 1)];
    let by_split = |counts: [u64; 2]| splits.iter().zip(counts).map(|((name, _), n)| ((*name).to_owned(), n)).collect::<IndexMap<_, _>>();
    let mut report = Report {
        format: FORMAT.to_owned(),
        pipeline: "small".to_owned(),
        version: Some(3),
        hash: Some("ab12".to_owned()),
        feedline: "0.1.0".to_owned(),
        rows: RowCounts { input: 5, added: 1, rejected: 3, output: 3 },
        sources: vec![SourceReport {
            name: "raw".to_owned(),
            uri: "data/*.parquet".to_owned(),
            shards: 1,
            rows: 5,
            bytes: 2_048,
            columns: 2,
            bad_shards: vec![BadShard { path: "x.parquet".to_owned(), reason: "no footer".to_owned(), action: "skip".to_owned() }],
        }],
        stages: vec![
            StageReport {
                label: "filter".to_owned(),
                name: "filter".to_owned(),
                description: "price < 100 & <ok>".to_owned(),
                rows_in: 5,
                rejected: IndexMap::from([("condition is false".to_owned(), 1), ("condition is null".to_owned(), 2)]),
                rows_out: 2,
                ..StageReport::default()
            },
            StageReport {
                label: "balance".to_owned(),
                name: "balance".to_owned(),
                rows_in: 2,
                added: 1,
                rows_out: 3,
                ..StageReport::default()
            },
        ],
        splits: splits
            .iter()
            .map(|(name, rows)| SplitReport { name: (*name).to_owned(), rows: *rows, share: *rows as f64 / 3.0 })
            .collect(),
        label: Some(LabelReport {
            column: "y".to_owned(),
            values: vec![
                LabelValue { value: "yes".to_owned(), by_split: by_split([1, 1]) },
                LabelValue { value: "no".to_owned(), by_split: by_split([1, 0]) },
            ],
            others: None,
        }),
        leakage: vec![Leakage {
            keys: vec!["id".to_owned()],
            distinct: 2,
            leaked: 1,
            share: 0.5,
            rows: 2,
            pairs: vec![LeakPair { a: "test".to_owned(), b: "train".to_owned(), leaked: 1 }],
            examples: vec![LeakExample { key: vec!["7".to_owned()], splits: vec!["test".to_owned(), "train".to_owned()] }],
        }],
        columns: Report::columns_of(Some(&before), Some(&after)),
        fits: IndexMap::from([("normalize#1/moments(price)".to_owned(), "mean 2.3, deviation 1.2".to_owned())]),
        timings: vec![Timing { pass: "deliver".to_owned(), seconds: 0.25 }],
        ..Report::default()
    };
    report.warnings = report.find_warnings();
    report
}

#[test]
fn the_json_holds_everything_and_reads_back() {
    let report = small();
    insta::assert_snapshot!(report.to_json_pretty().unwrap());
    assert_eq!(Report::from_json(&report.to_json_pretty().unwrap()).unwrap(), report);
}

#[test]
fn other_formats_and_other_texts_are_refused() {
    let other = small().to_json_pretty().unwrap().replace(FORMAT, "feedline-report/v9");
    assert!(Report::from_json(&other).unwrap_err().to_string().contains("v9"));
    assert!(Report::from_json("[]").unwrap_err().to_do().is_some());
    let least = Report::from_json(&format!(r#"{{"format":"{FORMAT}","pipeline":"p","seed":0,"feedline":"0"}}"#)).unwrap();
    assert!(least.columns.is_empty() && least.find_warnings().is_empty());
}

#[test]
fn the_terminal_gets_a_few_lines() {
    insta::assert_snapshot!(small().to_string());
}

#[test]
fn what_is_odd_is_warned_of() {
    let mut report = small();
    report.label = Some(LabelReport {
        column: "y".to_owned(),
        values: vec![LabelValue { value: "yes".to_owned(), by_split: IndexMap::from([("train".to_owned(), 3)]) }],
        others: None,
    });
    report.splits[1].rows = 0;
    let found: Vec<String> = report.find_warnings().into_iter().map(|w| format!("{}: {}", w.about, w.message)).collect();
    for expected in
        ["y: the label has one value", "test: this split has no rows", "new' col: every value is null", "filter: this stage rejected 60 %"]
    {
        assert!(found.iter().any(|w| w.starts_with(expected)), "{expected} in {found:#?}");
    }
}

fn data() -> Option<PathBuf> {
    let folder =
        std::env::var_os("FEEDLINE_DATA").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    folder.join("flights").is_dir().then_some(folder)
}

const CLEANED: &str = "
    SELECT arrow_cast(day, 'Int32') AS day, dep_time, sched_dep_time,
           (dep_delay - 12.6) / 40.2 AS dep_delay, arr_delay, carrier, flight, tailnum, origin, dest,
           coalesce(air_time, 129) AS air_time, distance / 4983.0 AS distance, time_hour,
           CASE WHEN arr_delay > 15 THEN 'late' ELSE 'on time' END AS delayed
    FROM flights WHERE dep_delay IS NOT NULL AND abs(arr_delay - 6.9) < 4 * 44.6";

/// Real flights, before and after a few steps, as a run of the engine would report them.
async fn flights(folder: &std::path::Path) -> Result<Report> {
    // One partition: rows come in their order, on which sketches depend.
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    session.register_parquet("flights", &format!("{}/flights", folder.display()), ParquetReadOptions::default()).await?;
    let of = async |sql: &str| -> Result<(TableSummary, Vec<RecordBatch>)> {
        let frame = session.sql(sql).await?;
        let mut profile = TableProfile::new(frame.schema().as_arrow());
        let batches = frame.collect().await?;
        batches.iter().try_for_each(|batch| profile.update(batch))?;
        Ok((profile.summary(), batches))
    };
    let (before, _) = of("SELECT * FROM flights").await?;
    let (after, rows) = of(CLEANED).await?;
    let count = async |sql: &str| -> Result<u64> { Ok(of(sql).await?.1.iter().map(|b| b.num_rows() as u64).sum()) };
    let present = count("SELECT day FROM flights WHERE dep_delay IS NOT NULL").await?;
    let (named, label) = split(&rows)?;
    let split_rows =
        |name: &str| named.iter().map(|b| b.column(1).as_string::<i32>().iter().filter(|s| *s == Some(name)).count() as u64).sum::<u64>();
    let leaked = leakage(session.read_batches(named.clone())?).await?;
    let stage = |label: &str, what: &str, rows_in: u64, rejected: &[(&str, u64)], rows_out: u64| StageReport {
        label: label.to_owned(),
        name: label.to_owned(),
        description: what.to_owned(),
        rows_in,
        rejected: rejected.iter().map(|(why, n)| ((*why).to_owned(), *n)).collect(),
        rows_out,
        added: 0,
    };
    let cut = present - after.rows;
    let mut report = Report {
        format: FORMAT.to_owned(),
        pipeline: "flights".to_owned(),
        description: Some("Will a flight out of New York arrive more than a quarter of an hour late?".to_owned()),
        version: Some(7),
        hash: Some("5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef".to_owned()),
        spec_hash: Some("9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0".to_owned()),
        seed: 7,
        feedline: env!("CARGO_PKG_VERSION").to_owned(),
        started: Some("2026-03-02T04:00:00Z".to_owned()),
        finished: Some("2026-03-02T04:00:03Z".to_owned()),
        rows: RowCounts { input: before.rows, added: 0, rejected: before.rows - after.rows, output: after.rows },
        sources: vec![SourceReport {
            name: "flights".to_owned(),
            uri: "data/flights/**/*.parquet".to_owned(),
            shards: 12,
            rows: before.rows,
            bytes: 5_800_000,
            columns: before.columns.len() as u64,
            bad_shards: vec![],
        }],
        stages: vec![
            stage("dedup", "by carrier, flight, time_hour; keeps the first", before.rows, &[], before.rows),
            stage("filter", "dep_delay IS NOT NULL", before.rows, &[("condition is false", before.rows - present)], present),
            stage("split", "by hash of tailnum into train 80 %, validation 10 %, test 10 %", present, &[], present),
            stage(
                "clean",
                "fills air_time with its median; drops outliers of arr_delay",
                present,
                &[("outlier in arr_delay", cut - cut / 3), ("null in arr_delay", cut / 3)],
                after.rows,
            ),
            stage("normalize", "standard: dep_delay; max: distance", after.rows, &[], after.rows),
        ],
        splits: ["train", "validation", "test"]
            .iter()
            .map(|name| SplitReport {
                name: (*name).to_owned(),
                rows: split_rows(name),
                share: split_rows(name) as f64 / after.rows as f64,
            })
            .collect(),
        label: Some(label),
        leakage: vec![leaked],
        columns: Report::columns_of(Some(&before), Some(&after)),
        profile: Some("full".to_owned()),
        fits: IndexMap::from([
            ("clean/quantiles(air_time)".to_owned(), "median 129 of 262,011 values".to_owned()),
            ("clean/moments(arr_delay)".to_owned(), "mean 6.895, deviation 44.63".to_owned()),
            ("normalize/moments(dep_delay)".to_owned(), "mean 12.64, deviation 40.21".to_owned()),
        ]),
        timings: [("read and decide", 0.41), ("fit", 0.12), ("deliver", 1.83), ("leakage", 0.05)]
            .map(|(pass, seconds)| Timing { pass: pass.to_owned(), seconds })
            .to_vec(),
        ..Report::default()
    };
    report.warnings = report.find_warnings();
    Ok(report)
}

/// Keys with their splits, a few flights of one aircraft gone astray; and the label by split.
fn split(rows: &[RecordBatch]) -> Result<(Vec<RecordBatch>, LabelReport)> {
    let mut label: IndexMap<String, IndexMap<String, u64>> = IndexMap::new();
    let mut named = Vec::new();
    for (n, batch) in rows.iter().enumerate() {
        let keys = arrow::compute::cast(batch.column_by_name("tailnum").unwrap(), &DataType::Utf8)?;
        let late = arrow::compute::cast(batch.column_by_name("delayed").unwrap(), &DataType::Utf8)?;
        let at = |key: &str, i: usize| match xxhash_rust::xxh3::xxh3_64(key.as_bytes()) % 10 {
            0 => "test",
            1 if n == 3 && i.is_multiple_of(97) => "train",
            1 => "validation",
            _ => "train",
        };
        let names: StringArray = keys.as_string::<i32>().iter().enumerate().map(|(i, key)| key.map(|key| at(key, i))).collect();
        for (value, name) in late.as_string::<i32>().iter().flatten().zip(names.iter().flatten()) {
            *label.entry(value.to_owned()).or_default().entry(name.to_owned()).or_default() += 1;
        }
        let batch = RecordBatch::try_from_iter(vec![("tailnum", keys), ("_split", Arc::new(names) as ArrayRef)])?;
        let known = arrow::compute::is_not_null(batch.column(0))?;
        named.push(filter_record_batch(&batch, &known)?);
    }
    label.sort_by(|_, a, _, b| b.values().sum::<u64>().cmp(&a.values().sum::<u64>()));
    let values = label.into_iter().map(|(value, by_split)| LabelValue { value, by_split }).collect();
    Ok((named, LabelReport { column: "delayed".to_owned(), values, others: None }))
}

#[tokio::test]
async fn real_flights_make_a_report() {
    let Some(folder) = data() else {
        println!("no flights to read: set FEEDLINE_DATA");
        return;
    };
    let report = flights(&folder).await.unwrap();
    assert_eq!(report.rows.input, 336_776);
    let column = |name: &str| report.columns.iter().find(|c| c.name == name).unwrap();
    // Golden values of Polars 1.x over the same files.
    let delay = column("dep_delay").before.as_ref().unwrap();
    assert_eq!(delay.nulls, 8_255);
    let n = delay.numbers.as_ref().unwrap();
    assert!((n.mean.unwrap() - 12.639_070_257_304_708).abs() < 1e-9 && (n.std.unwrap() - 40.210_0).abs() < 1e-3, "{n:?}");
    let tails = column("tailnum").before.as_ref().unwrap().distinct.unwrap();
    assert!(tails.low <= 4_043 && 4_043 <= tails.high, "{tails:?}");
    let carriers = column("carrier").before.as_ref().unwrap();
    assert_eq!((carriers.top[0].value.to_string().as_str(), carriers.top[0].count), ("UA", 58_665));
    assert!(report.leakage[0].leaked > 0 && report.leakage[0].distinct <= 4_043);
    let page = crate::quality::html::render(&report);
    std::fs::write(std::env::temp_dir().join("feedline-report.html"), &page).unwrap();
    assert!(page.len() < 400_000, "{} bytes", page.len());
    println!("{report}");
}

#[test]
fn columns_are_paired_by_name() {
    let table = |names: &[&str]| summary(names.iter().map(|name| (*name, new_null_array(&DataType::Int8, 1))).collect());
    let paired = Report::columns_of(Some(&table(&["a", "b"])), Some(&table(&["c", "b"])));
    let shape: Vec<_> = paired.iter().map(|c| (c.name.as_str(), c.before.is_some(), c.after.is_some())).collect();
    assert_eq!(shape, [("a", true, false), ("b", true, true), ("c", false, true)]);
    let none = Report::columns_of(None, Some(&TableProfile::new(&Schema::empty()).summary()));
    assert!(none.is_empty());
}
