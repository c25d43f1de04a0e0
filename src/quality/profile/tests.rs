//! What a profile says of known data, and that batches and storage leave no trace in it.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, i256};
use proptest::prelude::*;

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn profile_of(batch: &RecordBatch) -> TableProfile {
    let mut profile = TableProfile::new(&batch.schema());
    profile.update(batch).unwrap();
    profile
}

fn only(array: ArrayRef) -> ColumnSummary {
    profile_of(&batch(vec![("c", array)])).summary().columns.remove(0)
}

fn json(profile: &TableProfile) -> String {
    serde_json::to_string(profile).unwrap()
}

/// A table with a column of each behaviour: few values, many, nearly unique, text, lists, nulls in all.
fn mixed(rows: u64, salt: u64) -> RecordBatch {
    let hash = |i: u64| xxhash_rust::xxh3::xxh3_64(&(i ^ salt << 32).to_le_bytes());
    let some = |i: u64| !hash(i ^ 1 << 60).is_multiple_of(11);
    let floats: Float64Array = (0..rows).map(|i| some(i).then(|| (hash(i) % 1_000_000) as f64 / 7.0)).collect();
    let few: Int32Array = (0..rows).map(|i| some(i).then(|| (hash(i) % 40) as i32)).collect();
    let many: Int64Array = (0..rows).map(|i| Some(((hash(i) % 3_000) * (hash(i + 1) % 3) / 2) as i64)).collect();
    let text: StringArray = (0..rows).map(|i| some(i).then(|| format!("id-{}", hash(i)))).collect();
    let words: StringArray = (0..rows).map(|i| Some(format!("w{}", (hash(i) % 5_000) / (1 + hash(i + 7) % 900)))).collect();
    let flags: BooleanArray = (0..rows).map(|i| some(i).then(|| hash(i) % 3 == 0)).collect();
    batch(vec![
        ("floats", Arc::new(floats) as ArrayRef),
        ("few", Arc::new(few)),
        ("many", Arc::new(many)),
        ("text", Arc::new(text)),
        ("words", Arc::new(words)),
        ("flags", Arc::new(flags)),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn cuts_into_batches_leave_no_trace(rows in 0u64..9_000, salt in any::<u32>(), cuts in prop::collection::vec(0usize..9_000, 0..6)) {
        let whole = mixed(rows, salt.into());
        let mut parts = TableProfile::new(&whole.schema());
        let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.num_rows())).chain([0, whole.num_rows()]).collect();
        ends.sort_unstable();
        for ends in ends.windows(2) {
            parts.update(&whole.slice(ends[0], ends[1] - ends[0])).unwrap();
        }
        prop_assert_eq!(json(&parts), json(&profile_of(&whole)));
    }

    #[test]
    fn stored_and_merged_profiles_speak_the_same(left in 0u64..4_000, right in 0u64..4_000) {
        let (a, b) = (profile_of(&mixed(left, 1)), profile_of(&mixed(right, 2)));
        let mut fresh = a.clone();
        fresh.merge(&b).unwrap();
        let stored = |p: &TableProfile| postcard::from_bytes::<TableProfile>(&postcard::to_stdvec(p).unwrap()).unwrap();
        let mut read = stored(&a);
        read.merge(&stored(&b)).unwrap();
        prop_assert_eq!(json(&fresh), json(&read));
        let again: TableProfile = serde_json::from_str(&json(&fresh)).unwrap();
        prop_assert_eq!(serde_json::to_value(again.summary()).unwrap(), serde_json::to_value(fresh.summary()).unwrap());
        prop_assert_eq!(fresh.rows(), left + right);
        // A stored profile goes on as if it had never been put away.
        let more = mixed(500, 3);
        fresh.update(&more).unwrap();
        read.update(&more).unwrap();
        prop_assert_eq!(json(&fresh), json(&read));
    }
}

#[test]
fn few_values_are_told_exactly() {
    let c = only(Arc::new(Int32Array::from(vec![Some(1), Some(2), None, Some(2), Some(9), Some(2)])));
    assert_eq!((c.count, c.nulls), (6, 1));
    assert_eq!(c.distinct, Some(Distinct { estimate: 3, low: 3, high: 3 }));
    let n = c.numbers.unwrap();
    assert_eq!((n.min, n.max, n.rank_error), (Some(Value::Int(1)), Some(Value::Int(9)), 0.0));
    assert!((n.mean.unwrap() - 3.2).abs() < 1e-12 && (n.std.unwrap() - 8.56f64.sqrt()).abs() < 1e-12);
    assert_eq!(n.quantiles[3], (0.5, Value::Int(2)));
    assert_eq!(c.top[0], TopValue { value: Value::Int(2), count: 3, at_most: 3 });
    assert_eq!(c.top[1].value, Value::Int(1), "equal counts stand by value");
}

#[test]
fn many_values_are_told_within_their_bounds() {
    let rows = 200_000u32;
    let values: Vec<f64> = (0..rows).map(|i| f64::from(i.wrapping_mul(2_654_435_761)) / 4_294_967_296.0).collect();
    let c = only(Arc::new(Float64Array::from(values)));
    let distinct = c.distinct.unwrap();
    assert!(distinct.low <= u64::from(rows) && u64::from(rows) <= distinct.high && !distinct.is_exact());
    let n = c.numbers.unwrap();
    assert!((n.mean.unwrap() - 0.5).abs() < 1e-4 && (n.std.unwrap() - (1.0f64 / 12.0).sqrt()).abs() < 1e-4);
    assert!(n.rank_error > 0.0 && n.rank_error < 0.02);
    for (p, value) in &n.quantiles {
        let Value::Float(value) = value else { panic!("{value:?}") };
        assert!((value - p).abs() <= n.rank_error, "{p}: {value}");
    }
    let h = n.histogram.unwrap();
    assert_eq!(h.counts.iter().sum::<u64>() + h.below + h.above, u64::from(rows));
    assert!(c.top.is_empty() && c.note.unwrap().contains("no value stands out"));
}

#[test]
fn nan_and_infinities_are_counted_apart() {
    let c = only(Arc::new(Float32Array::from(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0, -0.0, 0.0, f32::NAN])));
    assert_eq!((c.nan, c.positive_infinite, c.negative_infinite, c.nulls), (2, 1, 1, 0));
    assert_eq!(c.distinct.unwrap().estimate, 2, "0 and -0 are one value");
    assert_eq!(c.numbers.unwrap().max, Some(Value::Float(1.0)));
    let none = only(Arc::new(Float64Array::from(vec![f64::NAN; 3])));
    assert_eq!((none.nan, none.numbers), (3, None));
}

#[test]
fn text_is_measured_in_characters_and_cut_where_it_is_shown() {
    let long = "ü".repeat(5_000_000);
    let values = vec![Some("a"), Some(""), None, Some(" b"), Some("c\u{3000}"), Some("a"), Some(long.as_str())];
    for array in [
        Arc::new(StringArray::from(values.clone())) as ArrayRef,
        Arc::new(LargeStringArray::from(values.clone())),
        Arc::new(StringViewArray::from(values.clone())),
        Arc::new(values.iter().copied().collect::<DictionaryArray<Int32Type>>()),
    ] {
        let c = only(array);
        let lengths = c.lengths.unwrap();
        assert_eq!((lengths.min, lengths.max, lengths.empty), (0, 5_000_000, 1));
        assert_eq!((c.count, c.nulls, c.padded), (7, 1, Some(2)));
        assert_eq!(c.top[0], TopValue { value: Value::Text("a".into()), count: 2, at_most: 2 });
        let Some(TopValue { value: Value::Text(shown), .. }) = c.top.iter().find(|t| t.value.to_string().starts_with('ü')) else {
            panic!("{:?}", c.top)
        };
        assert_eq!(shown.chars().count(), 81, "80 characters and an ellipsis");
    }
}

#[test]
fn every_type_is_counted() {
    let three = |data_type: &DataType| new_null_array(data_type, 3);
    let field = |t: DataType| Arc::new(Field::new("item", t, true));
    for data_type in [
        DataType::Null,
        DataType::Boolean,
        DataType::Float16,
        DataType::Decimal256(50, 3),
        DataType::Date64,
        DataType::Utf8View,
        DataType::FixedSizeBinary(4),
        DataType::List(field(DataType::Int32)),
        DataType::FixedSizeList(field(DataType::Int32), 2),
        DataType::ListView(field(DataType::Utf8)),
        DataType::Struct(vec![Field::new("x", DataType::Int8, true)].into()),
        DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Float64)),
        DataType::Interval(arrow::datatypes::IntervalUnit::DayTime),
    ] {
        let c = only(three(&data_type));
        assert_eq!((c.count, c.nulls), (3, 3), "{data_type}");
        assert!(c.distinct.is_none() && c.numbers.is_none() && c.lengths.is_none(), "{data_type}");
        let empty = only(new_empty_array(&data_type));
        assert_eq!((empty.count, empty.nulls), (0, 0), "{data_type}");
        serde_json::to_string(&c).unwrap();
    }
}

#[test]
fn values_of_other_types_are_shown_as_people_write_them() {
    let first = |array: ArrayRef| only(array).top[0].value.to_string();
    assert_eq!(first(Arc::new(UInt64Array::from(vec![u64::MAX]))), u64::MAX.to_string());
    assert_eq!(first(Arc::new(Int64Array::from(vec![i64::MIN]))), i64::MIN.to_string());
    assert_eq!(first(Arc::new(Date32Array::from(vec![15_706]))), "2013-01-01");
    let zoned = TimestampMicrosecondArray::from(vec![1_357_034_400_000_000]).with_timezone("UTC");
    assert_eq!(first(Arc::new(zoned)), "2013-01-01T10:00:00Z");
    let price = Decimal128Array::from(vec![12_345]).with_precision_and_scale(9, 2).unwrap();
    assert_eq!(first(Arc::new(price)), "123.45");
    let wide = Decimal256Array::from(vec![i256::from(5)]).with_precision_and_scale(60, 1).unwrap();
    assert_eq!(first(Arc::new(wide)), "0.5");
    assert_eq!(first(Arc::new(BinaryArray::from(vec![&[0xffu8, 0][..]]))), "0xff00");
    let flags = only(Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)])));
    assert_eq!(flags.booleans, Some(Booleans { trues: 2, falses: 1 }));
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), Some(2)]), None, Some(vec![])]);
    let lengths = only(Arc::new(lists)).lengths.unwrap();
    assert_eq!((lengths.min, lengths.max, lengths.empty, lengths.mean), (0, 2, 1, 1.0));
}

#[test]
fn hidden_columns_are_not_listed_and_missing_ones_are_an_error() {
    let table = batch(vec![("_row", Arc::new(UInt64Array::from(vec![1])) as ArrayRef), ("a", Arc::new(Int8Array::from(vec![1])))]);
    let mut profile = profile_of(&table);
    assert_eq!(profile.summary().columns.len(), 1);
    let other = batch(vec![("b", Arc::new(Int8Array::from(vec![1])) as ArrayRef)]);
    assert!(profile.update(&other).unwrap_err().to_string().contains("`a`"));
    let text = batch(vec![("a", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]);
    assert!(profile.update(&text).unwrap_err().to_string().contains("Utf8"));
    assert!(profile.merge(&profile_of(&other)).is_err());
    assert_eq!(TableProfile::new(&Schema::empty()).summary(), TableSummary::default());
}

#[test]
fn a_column_stays_small() {
    let mut profile = TableProfile::new(&mixed(1, 0).schema());
    for salt in 0..12 {
        profile.update(&mixed(20_000, salt)).unwrap();
    }
    let bytes = postcard::to_stdvec(&profile).unwrap().len();
    assert!(bytes < 6 * 64 * 1024, "{bytes} bytes for six columns");
}
