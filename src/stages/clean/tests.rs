use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{Field, Float64Type, Schema};
use serde_json::{Value, json};

use super::*;
use crate::stages::column_testing::{Outcome, apply, batch, learn, lower, lower_below, mistakes, run, run_with, stage};
use crate::stages::golden::cases;
use crate::stages::step::Fits;

fn clean(options: Value, rows: &RecordBatch) -> Outcome {
    run(&stage::<Clean>(options), rows).unwrap()
}

fn floats(values: Vec<Option<f64>>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

#[test]
fn fills_are_those_of_scikit_learn() {
    for case in cases("imputers") {
        let input = if case.has("moments") { case.floats("input") } else { case.texts("input") };
        let rows = batch(vec![("x", input)]);
        let out = run(&stage::<Clean>(json!({ "fill_null": { "x": "mode" } })), &rows).unwrap();
        if !case.has("moments") {
            let made: Vec<Value> = out.batch.column(0).as_string_view().iter().map(|v| json!(v)).collect();
            assert_eq!(made, case.list("most_frequent"));
            continue;
        }
        case.assert_close(out.batch.column(0), "most_frequent", 0.0);
        for strategy in ["mean", "median"] {
            let out =
                run_with(&stage::<Clean>(json!({ "fill_null": { "x": strategy } })), &rows, &|fit, _| case.learned(&fit.kind)).unwrap();
            case.assert_close(out.batch.column(0), strategy, 1e-15);
        }
    }
}

#[test]
fn outliers_are_those_of_scipy_and_numpy() {
    for case in cases("outliers") {
        let rows = batch(vec![("x", case.floats("input"))]);
        for (outlier, expected) in [
            (json!({ "method": "zscore", "threshold": 2, "action": "drop" }), "zscore_2"),
            (json!({ "method": "iqr", "action": "drop" }), "iqr"),
            (json!({ "method": "bounds", "lower": 0, "upper": 10, "action": "drop" }), "bounds_0_10"),
        ] {
            let out = run_with(&stage::<Clean>(json!({ "outliers": { "x": outlier } })), &rows, &|fit, _| case.learned(&fit.kind)).unwrap();
            let rejected: Vec<u64> = out.rejected.iter().map(|(row, _)| *row).collect();
            assert_eq!(rejected, case.marked(expected), "{expected} of {}", case.name());
        }
        let clip = json!({ "outliers": { "x": { "method": "iqr", "action": "clip" } } });
        let out = run_with(&stage::<Clean>(clip), &rows, &|fit, _| case.learned(&fit.kind)).unwrap();
        case.assert_close(out.batch.column(0), "iqr_clipped", 1e-15);
    }
}

#[test]
fn the_order_is_always_the_same() {
    let rows = batch(vec![
        ("tailnum", Arc::new(StringArray::from(vec![Some(" N1 "), Some(" "), None, Some("N4")]))),
        ("delay", floats(vec![Some(10.0), Some(9999.0), None, Some(20.0)])),
        ("air", Arc::new(Int64Array::from(vec![Some(1), Some(2), None, None]))),
    ]);
    let out = clean(
        json!({
            "drop_nulls": ["tailnum"],
            "fill_null": { "delay": "mean", "air": 7 },
            "outliers": { "delay": { "method": "bounds", "upper": 1000, "action": null } },
            "text": { "empty_to_null": true },
        }),
        &rows,
    );
    // 9999 was gone before the mean was taken; the blank became null before rows were dropped.
    assert_eq!(out.batch.column(1), &floats(vec![Some(10.0), Some(20.0)]));
    assert_eq!(out.batch.column(0).as_string_view().iter().flatten().collect::<Vec<_>>(), ["N1", "N4"]);
    assert_eq!(out.batch.column(2).as_ref(), &Int64Array::from(vec![1, 7]) as &dyn Array);
    assert_eq!(out.rejected, [(1, "null in tailnum".to_owned()), (2, "null in tailnum".to_owned())]);
    let FitsOf(keys) = FitsOf::new(&out.fits);
    assert_eq!(keys, ["stage/fill_null/moments(delay)"]);
}

struct FitsOf<'a>(Vec<&'a str>);
impl<'a> FitsOf<'a> {
    fn new(fits: &'a Fits) -> Self {
        Self(fits.keys().map(String::as_str).collect())
    }
}

#[test]
fn reasons_say_which_column_and_why() {
    let rows = batch(vec![
        ("a", floats(vec![Some(0.0), Some(1.0), Some(0.0), Some(100.0)])),
        ("b", floats(vec![Some(-1.0), Some(0.0), Some(5.0), Some(0.0)])),
        ("c", floats(vec![Some(0.0), None, Some(f64::NAN), Some(0.0)])),
    ]);
    let out = clean(
        json!({
            "outliers": {
                "a": { "method": "zscore", "threshold": 1.5, "action": "drop" },
                "b": { "method": "bounds", "lower": 0, "action": "drop" },
            },
            "drop_nulls": true,
        }),
        &rows,
    );
    let said: Vec<_> = out.rejected.iter().map(|(row, why)| (*row, why.as_str())).collect();
    assert_eq!(said, [(0, "b: outlier (below 0)"), (3, "a: outlier (zscore > 1.5)"), (1, "null in c"), (2, "null in c")]);
    let both = batch(vec![("x", floats(vec![Some(11.0), Some(5.0)]))]);
    let reason = |outlier: Value| clean(json!({ "outliers": { "x": outlier } }), &both).rejected[0].1.clone();
    assert_eq!(reason(json!({ "method": "bounds", "lower": 6.5, "upper": 20, "action": "drop" })), "x: outlier (outside 6.5 to 20)");
    assert_eq!(reason(json!({ "method": "bounds", "upper": 10, "action": "drop" })), "x: outlier (above 10)");
}

#[test]
fn clipping_keeps_the_type() {
    let ints: ArrayRef = Arc::new(Int8Array::from(vec![Some(-100), Some(3), None, Some(100)]));
    let clipped = |array: &ArrayRef, lower: f64, upper: f64| {
        let options = json!({ "outliers": { "x": { "method": "bounds", "lower": lower, "upper": upper, "action": "clip" } } });
        clean(options, &batch(vec![("x", array.clone())])).batch.column(0).clone()
    };
    let same: ArrayRef = Arc::new(Int8Array::from(vec![Some(-2), Some(3), None, Some(9)]));
    assert_eq!(&clipped(&ints, -2.5, 9.5), &same, "whole limits inside");
    assert_eq!(&clipped(&ints, -1000.0, 1000.0), &ints);
    let none_inside: ArrayRef = Arc::new(Int8Array::from(vec![Some(2), Some(3), None, Some(3)]));
    assert_eq!(&clipped(&ints, 2.4, 2.6), &none_inside, "the nearest where none lies inside");
    let decimals = Decimal128Array::from(vec![Some(-100), Some(150), None]).with_precision_and_scale(10, 2).unwrap();
    let expected: ArrayRef = Arc::new(Decimal128Array::from(vec![Some(25), Some(125), None]).with_precision_and_scale(10, 2).unwrap());
    assert_eq!(&clipped(&(Arc::new(decimals) as ArrayRef), 0.25, 1.25), &expected);
    let narrow: ArrayRef = Arc::new(Decimal128Array::from(vec![Some(-999), Some(5)]).with_precision_and_scale(3, 2).unwrap());
    assert_eq!(&clipped(&narrow, -50.0, 50.0), &narrow, "limits beyond the type");
    let f32s: ArrayRef = Arc::new(Float32Array::from(vec![0.5, f32::NAN, f32::INFINITY]));
    let made = clipped(&f32s, 1.0, 2.0);
    let made = made.as_primitive::<arrow::datatypes::Float32Type>();
    assert!(made.value(0) == 1.0 && made.value(1).is_nan() && made.value(2) == 2.0);
}

#[test]
fn nan_is_missing_and_no_outlier() {
    let rows = batch(vec![("x", floats(vec![Some(f64::NAN), None, Some(2.0), Some(4.0)]))]);
    let out =
        clean(json!({ "outliers": { "x": { "method": "bounds", "upper": 3, "action": null } }, "fill_null": { "x": "median" } }), &rows);
    assert_eq!(out.batch.column(0), &floats(vec![Some(2.0), Some(2.0), Some(2.0), Some(2.0)]));
    assert!(out.rejected.is_empty());
}

#[test]
fn integers_filled_with_a_mean_become_floats() {
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(2)]));
    let rows = batch(vec![("a", ints.clone()), ("b", ints.clone()), ("c", ints.clone()), ("d", ints)]);
    let out = clean(json!({ "fill_null": { "a": "mean", "b": "median", "c": "mode", "d": { "value": -1 } } }), &rows).batch;
    assert_eq!(out.column(0), &floats(vec![Some(1.0), Some(1.5), Some(2.0)]));
    assert_eq!(out.column(1), &floats(vec![Some(1.0), Some(1.5), Some(2.0)]));
    assert_eq!(out.column(2).as_ref(), &Int32Array::from(vec![1, 1, 2]) as &dyn Array, "of equally frequent ones the smallest");
    assert_eq!(out.column(3).as_ref(), &Int32Array::from(vec![1, -1, 2]) as &dyn Array);
}

#[test]
fn the_mode_compares_values_and_not_texts() {
    let rows = batch(vec![
        ("n", Arc::new(Int64Array::from(vec![Some(10), Some(9), Some(10), Some(9), None]))),
        ("d", Arc::new(Date32Array::from(vec![Some(2), Some(1), Some(1), None, None]))),
        ("f", Arc::new(BooleanArray::from(vec![Some(true), None, None, None, Some(true)]))),
        ("x", floats(vec![Some(f64::NAN), Some(f64::NAN), Some(3.0), None, None])),
    ]);
    let out = clean(json!({ "fill_null": { "n": "mode", "d": "mode", "f": "mode", "x": "mode" } }), &rows).batch;
    assert_eq!(out.column(0).as_ref(), &Int64Array::from(vec![10, 9, 10, 9, 9]) as &dyn Array);
    assert_eq!(out.column(1).as_ref(), &Date32Array::from(vec![2, 1, 1, 1, 1]) as &dyn Array);
    assert_eq!(out.column(2).null_count(), 0);
    assert_eq!(out.column(3), &floats(vec![Some(3.0); 5]));
}

#[test]
fn a_text_may_look_like_a_statistic() {
    let rows = batch(vec![("t", Arc::new(StringViewArray::from(vec![Some("a"), None])))]);
    let filled = |fill: Value| clean(json!({ "fill_null": { "t": fill } }), &rows).batch.column(0).as_string_view().value(1).to_owned();
    assert_eq!(filled(json!({ "value": "mean" })), "mean");
    assert_eq!(filled(json!("unknown")), "unknown");
    assert_eq!(filled(json!("mode")), "a");
}

#[test]
fn empty_and_all_null_columns_pass() {
    let options = json!({
        "text": {},
        "outliers": { "a": { "method": "zscore", "action": "drop" }, "b": { "method": "iqr", "action": "clip" } },
        "fill_null": { "a": "mean", "b": "median", "c": "mode", "t": "mode" },
    });
    let nulls = |n| {
        batch(vec![
            ("a", new_null_array(&DataType::Float64, n)),
            ("b", new_null_array(&DataType::Int64, n)),
            ("c", new_null_array(&DataType::Int64, n)),
            ("t", new_null_array(&DataType::Utf8, n)),
        ])
    };
    for n in [0, 3] {
        let out = clean(options.clone(), &nulls(n));
        assert_eq!(out.batch.num_rows(), n);
        assert!(out.batch.columns().iter().all(|c| c.null_count() == n && out.rejected.is_empty()));
    }
}

#[test]
fn rebatching_changes_nothing() {
    let all = batch(vec![
        ("x", Arc::new(Float64Array::from_iter((0..100).map(|i| (i % 7 != 0).then(|| f64::from(i * i % 61)))))),
        ("t", Arc::new(StringArray::from_iter((0..100).map(|i| (i % 5 != 0).then(|| format!(" {i}\u{0}  x ")))))),
    ]);
    let options = json!({
        "text": { "whitespace": "collapse" },
        "outliers": { "x": { "method": "iqr", "threshold": 0.5, "action": "clip" } },
        "fill_null": { "x": "mean" },
        "drop_nulls": ["t"],
    });
    let steps = lower(&stage::<Clean>(options), &all.schema()).unwrap();
    let whole = apply(&steps, &all, &|fit, rows| learn(fit, rows)).unwrap();
    let known = |fit: &Fit, _: &RecordBatch| whole.fits[&fit.key].clone();
    let parts: Vec<RecordBatch> =
        (0..100).step_by(9).map(|i| apply(&steps, &all.slice(i, 9.min(100 - i)), &known).unwrap().batch).collect();
    assert_eq!(arrow::compute::concat_batches(&whole.batch.schema(), &parts).unwrap(), whole.batch);
    assert!(whole.batch.column(0).as_primitive::<Float64Type>().null_count() == 0);
}

#[test]
fn all_mistakes_come_at_once() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("delay", DataType::Float64, true),
        Field::new("count", DataType::Int64, true),
        Field::new("carrier", DataType::Utf8View, true),
    ]));
    let said = mistakes(
        &stage::<Clean>(json!({
            "text": { "columns": ["delay"] },
            "outliers": {
                "carrier": { "method": "iqr", "action": "drop" },
                "delay": { "method": "bounds", "threshold": 1, "action": "drop" },
                "count": { "method": "zscore", "lower": 1, "threshold": 0, "action": "drop" },
            },
            "fill_null": { "carier": "x", "carrier": "mean", "delay": "medain", "count": 1.5 },
            "drop_nulls": ["delya"],
        })),
        &schema,
    );
    for start in [
        "/text/columns/0: column `delay` is Float64, which is not text",
        "/outliers/carrier: column `carrier`",
        "/outliers/delay/threshold: `bounds` has no threshold",
        "/outliers/delay: `bounds` needs",
        "/outliers/count/lower: only `bounds`",
        "/outliers/count/threshold: the threshold must",
        "/fill_null/carier: no column `carier`",
        "/fill_null/carrier: column `carrier` is Utf8View, which has no mean",
        "/fill_null/count: 1.5 is no value of the type Int64",
        "/drop_nulls/0: no column `delya`",
    ] {
        assert!(said.iter().any(|m| m.starts_with(start)), "{start} in {said:#?}");
    }
    assert!(said.iter().any(|m| m.starts_with("/fill_null/delay") && m.ends_with("did you mean `median`?")), "{said:#?}");
    assert!(mistakes(&stage::<Clean>(json!({})), &schema)[0].contains("nothing to do"));
    let leaks = json!({ "fill_null": { "delay": "mean" }, "outliers": { "count": { "method": "iqr", "action": "clip" } } });
    assert_eq!(lower_below(&stage::<Clean>(leaks), &schema, None).unwrap_err().len(), 1);
    assert!(lower_below(&stage::<Clean>(json!({ "fill_null": { "delay": 0 } })), &schema, None).is_ok());
}
