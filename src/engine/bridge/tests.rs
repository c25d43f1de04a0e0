use std::sync::Arc;

use arrow::array::types::{Float64Type, Int32Type, Int64Type};
use arrow::array::*;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use polars::prelude::{self as pl, lit};
use proptest::prelude::*;

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}

fn sql(text: &str) -> Expr {
    polars::sql::sql_expr(text).unwrap()
}

/// One array of every type that crosses over, four rows each, the third null.
fn every_type() -> Vec<(&'static str, ArrayRef)> {
    let ints = Int64Array::from(vec![Some(1), Some(-2), None, Some(4)]);
    let as_type = |t: DataType| arrow::compute::cast(&ints, &t).unwrap();
    let text = StringArray::from(vec![Some("a"), Some("a text longer than twelve bytes"), None, Some("ü")]);
    let small = UInt32Array::from(vec![Some(1), Some(2), None, Some(4)]);
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), Some(vec![]), None, Some(vec![Some(3)])]);
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
        vec![Some(vec![Some(1)]), Some(vec![None]), None, Some(vec![Some(3)])],
        1,
    );
    let structs = StructArray::from((
        vec![
            (Arc::new(Field::new("x", DataType::Int64, true)), Arc::new(ints.clone()) as ArrayRef),
            (Arc::new(Field::new("y", DataType::Utf8, true)), Arc::new(text.clone()) as ArrayRef),
        ],
        arrow::buffer::Buffer::from([0b1011u8]),
    ));
    let codes: DictionaryArray<Int32Type> = text.iter().collect();
    let text_as = |t: &DataType| arrow::compute::cast(&text, t).unwrap();
    vec![
        ("i8", as_type(DataType::Int8)),
        ("i16", as_type(DataType::Int16)),
        ("i32", as_type(DataType::Int32)),
        ("i64", Arc::new(ints.clone())),
        ("u8", arrow::compute::cast(&small, &DataType::UInt8).unwrap()),
        ("u16", arrow::compute::cast(&small, &DataType::UInt16).unwrap()),
        ("u32", Arc::new(small.clone())),
        ("u64", arrow::compute::cast(&small, &DataType::UInt64).unwrap()),
        ("f16", as_type(DataType::Float16)),
        ("f32", as_type(DataType::Float32)),
        ("f64", as_type(DataType::Float64)),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]))),
        ("utf8", Arc::new(text.clone())),
        ("large_utf8", text_as(&DataType::LargeUtf8)),
        ("view", text_as(&DataType::Utf8View)),
        ("binary", text_as(&DataType::Binary)),
        ("binary_view", text_as(&DataType::BinaryView)),
        (
            "fixed_binary",
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some([1u8, 2]), Some([3, 4]), None, Some([5, 6])].into_iter(), 2)
                    .unwrap(),
            ),
        ),
        ("date32", as_type(DataType::Int32).as_primitive::<Int32Type>().reinterpret_cast::<types::Date32Type>().into_array()),
        ("date64", as_type(DataType::Date64)),
        ("seconds", as_type(DataType::Timestamp(TimeUnit::Second, None))),
        ("micros", as_type(DataType::Timestamp(TimeUnit::Microsecond, None))),
        ("zoned", as_type(DataType::Timestamp(TimeUnit::Nanosecond, Some("America/New_York".into())))),
        ("time32", Arc::new(Time32SecondArray::from(vec![Some(1), Some(2), None, Some(4)]))),
        ("time64", Arc::new(Time64MicrosecondArray::from(vec![Some(1), Some(2), None, Some(4)]))),
        ("duration", as_type(DataType::Duration(TimeUnit::Millisecond))),
        ("decimal", as_type(DataType::Decimal128(20, 3))),
        ("decimal32", as_type(DataType::Decimal32(9, 2))),
        ("decimal256", as_type(DataType::Decimal256(30, 2))),
        ("list", Arc::new(lists)),
        ("fixed_list", Arc::new(fixed)),
        ("struct", Arc::new(structs)),
        ("dictionary", Arc::new(codes)),
        ("null", Arc::new(NullArray::new(4))),
    ]
}

trait IntoArray {
    fn into_array(self) -> ArrayRef;
}
impl<A: Array + 'static> IntoArray for A {
    fn into_array(self) -> ArrayRef {
        Arc::new(self)
    }
}

#[test]
fn every_type_comes_back_as_it_was_carried() {
    for (name, array) in every_type() {
        for (from, len) in [(0, 4), (1, 3), (2, 1), (1, 0), (3, 1)] {
            let one = batch(vec![(name, array.slice(from, len))]);
            let made = evaluate(&one, &[column(name)]).unwrap().remove(0);
            let expected = arrow::compute::cast(&array.slice(from, len), &carried(array.data_type()).unwrap()).unwrap();
            made.to_data().validate_full().unwrap();
            assert_eq!(&made, &expected, "{name}, rows {from}..{}", from + len);
            let inferred = infer(one.schema_ref(), &[("out".to_owned(), column(name))]).unwrap();
            assert_eq!(inferred[0].data_type(), made.data_type(), "{name}");
        }
    }
}

#[test]
fn what_polars_lacks_is_refused_by_name() {
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["k"]));
    let entries = StructArray::from(vec![
        (Arc::new(Field::new("keys", DataType::Utf8, false)), keys.clone()),
        (Arc::new(Field::new("values", DataType::Utf8, true)), keys.clone()),
    ]);
    let map = MapArray::new(
        Arc::new(Field::new("entries", entries.data_type().clone(), false)),
        arrow::buffer::OffsetBuffer::from_lengths([1]),
        entries,
        None,
        false,
    );
    let both = batch(vec![("tags", Arc::new(map)), ("k", keys)]);
    let e = evaluate(&both, &[column("tags")]).unwrap_err();
    assert!(e.to_string().starts_with("column `tags`: expressions cannot work with the type Map"), "{e}");
    // A column that no expression names never crosses over.
    assert_eq!(evaluate(&both, &[column("k")]).unwrap()[0].as_string_view().value(0), "k");
}

#[test]
fn a_string_view_is_not_copied() {
    let text = StringViewArray::from_iter_values((0..100).map(|i| format!("a text that does not fit in a view {i}")));
    let before = text.data_buffers()[0].as_ptr();
    let made = evaluate(&batch(vec![("t", Arc::new(text))]), &[column("t")]).unwrap().remove(0);
    assert_eq!(made.as_string_view().data_buffers()[0].as_ptr(), before);
    let numbers = Int64Array::from_iter_values(0..100);
    let before = numbers.values().as_ptr();
    let made = evaluate(&batch(vec![("n", Arc::new(numbers))]), &[column("n")]).unwrap().remove(0);
    assert_eq!(made.as_primitive::<Int64Type>().values().as_ptr(), before);
}

#[test]
fn literals_fill_every_row() {
    let three = batch(vec![("a", Arc::new(Int64Array::from(vec![1, 2, 3])))]);
    let made = evaluate(&three, &[number(7.0), column("a") + lit(1), lit(pl::NULL).cast(pl::DataType::String)]).unwrap();
    assert_eq!(made[0].as_primitive::<Float64Type>().values(), &[7.0, 7.0, 7.0]);
    assert_eq!(made[1].as_primitive::<Int64Type>().values(), &[2, 3, 4]);
    assert_eq!((made[2].data_type(), made[2].null_count()), (&DataType::Utf8View, 3));
    assert_eq!(evaluate(&three.slice(0, 0), &[number(7.0)]).unwrap()[0].len(), 0);
    assert_eq!(evaluate(&three.slice(1, 1), &[number(7.0)]).unwrap()[0].len(), 1);
    let bare =
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &RecordBatchOptions::new().with_row_count(Some(2))).unwrap();
    assert_eq!(evaluate(&bare, &[lit("x")]).unwrap()[0].len(), 2);
}

#[test]
fn a_literal_keeps_its_type_and_value() {
    for (name, array) in every_type() {
        if matches!(array.data_type(), DataType::Struct(_) | DataType::List(_) | DataType::FixedSizeList(..)) {
            continue;
        }
        let one = evaluate(&batch(vec![("n", Arc::new(Int64Array::from(vec![1])))]), &[literal(&array).unwrap()]).unwrap().remove(0);
        assert_eq!(&one, &arrow::compute::cast(&array.slice(0, 1), &carried(array.data_type()).unwrap()).unwrap(), "{name}");
    }
}

#[test]
fn names_are_taken_literally() {
    let odd = ["*", "^a.*$", "with space", "q\"uote", "ü", ""];
    let columns: Vec<(&str, ArrayRef)> =
        odd.iter().enumerate().map(|(i, n)| (*n, Arc::new(Int64Array::from(vec![i as i64])) as ArrayRef)).collect();
    let all = batch(columns);
    for (i, name) in odd.iter().enumerate() {
        assert_eq!(evaluate(&all, &[column(name)]).unwrap()[0].as_primitive::<Int64Type>().value(0), i as i64, "{name}");
    }
}

#[test]
fn mistakes_are_said_before_anything_runs() {
    let schema = Schema::new(vec![Field::new("dep_delay", DataType::Float64, true), Field::new("carrier", DataType::Utf8View, true)]);
    let refuse = |text: &str| Program::new(&schema, &[sql(text)]).unwrap_err();
    let e = refuse("dep_dely + 1");
    assert_eq!((e.message(), e.to_do()), ("there is no column `dep_dely`", Some("did you mean `dep_delay`?")));
    assert_eq!(e.kind(), crate::error::Kind::Spec);
    assert!(Program::new(&schema, &[pl::all().as_expr()]).is_err());
    let e = infer(&schema, &[("x".to_owned(), sql("ABS(carrier)"))]).unwrap_err();
    assert!(e.to_string().contains("abs"), "{e}");
}

#[test]
fn only_elementwise_expressions_pass() {
    for (text, why) in [
        ("SUM(a)", "aggregates"),
        ("a - AVG(a)", "aggregates"),
        ("COUNT(*)", "aggregates"),
        ("MAX(a) + 1", "aggregates"),
        ("SUM(a) OVER (PARTITION BY b)", "window"),
        ("ROW_NUMBER() OVER (ORDER BY a)", ""),
        ("FIRST(a)", "aggregates"),
        ("STDDEV(a)", "aggregates"),
        ("COUNT(DISTINCT a)", "aggregates"),
        ("a > (SELECT MAX(a) FROM t)", ""),
        ("LAG(a) OVER (ORDER BY b)", ""),
    ] {
        let Ok(expr) = polars::sql::sql_expr(text) else { continue };
        let said = elementwise(&expr).unwrap_err();
        assert!(said.contains(why), "{text}: {said}");
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Int64, true)]);
        assert!(Program::new(&schema, &[expr]).is_err(), "{text}");
    }
    for refused in
        [column("a").shift(lit(1)), column("a").reverse(), column("a").fill_null_with_strategy(pl::FillNullStrategy::Forward(None))]
    {
        assert!(elementwise(&refused).unwrap_err().contains("other rows"));
    }
    for text in [
        "a + 1",
        "a IN (1, 2, 3)",
        "CASE WHEN a > 1 THEN 'x' ELSE b END",
        "COALESCE(a, b, 0)",
        "UPPER(a)",
        "ROUND(a / 3, 2)",
        "a IS NULL",
        "a BETWEEN 1 AND 2",
        "EXTRACT(HOUR FROM t)",
        "CONCAT(a, '-', b)",
        "a LIKE 'x%'",
        "LEAST(a, b)",
        "SUBSTR(a, 1, 2)",
        "1",
    ] {
        elementwise(&sql(text)).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}

#[test]
fn columns_are_named_in_order() {
    assert_eq!(columns_of(&sql("\"b c\" + a * a + \"b c\"")), ["b c", "a"]);
    assert!(columns_of(&sql("1 + 1")).is_empty());
}

#[test]
fn many_threads_agree() {
    let exprs = [sql("a * 2 + 1"), sql("CASE WHEN a % 3 = 0 THEN 'fizz' ELSE UPPER(t) END"), sql("a IN (1, 5, 7)"), sql("LEAST(a, 100)")];
    let all = batch(vec![
        ("a", Arc::new(Int64Array::from_iter_values(0..8192))),
        ("t", Arc::new(StringViewArray::from_iter_values((0..8192).map(|i| format!("text number {i}"))))),
    ]);
    let program = Program::new(all.schema_ref(), &exprs).unwrap();
    let alone = program.run(&all).unwrap();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..20).map(|_| program.run(&all).unwrap()).collect::<Vec<_>>())).collect();
        for run in runs {
            run.join().unwrap().iter().for_each(|made| assert_eq!(made, &alone));
        }
    });
}

/// Not a check: prints what a crossing costs (`cargo test --release -- --ignored --nocapture crossing`).
#[test]
#[ignore = "a measurement"]
fn crossing_costs() {
    let columns: Vec<(String, ArrayRef)> =
        (0..10).map(|i| (format!("c{i}"), Arc::new(Float64Array::from_iter_values((0..8192).map(f64::from))) as ArrayRef)).collect();
    let all = RecordBatch::try_from_iter(columns).unwrap();
    let exprs: Vec<Expr> = (0..10).map(|i| (column(&format!("c{i}")) - lit(1.5)) / lit(2.5)).collect();
    let start = std::time::Instant::now();
    (0..200).for_each(|_| drop(evaluate(&all, &exprs).unwrap()));
    let compiled_each_time = start.elapsed() / 200;
    let program = Program::new(all.schema_ref(), &exprs).unwrap();
    let start = std::time::Instant::now();
    (0..200).for_each(|_| drop(program.run(&all).unwrap()));
    let once = start.elapsed() / 200;
    let plain = Program::new(all.schema_ref(), &(0..10).map(|i| column(&format!("c{i}"))).collect::<Vec<_>>()).unwrap();
    let start = std::time::Instant::now();
    (0..200).for_each(|_| drop(plain.run(&all).unwrap()));
    println!(
        "10 columns, 8,192 rows: evaluate {compiled_each_time:?}, Program::run {once:?}, of which crossing {:?}",
        start.elapsed() / 200
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn slices_of_random_columns_round_trip(
        numbers in prop::collection::vec(prop::option::of(any::<i64>()), 1..200),
        texts in prop::collection::vec(prop::option::of(".{0,20}"), 1..200),
        from in 0usize..200,
        len in 0usize..200,
    ) {
        let rows = numbers.len().min(texts.len());
        let bools: BooleanArray = numbers[..rows].iter().map(|n| n.map(|n| n % 2 == 0)).collect();
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(numbers[..rows].iter().map(|n| n.map(|n| vec![Some(n), None])));
        let all = batch(vec![
            ("n", Arc::new(Int64Array::from(numbers[..rows].to_vec()))),
            ("t", Arc::new(StringViewArray::from(texts[..rows].to_vec()))),
            ("b", Arc::new(bools)),
            ("l", Arc::new(lists)),
        ]);
        let from = from.min(rows);
        let part = all.slice(from, len.min(rows - from));
        let made = evaluate(&part, &[column("n"), column("t"), column("b"), column("l")]).unwrap();
        for (i, array) in made.iter().enumerate() {
            array.to_data().validate_full().unwrap();
            let expected = arrow::compute::cast(part.column(i), array.data_type()).unwrap();
            prop_assert_eq!(array, &expected);
        }
    }

    #[test]
    fn rebatching_changes_nothing(numbers in prop::collection::vec(prop::option::of(-1000i64..1000), 1..100), size in 1usize..40) {
        let all = batch(vec![("a", Arc::new(Int64Array::from(numbers)))]);
        let exprs = [sql("a * 2"), sql("CASE WHEN a > 3 THEN a ELSE 0 END"), sql("a IN (1, 2, 3)"), lit(1i64), sql("COALESCE(a, -1)")];
        let program = Program::new(all.schema_ref(), &exprs).unwrap();
        let whole = program.run(&all).unwrap();
        let parts: Vec<Vec<ArrayRef>> =
            (0..all.num_rows()).step_by(size).map(|i| program.run(&all.slice(i, size.min(all.num_rows() - i))).unwrap()).collect();
        for (i, array) in whole.iter().enumerate() {
            let pieces: Vec<&dyn Array> = parts.iter().map(|p| p[i].as_ref()).collect();
            prop_assert_eq!(&arrow::compute::concat(&pieces).unwrap(), array);
        }
    }
}
