use arrow::array::*;
use arrow::datatypes::{Float64Type, Int64Type};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::stages::testing::{Bench, SHAPES, columns, reshaped};

fn flights() -> RecordBatch {
    columns(vec![
        ("carrier", Arc::new(StringArray::from(vec![Some("UA"), Some("AA"), Some("UA"), None, Some("AA")])) as _),
        ("depDelay", Arc::new(Float64Array::from(vec![Some(1.5), Some(-2.0), None, Some(0.25), Some(9.0)])) as _),
        ("distance", Arc::new(Int64Array::from(vec![3, 1, 2, 5, 4])) as _),
    ])
}

fn names() -> RecordBatch {
    columns(vec![
        ("carrier", Arc::new(StringArray::from(vec!["AA", "UA"])) as _),
        ("name", Arc::new(StringArray::from(vec!["American", "United"])) as _),
    ])
}

fn bench() -> Bench {
    Bench::new(&flights()).with_side("airlines", &names(), 1)
}

/// The result, after seeing that it is the same in every shape.
fn run(query: &str) -> RecordBatch {
    let steps = bench().lower("sql", json!(query)).unwrap_or_else(|m| panic!("{m:?}"));
    let [Step::Reshape(reshape)] = &steps[..] else { panic!() };
    let first = reshaped(reshape, &flights(), &[("airlines", &names())], SHAPES[0]).unwrap();
    for shape in &SHAPES[1..] {
        assert_eq!(reshaped(reshape, &flights(), &[("airlines", &names())], *shape).unwrap(), first, "{shape:?}");
    }
    first
}

fn longs(batch: &RecordBatch, column: &str) -> Vec<Option<i64>> {
    batch.column_by_name(column).unwrap().as_primitive::<Int64Type>().iter().collect()
}

fn some(values: &[i64]) -> Vec<Option<i64>> {
    values.iter().copied().map(Some).collect()
}

#[test]
fn a_result_without_an_order_is_ordered_by_its_values() {
    assert_eq!(longs(&run("select distance from input where distance < 4"), "distance"), some(&[1, 2, 3]));
    let out = run("select carrier, count(*) as n from input group by carrier");
    assert_eq!(out.column(0).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("AA"), Some("UA"), None]);
    assert_eq!(longs(&out, "n"), some(&[2, 2, 1]));
}

#[test]
fn the_querys_order_comes_first() {
    assert_eq!(longs(&run("select distance from input order by distance desc"), "distance"), some(&[5, 4, 3, 2, 1]));
    // ties are broken by the other columns, also by a hidden key, and under a limit
    assert_eq!(longs(&run("select distance, carrier from input order by carrier desc nulls last"), "distance"), some(&[2, 3, 1, 4, 5]));
    assert_eq!(longs(&run("select distance from input order by carrier nulls first limit 2"), "distance"), some(&[5, 1]));
    // an order inside a subquery is not the result's
    assert_eq!(longs(&run("select * from (select distance from input order by distance desc) t"), "distance"), some(&[1, 2, 3, 4, 5]));
}

#[test]
fn limits_and_windows_meet_rows_in_the_sources_order() {
    assert_eq!(longs(&run("select distance from input limit 2"), "distance"), some(&[1, 3]));
    let out = run("select distance, cast(row_number() over () as bigint) as n from input");
    assert_eq!((longs(&out, "distance"), longs(&out, "n")), (some(&[1, 2, 3, 4, 5]), some(&[2, 3, 1, 5, 4])));
    let out = run("select array_agg(distance) as d from input");
    assert_eq!(out.column(0).as_list::<i32>().value(0).as_primitive::<Int64Type>().values(), &[3, 1, 2, 5, 4]);
}

#[test]
fn sides_join_and_nested_values_come_out() {
    let out = run("select i.*, a.name from input i join airlines a on i.carrier = a.carrier");
    assert_eq!(longs(&out, "distance"), some(&[1, 4, 3, 2]));
    let out = run("select struct(carrier, distance) as s, make_array(distance) as l from input");
    assert_eq!(out.num_rows(), 5);
    let steps = bench().lower("sql", json!({"query": "select name from airlines"})).unwrap();
    let [Step::Reshape(reshape)] = &steps[..] else { panic!() };
    assert_eq!(reshape.sides, ["airlines"]);
}

#[test]
fn empty_inputs_work() {
    for query in ["select * from input", "select sum(depDelay) as s, count(*) as n from input", "select * from input limit 3"] {
        let steps = bench().lower("sql", json!(query)).unwrap();
        let [Step::Reshape(reshape)] = &steps[..] else { panic!() };
        let empty = flights().slice(0, 0);
        let out = reshaped(reshape, &empty, &[("airlines", &names())], SHAPES[1]).unwrap();
        assert_eq!(out.num_rows(), usize::from(query.contains("sum")));
    }
}

#[test]
fn mistakes_name_what_is_near() {
    let of = |query: &str| bench().mistakes("sql", json!({"query": query})).join("\n");
    assert_eq!(of("select distanse from input"), "/query: there is no column `distanse` (did you mean `distance`?)");
    assert_eq!(of("select depdelay from input"), "/query: there is no column `depdelay` (did you mean `depDelay`?)");
    assert_eq!(of("select * from airline"), "/query: there is no table `airline` (did you mean `airlines`?)");
    assert!(of("select _row from input").contains("no column `_row`"));
    assert!(of("selec 1").contains("no valid SQL") || of("selec 1").contains("no SELECT"), "{}", of("selec 1"));
    for statement in [
        "create table x as select 1",
        "copy input to 'x.parquet'",
        "insert into input select * from input",
        "drop table input",
        "set datafusion.execution.batch_size = 1",
        "explain select 1",
        "create external table t stored as parquet location '/etc'",
        "delete from input",
    ] {
        assert!(of(statement).contains("no SELECT") || of(statement).contains("not supported"), "{statement}: {}", of(statement));
    }
    assert!(of("select 1; select 2").contains("more than one statement"));
    assert!(of("select * from '/etc/passwd'").contains("no table"), "{}", of("select * from '/etc/passwd'"));
    assert!(of("select now() as t from input").contains("different in every run"));
    assert!(of("select distance from input where random() > 0.5").contains("different in every run"));
    assert!(of("select * from input where distance > (select max(random()) from input)").contains("different in every run"));
    let twice = of("select * from input i join airlines a on i.carrier = a.carrier");
    assert!(twice.contains("`carrier`") && twice.contains("AS"), "{twice}");
    assert!(of("select carrier from input i join airlines a on i.carrier = a.carrier").contains("more than one table"));
    assert!(of("select distance as _row from input").contains("Feedline's own"));
    assert!(of("select sum(carrier) as s from input").starts_with("/query: "));
    assert!(bench().mistakes("sql", json!({"sql": "x"}))[0].contains("unknown field `sql`"));
    assert!(bench().with_split().mistakes("sql", json!("select 1 as x"))[0].contains("above the `split`"));
    let named = Bench::new(&flights()).with_side("input", &names(), 1);
    assert!(named.mistakes("sql", json!("select 1 as x from input"))[0].contains("called `input`"));
}

#[test]
fn only_queries_that_care_meet_rows_in_order() {
    let session = query::own_session(SessionContext::new().state(), |config| config);
    let empty: Arc<dyn TableProvider> = Arc::new(EmptyTable::new(flights().schema()));
    session.register_table(TableReference::bare(INPUT), empty).unwrap();
    let cares = |sql: &str| {
        let state = session.state();
        let statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect).unwrap();
        order::matters(&logical(&state, statement).unwrap())
    };
    for sql in ["select sum(distance), count(distinct carrier), max(carrier) from input", "select distinct carrier from input order by 1"] {
        assert!(!cares(sql), "{sql}");
    }
    for sql in [
        "select sum(depDelay) from input",
        "select avg(distance) from input",
        "select 1 from input where distance = (select first_value(distance) from input)",
    ] {
        assert!(cares(sql), "{sql}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn sums_of_floats_have_the_same_bits_in_every_shape(values in proptest::collection::vec((0i64..3, -1e9f64..1e9), 1..2000)) {
        let data = columns(vec![
            ("k", Arc::new(Int64Array::from_iter_values(values.iter().map(|v| v.0))) as ArrayRef),
            ("x", Arc::new(Float64Array::from_iter_values(values.iter().map(|v| v.1 / 3.0)))),
        ]);
        for query in ["select k, sum(x) as s, stddev(x) as d from input group by k", "select sum(x) as s from input", "select x * 2.0 + 1.0 as s from input order by k desc"] {
            let steps = Bench::new(&data).lower("sql", json!(query)).unwrap();
            let Step::Reshape(reshape) = &steps[0] else { panic!() };
            let bits = |shape| -> Vec<Option<u64>> {
                let out = reshaped(reshape, &data, &[], shape).unwrap();
                out.column_by_name("s").unwrap().as_primitive::<Float64Type>().iter().map(|v| v.map(f64::to_bits)).collect()
            };
            let first = bits(SHAPES[0]);
            for shape in &SHAPES[1..3] {
                prop_assert_eq!(bits(*shape), first.clone());
            }
        }
    }
}
