use std::collections::HashMap;

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::error::Error;
use crate::stages::step::Fits;
use crate::stages::testing::{Bench, SHAPES, columns, named, numbers, register, reshaped, run_decision, session};

const SMALL: u64 = 1000;
const LARGE: u64 = LOOKUP_BYTES + 1;

fn flights() -> RecordBatch {
    columns(vec![
        ("tail", Arc::new(StringArray::from(vec![Some("N1"), Some("N2"), None, Some("N9"), Some("N1")])) as _),
        ("year", Arc::new(Int32Array::from(vec![2013, 2014, 2013, 2013, 2014])) as _),
    ])
}

fn planes() -> RecordBatch {
    let tails: ArrayRef = Arc::new(StringArray::from(vec![Some("N2"), Some("N1"), None, Some("N3")]));
    columns(vec![
        ("tail", cast(&tails, &DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8))).unwrap()),
        ("year", Arc::new(Int16Array::from(vec![Some(1999), Some(1988), Some(1), Some(2)])) as _),
        ("seats", Arc::new(Int64Array::from(vec![Some(20), None, Some(7), Some(30)])) as _),
    ])
}

fn bench(bytes: u64, side: &RecordBatch) -> Bench {
    Bench::new(&flights()).with_side("planes", side, bytes)
}

/// The whole result of a join, by whichever way it takes: what stays of the rows, with the columns that come in.
fn joined(data: &RecordBatch, side: &RecordBatch, bytes: u64, options: serde_json::Value) -> Result<RecordBatch, Error> {
    let bench = Bench::new(data).with_side("planes", side, bytes);
    let mut results = SHAPES.map(|shape| -> Result<RecordBatch, Error> {
        let mut out = data.clone();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for step in bench.lower("join", options.clone()).unwrap() {
            out = match &step {
                Step::Decide(decide) => {
                    let session = session(shape);
                    register(&session, "planes", side, shape);
                    let verdicts = runtime.block_on(run_decision(decide, &out, shape, session))?;
                    let survivors = matches!(decide.gives, Gives::Survivors(_));
                    let stays = BooleanArray::from_iter(verdicts.iter().map(|v| Some(v.is_some() == survivors)));
                    arrow::compute::filter_record_batch(&out, &stays).unwrap()
                }
                Step::Columns(Columns { output, work: ColumnWork::Arrow(make), .. }) => {
                    let arrays = out.columns().iter().cloned().chain(make(&out)?).collect();
                    RecordBatch::try_new(output.clone(), arrays).unwrap()
                }
                Step::Reshape(reshape) => reshaped(reshape, &out, &[("planes", side)], shape)?,
                other => panic!("{other:?}"),
            };
        }
        Ok(out)
    });
    for i in 1..results.len() {
        match (&results[0], &results[i]) {
            (Ok(a), Ok(b)) => assert_eq!(a, b, "{:?}", SHAPES[i]),
            (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string()),
            (a, b) => panic!("{a:?} {b:?}"),
        }
    }
    std::mem::replace(&mut results[0], Err(Error::internal("taken")))
}

fn seats(batch: &RecordBatch) -> Vec<Option<i64>> {
    batch.column_by_name("seats").unwrap().as_primitive::<Int64Type>().iter().collect()
}

#[test]
fn small_and_large_sides_give_the_same_rows() {
    for how in ["left", "inner", "semi", "anti"] {
        let options = json!({"with": "planes", "on": ["tail"], "how": how});
        let small = joined(&flights(), &planes(), SMALL, options.clone()).unwrap();
        let large = joined(&flights(), &planes(), LARGE, options).unwrap();
        assert_eq!(small, large, "{how}");
        let rows = match how {
            "left" => 5,
            "anti" => 2,
            _ => 3,
        };
        assert_eq!(small.num_rows(), rows, "{how}");
    }
}

#[test]
fn columns_come_in_by_key_and_get_a_suffix_where_the_name_is_taken() {
    let out = joined(&flights(), &planes(), SMALL, json!({"with": "planes", "on": "tail"})).unwrap();
    let schema = out.schema();
    assert_eq!(schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["tail", "year", "year_planes", "seats"]);
    assert_eq!(seats(&out), [None, Some(20), None, None, None]);
    let years = out.column(2).as_primitive::<arrow::datatypes::Int16Type>();
    assert_eq!(years.iter().collect::<Vec<_>>(), [Some(1988), Some(1999), None, None, Some(1988)]);
    let out = joined(&flights(), &planes(), SMALL, json!({"with": "planes", "on": "tail", "columns": ["year"], "prefix": "p_"})).unwrap();
    assert_eq!(out.schema().field(2).name(), "p_year");
}

#[test]
fn keys_of_other_widths_and_names_match() {
    let side = columns(vec![
        ("y", Arc::new(UInt64Array::from(vec![2013, u64::MAX])) as _),
        ("seats", Arc::new(Int64Array::from(vec![1, 2])) as _),
    ]);
    for bytes in [SMALL, LARGE] {
        let out = joined(&flights(), &side, bytes, json!({"with": "planes", "on": {"year": "y"}, "how": "inner"})).unwrap();
        assert_eq!(seats(&out), [Some(1); 3]);
        assert_eq!(out.num_columns(), 3, "the key does not come twice");
    }
    let floats = |v: Vec<f64>| columns(vec![("x", Arc::new(Float64Array::from(v)) as ArrayRef)]);
    for bytes in [SMALL, LARGE] {
        let out = joined(
            &floats(vec![0.0, f64::NAN, 1.0]),
            &floats(vec![-0.0, -f64::NAN]),
            bytes,
            json!({"with": "planes", "on": "x", "how": "semi"}),
        );
        assert_eq!(out.unwrap().num_rows(), 2);
    }
}

#[test]
fn several_rows_with_one_key_are_an_error_or_the_first_or_all() {
    let side = columns(vec![
        ("tail", Arc::new(StringArray::from(vec!["N1", "N1", "N2", "N1"])) as _),
        ("seats", Arc::new(Int64Array::from(vec![1, 2, 3, 0])) as _),
    ]);
    for bytes in [SMALL, LARGE] {
        let of =
            |many: &str, how: &str| joined(&flights(), &side, bytes, json!({"with": "planes", "on": "tail", "how": how, "many": many}));
        let e = of("error", "left").unwrap_err();
        assert_eq!(e.message(), "source `planes` has several rows with one key: tail = N1");
        assert!(e.to_do().unwrap().contains("many: first"));
        assert_eq!(of("error", "semi").unwrap().num_rows(), 3, "whether there is a match is clear");
        assert_eq!(seats(&of("first", "left").unwrap()), [Some(1), Some(3), None, None, Some(1)]);
        assert_eq!(seats(&of("first", "inner").unwrap()), [Some(1), Some(3), Some(1)]);
        let all = [Some(1), Some(2), Some(0), Some(3), None, None, Some(1), Some(2), Some(0)];
        assert_eq!(seats(&of("all", "left").unwrap()), all);
    }
}

#[test]
fn empty_sides_and_rows_work() {
    let none = planes().slice(0, 0);
    for bytes in [SMALL, LARGE] {
        let out = joined(&flights(), &none, bytes, json!({"with": "planes", "on": "tail"})).unwrap();
        assert_eq!(seats(&out), [None; 5]);
        assert_eq!(joined(&flights(), &none, bytes, json!({"with": "planes", "on": "tail", "how": "inner"})).unwrap().num_rows(), 0);
        assert_eq!(joined(&flights().slice(0, 0), &planes(), bytes, json!({"with": "planes", "on": "tail"})).unwrap().num_rows(), 0);
    }
}

#[test]
fn a_side_that_was_not_loaded_is_our_own_fault() {
    let mut bench = bench(SMALL, &planes());
    bench.sides.get_mut("planes").unwrap().table = Default::default();
    let decide = bench.decide("join", json!({"with": "planes", "on": "tail", "how": "semi"}));
    let How::Rows(rows) = decide.how else { panic!() };
    let e = rows.bind(&flights().schema(), &Fits::new()).unwrap().codes(&flights()).unwrap_err();
    assert_eq!(e.kind(), crate::error::Kind::Internal);
}

#[test]
fn mistakes_come_all_at_once() {
    let bench = bench(SMALL, &planes());
    let of = |o: serde_json::Value| bench.mistakes("join", o);
    assert_eq!(
        of(json!({"with": "planes", "on": {"tale": "tail", "year": "tail", "tail": "tayl"}, "columns": ["seat", "seats"]})),
        [
            "/on/tale: no column `tale` reaches this stage (did you mean `tail`?)",
            "/on/year: key `year` is Int32 here and `tail` is Dictionary(Int16, Utf8) in `planes` (cast one above: `- cast: { columns: { … } }`)",
            "/on/tail: source `planes` has no column `tayl` (did you mean `tail`?)",
            "/columns/0: source `planes` has no column `seat` (did you mean `seats`?)",
        ]
    );
    assert!(of(json!({"with": "plans", "on": "tail"}))[0].contains("did you mean `planes`?"));
    assert!(of(json!({"with": "planes", "on": []}))[0].contains("no column is named"));
    assert!(of(json!({"with": "planes", "on": "tail", "columns": []}))[0].contains("does nothing"));
    assert!(of(json!({"with": "planes", "on": "tail", "suffix": ""}))[0].contains("the name `year` is taken"));
    assert!(of(json!({"with": "planes", "on": "tail", "how": "semi", "columns": ["seats"]}))[0].contains("bring no columns"));
    let below = self::bench(LARGE, &planes()).with_split();
    assert!(below.mistakes("join", json!({"with": "planes", "on": "tail"}))[0].contains("above the `split`"));
    assert!(below.lower("join", json!({"with": "planes", "on": "tail", "how": "semi"})).is_ok());
    assert!(Bench::new(&flights()).mistakes("join", json!({"with": "planes", "on": "tail"}))[0].contains("add it under `sources`"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_lookup_is_what_a_map_says(left in proptest::collection::vec(proptest::option::of(0i64..30), 0..200), right in proptest::collection::vec(proptest::option::of(0i64..30), 0..40)) {
        let mut first: HashMap<i64, i64> = HashMap::new();
        right.iter().enumerate().for_each(|(i, k)| { k.map(|k| first.entry(k).or_insert(i as i64)); });
        let data = numbers("k", left.iter().copied());
        let side = columns(vec![("k", Arc::new(Int64Array::from(right.clone())) as ArrayRef), ("seats", Arc::new(Int64Array::from_iter_values(0..right.len() as i64)))]);
        let expected: Vec<Option<i64>> = left.iter().map(|k| k.and_then(|k| first.get(&k).copied())).collect();
        for bytes in [SMALL, LARGE] {
            let out = joined(&data, &side, bytes, json!({"with": "planes", "on": "k", "many": "first"})).unwrap();
            prop_assert_eq!(seats(&out), expected.clone());
            let decide = Bench::new(&data).with_side("planes", &side, SMALL).decide("join", json!({"with": "planes", "on": "k", "how": "anti"}));
            let verdicts = crate::stages::testing::verdicts(&decide, &data, SHAPES[1]).unwrap();
            let matched: Vec<usize> = expected.iter().enumerate().filter_map(|(i, m)| m.is_some().then_some(i)).collect();
            prop_assert_eq!(named(&verdicts), matched);
        }
    }
}
