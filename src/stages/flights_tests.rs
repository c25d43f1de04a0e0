//! Row stages on all flights out of New York City in 2013; the golden values come from DuckDB.

use std::fs::File;
use std::path::PathBuf;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;

use super::step::{ColumnWork, Step};
use super::testing::{Bench, Shape, named, verdicts};

const SHAPE: Shape = Shape { partitions: 2, batch: 8192 };

fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("FEEDLINE_DATA").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    if folder.join("flights").is_dir() {
        return Some(folder);
    }
    println!("no flights in {}: set FEEDLINE_DATA to test with them", folder.display());
    None
}

fn read(file: PathBuf, columns: &[&str]) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap();
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    let reader = builder.with_projection(mask).build().unwrap();
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().unwrap();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn flights(columns: &[&str]) -> Option<RecordBatch> {
    let folder = data()?;
    let months: Vec<_> = (1..=12).map(|m| read(folder.join(format!("flights/month={m:02}/part-0.parquet")), columns)).collect();
    Some(concat_batches(&months[0].schema(), &months).unwrap())
}

#[test]
fn dedup_keeps_as_many_rows_as_there_are_keys() {
    let Some(flights) = flights(&["carrier", "flight", "tailnum", "distance"]) else { return };
    let kept = |options| named(&verdicts(&Bench::new(&flights).decide("dedup", options), &flights, SHAPE).unwrap());
    // select count(*) from (select distinct carrier, flight, tailnum from flights)
    assert_eq!(kept(json!({"keys": ["carrier", "flight", "tailnum"]})).len(), 179_897);
    assert_eq!(kept(json!({"keys": ["tailnum"], "null_keys": "keep"})).len(), 4043 + 2512);
    // select sum(m) from (select max(distance) m from flights group by tailnum)
    let distance = flights.column_by_name("distance").unwrap().as_primitive::<Int64Type>();
    let longest = kept(json!({"keys": ["tailnum"], "order_by": ["distance desc"]}));
    assert_eq!(longest.len(), 4044);
    assert_eq!(longest.into_iter().map(|i| distance.value(i)).sum::<i64>(), 6_950_674);
}

#[test]
fn planes_join_by_lookup() {
    let Some(flights) = flights(&["year", "tailnum"]) else { return };
    let planes = read(data().unwrap().join("planes.parquet"), &["tailnum", "year", "seats"]);
    let bench = Bench::new(&flights).with_side("planes", &planes, 1 << 20);
    let steps = bench.lower("join", json!({"with": "planes", "on": "tailnum"})).unwrap();
    let [Step::Columns(columns)] = &steps[..] else { panic!("{steps:?}") };
    let ColumnWork::Arrow(make) = &columns.work else { panic!() };
    assert_eq!(columns.makes.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["year_planes", "seats"]);
    let made = make(&flights).unwrap();
    let seats = made[1].as_primitive::<Int64Type>();
    // select count(*) - count(seats), sum(seats) from flights left join planes using (tailnum)
    assert_eq!((seats.null_count(), seats.iter().flatten().sum::<i64>()), (52_606, 38_851_317));
    let anti = bench.decide("join", json!({"with": "planes", "on": "tailnum", "how": "anti"}));
    assert_eq!(named(&verdicts(&anti, &flights, SHAPE).unwrap()).len(), 336_776 - 52_606);
}

#[test]
fn airports_are_balanced_and_stratified() {
    let Some(flights) = flights(&["origin"]) else { return };
    let bench = Bench::new(&flights);
    let under = bench.decide("balance", json!({"column": "origin", "method": "undersample", "only": "all"}));
    assert_eq!(named(&verdicts(&under, &flights, SHAPE).unwrap()).len(), 336_776 - 3 * 104_662);
    let split = bench.decide("split", json!({"by": "stratified", "column": "origin", "into": {"train": 0.8, "test": 0.2}}));
    let codes = verdicts(&split, &flights, SHAPE).unwrap();
    // 120835, 111279 and 104662 flights: 96668 + 89023 + 83730 of them train
    assert_eq!(codes.iter().filter(|c| **c == Some(0)).count(), 96_668 + 89_023 + 83_730);
}
