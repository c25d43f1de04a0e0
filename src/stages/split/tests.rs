use std::collections::{BTreeMap, BTreeSet};

use arrow::array::*;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::stages::testing::{Bench, SHAPES, columns as batch_of, numbers, same_in_every_shape, texts, verdicts};

fn codes(data: &RecordBatch, options: serde_json::Value) -> Vec<u32> {
    let decide = Bench::new(data).decide("split", options);
    same_in_every_shape(&decide, data).into_iter().map(|c| c.expect("every row is named")).collect()
}

fn sizes(codes: &[u32], parts: usize) -> Vec<usize> {
    (0..parts as u32).map(|p| codes.iter().filter(|c| **c == p).count()).collect()
}

#[test]
fn hashed_keys_stay_together_and_shares_are_near() {
    let keys: Vec<i64> = (0..6000).map(|i| i % 1500).collect();
    let data = numbers("k", keys.iter().map(|k| Some(*k)));
    let codes = codes(&data, json!({"by": "hash", "key": "k", "into": {"train": 0.8, "validation": 0.1, "test": 0.1}}));
    for (key, code) in keys.iter().zip(&codes) {
        assert_eq!(*code, codes[*key as usize]);
    }
    let sizes = sizes(&codes, 3);
    assert!((4500..5100).contains(&sizes[0]) && (400..800).contains(&sizes[1]), "{sizes:?}");
    // the same keys in another width, and with more rows, go where they went
    let narrow = batch_of(vec![("k", Arc::new(Int16Array::from_iter_values((0..1500).rev().map(|k| k as i16))) as _)]);
    let again = self::codes(&narrow, json!({"by": "hash", "key": ["k"], "into": {"train": 0.8, "validation": 0.1, "test": 0.1}}));
    assert!(again.iter().rev().eq(codes[..1500].iter()));
}

#[test]
fn without_a_key_rows_are_hashed() {
    let data = numbers("k", (0..3000).map(|_| Some(1)));
    let codes = codes(&data, json!({"by": "hash", "into": {"train": 0.5, "test": 0.5}}));
    assert!((1350..1650).contains(&sizes(&codes, 2)[0]));
}

#[test]
fn groups_are_dealt_out_near_to_their_shares() {
    // 100 groups of sizes 1 to 100
    let keys: Vec<i64> = (0..100).flat_map(|g| std::iter::repeat_n(g, g as usize + 1)).collect();
    let data = numbers("g", keys.iter().map(|k| Some(*k)));
    let codes = codes(&data, json!({"by": "group", "key": "g", "into": {"train": 0.8, "test": 0.2}}));
    let mut of: BTreeMap<i64, BTreeSet<u32>> = BTreeMap::new();
    keys.iter().zip(&codes).for_each(|(k, c)| {
        of.entry(*k).or_default().insert(*c);
    });
    assert!(of.values().all(|parts| parts.len() == 1), "a group straddles");
    let train = sizes(&codes, 2)[0] as f64;
    assert!((train - 4040.0).abs() <= 50.0, "{train}: off by more than half the largest group");
}

#[test]
fn strata_are_exact() {
    let labels: Vec<Option<&str>> = (0..1010)
        .map(|i| {
            if i % 101 == 0 {
                Some("rare")
            } else if i % 10 == 0 {
                None
            } else {
                Some("common")
            }
        })
        .collect();
    let data = texts("l", &labels);
    let codes = codes(&data, json!({"by": "stratified", "column": "l", "into": {"train": 0.8, "validation": 0.1, "test": 0.1}}));
    for class in [Some("rare"), None, Some("common")] {
        let of: Vec<u32> = labels.iter().zip(&codes).filter(|(l, _)| **l == class).map(|(_, c)| *c).collect();
        let n = of.len() as f64;
        for (got, share) in sizes(&of, 3).iter().zip([0.8, 0.1, 0.1]) {
            assert!((*got as f64 - n * share).abs() < 1.0, "{class:?}: {got} of {n}");
        }
    }
}

#[test]
fn time_is_cut_by_count_and_equal_times_stay_together() {
    let days = Date32Array::from_iter_values((0..1000).map(|i| i * 7919 % 100));
    let data = batch_of(vec![("d", Arc::new(days.clone()) as _)]);
    let codes = codes(&data, json!({"by": "time", "column": "d", "into": {"train": 0.75, "test": 0.25}}));
    assert_eq!(sizes(&codes, 2), [750, 250]);
    assert!(days.values().iter().zip(&codes).all(|(d, c)| (*d >= 75) == (*c == 1)));
}

#[test]
fn time_is_cut_at_moments() {
    let hours = TimestampMicrosecondArray::from_iter_values(
        [1_378_000_000, 1_380_585_599, 1_380_585_600, 1_383_264_000].map(|s: i64| s * 1_000_000),
    );
    let data = batch_of(vec![("t", Arc::new(hours) as _)]);
    let options =
        json!({"by": "time", "column": "t", "at": ["2013-10-01", "2013-11-01T00:00:00"], "into": ["train", "validation", "test"]});
    assert_eq!(codes(&data, options), [0, 0, 1, 2]);
    let years = numbers("y", [2019, 2020, 2021].map(Some).into_iter());
    assert_eq!(codes(&years, json!({"by": "time", "column": "y", "at": [2020, 2021], "into": ["a", "b", "c"]})), [0, 1, 2]);
}

#[test]
fn a_row_without_a_time_is_an_error_that_helps() {
    let data = numbers("y", [Some(1), None, None].into_iter());
    for options in [
        json!({"by": "time", "column": "y", "into": {"a": 0.5, "b": 0.5}}),
        json!({"by": "time", "column": "y", "at": [1], "into": ["a", "b"]}),
    ] {
        let e = verdicts(&Bench::new(&data).decide("split", options), &data, SHAPES[0]).unwrap_err();
        assert!(e.message().contains("no time in 2 rows") && e.to_do().unwrap().contains("is not null"), "{e}");
    }
}

#[test]
fn nothing_in_nothing_out() {
    let data = numbers("y", std::iter::empty());
    for options in [
        json!({"by": "hash", "into": {"a": 0.5, "b": 0.5}}),
        json!({"by": "group", "key": "y", "into": {"a": 0.5, "b": 0.5}}),
        json!({"by": "stratified", "column": "y", "into": {"a": 0.5, "b": 0.5}}),
        json!({"by": "time", "column": "y", "into": {"a": 0.5, "b": 0.5}}),
    ] {
        assert!(codes(&data, options).is_empty());
    }
}

#[test]
fn mistakes_come_all_at_once() {
    let data = numbers("year", [Some(1)].into_iter());
    let of = |o: serde_json::Value| Bench::new(&data).mistakes("split", o);
    assert_eq!(
        of(json!({"by": "hash", "key": ["yeer", "year", "year"], "into": {"train": 0.8, "te st": 0.3, "x": -0.2}})),
        [
            "/key/0: no column `yeer` reaches this stage (did you mean `year`?)",
            "/key/2: column `year` is named twice (name it once)",
            "/into: `te st` is no name for a split (use letters, digits, `-` and `_`)",
            "/into/x: -0.2 is no share of the rows (give a number above 0)",
            "/into: the shares add up to 0.9 and not to 1 (change one, so that every row goes somewhere)",
        ]
    );
    assert_eq!(
        of(json!({"by": "time", "column": "year", "at": [2, 2, "x"], "into": ["a", "a"]})),
        [
            "/into/1: split `a` is named twice (name it once)",
            "/at: 3 times cut 4 splits, and 2 are named (give one time less than there are splits)",
            "/at/1: `2` is not later than the time before it (put the times in order)",
            "/at/2: `x` is no Int64 (write it as 2013-09-01 or 2013-09-01T12:00:00)",
        ]
    );
    assert!(of(json!({"by": "time", "column": "year", "into": ["a", "b"]}))[0].contains("not said where splits begin"));
    assert!(of(json!({"by": "time", "column": "year", "at": [1], "into": {"a": 1.0}}))[0].contains("times and shares are both given"));
    assert!(of(json!({"by": "hash", "into": {}}))[0].contains("0 splits are named"));
    assert!(of(json!({"by": "hush", "into": {"a": 1.0}}))[0].contains("unknown variant `hush`"));
    assert!(of(json!({"by": "hash", "column": "year", "into": {"a": 1.0}}))[0].contains("unknown field `column`"));
    let twice = Bench::new(&data).with_split().mistakes("split", json!({"by": "hash", "into": {"train": 1.0}}));
    assert!(twice[0].contains("stands above already"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]
    #[test]
    fn every_class_is_cut_by_largest_remainders(labels in proptest::collection::vec(proptest::option::of(0i64..4), 0..400), a in 1u32..9) {
        let data = numbers("l", labels.iter().copied());
        let share = f64::from(a) / 10.0;
        let codes = codes(&data, json!({"by": "stratified", "column": "l", "into": {"train": share, "test": 1.0 - share}}));
        let mut counts: BTreeMap<Option<i64>, (usize, usize)> = BTreeMap::new();
        labels.iter().zip(&codes).for_each(|(l, c)| { let e = counts.entry(*l).or_default(); e.0 += 1; e.1 += usize::from(*c == 0); });
        for (n, train) in counts.values() {
            prop_assert_eq!(*train as u64, ends_of(*n as u64, &[share, 1.0 - share])[0]);
        }
    }
}
