//! Hashes of values and rows, vectorised over Arrow arrays. Every random choice and every split by key rests on them.
//!
//! A hash depends on the **value** alone, not on how a batch holds it: the same text hashes alike as `Utf8`, `LargeUtf8`, `Utf8View` or in
//! a dictionary; the same whole number in any width; the same moment in any time unit. −0.0 hashes as 0.0, and every NaN alike. Null is
//! a value of its own. Values inside lists, structs and maps keep their type: there, `[1]` as `int32` and as `int64` are two values.
//!
//! Everything is XXH3 (<https://xxhash.com>), 64 bits for choices and 128 bits where equal hashes stand for equal values: among
//! 10⁹ different rows, two share a 128-bit hash with a probability of 10⁻²¹.

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::row::{RowConverter, SortField};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128};

use crate::error::{Error, Result};

/// A hash of some width.
pub trait Digest: Copy {
    /// What null hashes to.
    const NULL: Self;
    /// The hash of bytes.
    fn of(bytes: &[u8]) -> Self;
    /// What a row starts with, before its first column.
    fn start(seed: u64) -> Self;
    /// The hash so far with the next column's; order matters.
    fn then(self, next: Self) -> Self;
}

impl Digest for u64 {
    const NULL: Self = 0x9E37_79B9_7F4A_7C15;
    fn of(bytes: &[u8]) -> Self {
        xxh3_64(bytes)
    }
    fn start(seed: u64) -> Self {
        seed
    }
    fn then(self, next: Self) -> Self {
        xxh3_64_with_seed(&next.to_le_bytes(), self)
    }
}

impl Digest for u128 {
    const NULL: Self = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C834;
    fn of(bytes: &[u8]) -> Self {
        xxh3_128(bytes)
    }
    fn start(seed: u64) -> Self {
        u128::from(seed)
    }
    fn then(self, next: Self) -> Self {
        let mut both = [0; 32];
        both[..16].copy_from_slice(&self.to_le_bytes());
        both[16..].copy_from_slice(&next.to_le_bytes());
        xxh3_128(&both)
    }
}

/// One hash a row, of all columns in order. `rows` is the length of each.
///
/// # Errors
/// A column's type has no order and no hash (unions).
pub fn hash_rows<D: Digest>(columns: &[ArrayRef], rows: usize, seed: u64) -> Result<Vec<D>> {
    let mut out = vec![D::start(seed); rows];
    for column in columns {
        for (hash, next) in out.iter_mut().zip(hash_values::<D>(column.as_ref())?) {
            *hash = hash.then(next);
        }
    }
    Ok(out)
}

/// The hash of a row's identity: the source of every random choice about rows.
pub fn hash_row(row: u64, seed: u64) -> u64 {
    xxh3_64_with_seed(&row.to_le_bytes(), seed)
}

/// [`hash_row`] over a column of identities.
pub fn hash_identities(rows: &UInt64Array, seed: u64) -> Vec<u64> {
    rows.values().iter().map(|r| hash_row(*r, seed)).collect()
}

/// Where a hash lies in the unit interval cut at `shares` (which add up to 1): the index of its part.
pub fn part_of(hash: u64, ends: &[u64]) -> u32 {
    ends.iter().take_while(|end| hash >= **end).count() as u32
}

/// The inner ends of parts with these shares, as hashes, for [`part_of`]: one less than there are shares.
pub fn part_ends(shares: &[f64]) -> Vec<u64> {
    let mut sum = 0.0;
    let inner = shares.len().saturating_sub(1);
    shares[..inner]
        .iter()
        .map(|share| {
            sum += share;
            (sum * 2f64.powi(64)) as u64
        })
        .collect()
}

/// One hash for each value of an array.
fn hash_values<D: Digest>(array: &dyn Array) -> Result<Vec<D>> {
    Ok(match array.data_type() {
        DataType::Null => vec![D::NULL; array.len()],
        DataType::Boolean => each(array, array.as_boolean().iter(), |v| D::of(&[u8::from(v)])),
        t if t.is_integer() => integers(array)?,
        DataType::Float64 => each(array, array.as_primitive::<Float64Type>().iter(), |v| D::of(&canonical(v).to_le_bytes())),
        DataType::Float16 | DataType::Float32 => hash_values(cast(array, &DataType::Float64)?.as_ref())?,
        DataType::Date32 | DataType::Date64 => {
            let days = cast(array, &DataType::Date32)?;
            each(array, days.as_primitive::<Date32Type>().iter(), |v| D::of(&i64::from(v).to_le_bytes()))
        }
        DataType::Timestamp(unit, _) | DataType::Duration(unit) => moments(array, *unit)?,
        DataType::Time32(unit) | DataType::Time64(unit) => moments(array, *unit)?,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) => decimals(array)?,
        DataType::Decimal256(_, scale) => each(array, array.as_primitive::<Decimal256Type>().iter(), |v| {
            v.to_i128().map_or_else(|| D::of(&v.to_le_bytes()), |small| decimal(small, *scale))
        }),
        DataType::Utf8 => each(array, array.as_string::<i32>().iter(), |v| D::of(v.as_bytes())),
        DataType::LargeUtf8 => each(array, array.as_string::<i64>().iter(), |v| D::of(v.as_bytes())),
        DataType::Utf8View => each(array, array.as_string_view().iter(), |v| D::of(v.as_bytes())),
        DataType::Binary => each(array, array.as_binary::<i32>().iter(), D::of),
        DataType::LargeBinary => each(array, array.as_binary::<i64>().iter(), D::of),
        DataType::BinaryView => each(array, array.as_binary_view().iter(), D::of),
        DataType::FixedSizeBinary(_) => each(array, array.as_fixed_size_binary().iter(), D::of),
        DataType::Dictionary(..) => dictionary(array)?,
        DataType::RunEndEncoded(_, values) => hash_values(cast(array, values.data_type())?.as_ref())?,
        _ => nested(array)?,
    })
}

fn each<T, D: Digest>(array: &dyn Array, values: impl Iterator<Item = Option<T>>, hash: impl Fn(T) -> D) -> Vec<D> {
    let mut out = Vec::with_capacity(array.len());
    out.extend(values.map(|v| v.map_or(D::NULL, &hash)));
    out
}

/// Whole numbers as 64 bits, so that width does not matter; an unsigned one above 2⁶³ shares its bits with a negative one, which no
/// column can hold beside it.
fn integers<D: Digest>(array: &dyn Array) -> Result<Vec<D>> {
    if matches!(array.data_type(), DataType::UInt64) {
        return Ok(each(array, array.as_primitive::<UInt64Type>().iter(), |v| D::of(&v.to_le_bytes())));
    }
    let wide = cast(array, &DataType::Int64)?;
    Ok(each(array, wide.as_primitive::<Int64Type>().iter(), |v| D::of(&v.to_le_bytes())))
}

/// Moments as seconds and nanoseconds: the same in any unit, and none overflows.
fn moments<D: Digest>(array: &dyn Array, unit: TimeUnit) -> Result<Vec<D>> {
    let per_second: i64 = match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    let narrow = matches!(array.data_type(), DataType::Time32(_));
    let ticks = if narrow { cast(&cast(array, &DataType::Int32)?, &DataType::Int64)? } else { cast(array, &DataType::Int64)? };
    Ok(each(array, ticks.as_primitive::<Int64Type>().iter(), |v| {
        let nanos = v.rem_euclid(per_second) * (1_000_000_000 / per_second);
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&v.div_euclid(per_second).to_le_bytes());
        bytes[8..].copy_from_slice(&(nanos as u32).to_le_bytes());
        D::of(&bytes)
    }))
}

fn decimals<D: Digest>(array: &dyn Array) -> Result<Vec<D>> {
    Ok(match array.data_type() {
        DataType::Decimal32(_, s) => each(array, array.as_primitive::<Decimal32Type>().iter(), |v| decimal(i128::from(v), *s)),
        DataType::Decimal64(_, s) => each(array, array.as_primitive::<Decimal64Type>().iter(), |v| decimal(i128::from(v), *s)),
        DataType::Decimal128(_, s) => each(array, array.as_primitive::<Decimal128Type>().iter(), |v| decimal(v, *s)),
        other => return Err(Error::internal(format!("{other} is no decimal"))),
    })
}

/// 1.50 hashes as 1.5, whatever the column's scale.
fn decimal<D: Digest>(mut value: i128, scale: i8) -> D {
    let mut scale = if value == 0 { 0 } else { i32::from(scale) };
    while value != 0 && value % 10 == 0 {
        value /= 10;
        scale -= 1;
    }
    let mut bytes = [0; 20];
    bytes[..16].copy_from_slice(&value.to_le_bytes());
    bytes[16..].copy_from_slice(&scale.to_le_bytes());
    D::of(&bytes)
}

fn dictionary<D: Digest>(array: &dyn Array) -> Result<Vec<D>> {
    let dictionary = array.as_any_dictionary();
    let values = hash_values::<D>(dictionary.values().as_ref())?;
    if values.is_empty() {
        return Ok(vec![D::NULL; array.len()]);
    }
    let keys = dictionary.normalized_keys();
    let nulls = dictionary.keys();
    Ok(keys.iter().enumerate().map(|(i, k)| if nulls.is_null(i) { D::NULL } else { values[*k] }).collect())
}

/// Lists, structs and maps by Arrow's row format, which does not depend on the batch either.
fn nested<D: Digest>(array: &dyn Array) -> Result<Vec<D>> {
    let converter = RowConverter::new(vec![SortField::new(array.data_type().clone())])
        .map_err(|_| Error::input(format!("values of type {} cannot be hashed", array.data_type())).hint("leave the column out"))?;
    let rows = converter.convert_columns(&[arrow::array::make_array(array.to_data())])?;
    Ok((0..array.len()).map(|i| if array.is_null(i) { D::NULL } else { D::of(rows.row(i).as_ref()) }).collect())
}

/// −0.0 as 0.0 and every NaN as one.
pub fn canonical(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

/// Writes a text's normal form into `out`: NFKC, lower case, and every run of white space and punctuation as one space, none at the
/// ends. A text of nothing else stays as it is, so that "!" and "?" are two texts.
pub fn normalize_text(text: &str, out: &mut String) {
    out.clear();
    if text.is_ascii() {
        // NFKC leaves ASCII as it is, and most text is ASCII
        fold_gaps(text.bytes().map(|b| char::from(b.to_ascii_lowercase())), out);
    } else {
        fold_gaps(text.nfkc().flat_map(char::to_lowercase), out);
    }
    if out.is_empty() {
        out.push_str(text);
    }
}

fn fold_gaps(chars: impl Iterator<Item = char>, out: &mut String) {
    let mut gap = false;
    for c in chars {
        if is_gap(c) {
            gap = true;
            continue;
        }
        if gap && !out.is_empty() {
            out.push(' ');
        }
        gap = false;
        out.push(c);
    }
}

/// White space, control characters and punctuation; letters, digits, marks and symbols such as emoji are not.
fn is_gap(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_alphanumeric();
    }
    if c.is_alphanumeric() || is_combining_mark(c) {
        return false;
    }
    c.is_whitespace()
        || c.is_control()
        || matches!(c,
            '¡' | '§' | '«' | '¶' | '·' | '»' | '¿' | '՚'..='՟' | '։' | '֊' | '־' | '׀' | '׃' | '׳' | '״'
            | '؉' | '؊' | '،' | '؍' | '؛' | '؝'..='؟' | '٪'..='٭' | '۔' | '।' | '॥' | '๏' | '๚' | '๛' | '༄'..='༒'
            | '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205E}' | '\u{2060}' | '\u{200B}'..='\u{200F}' | '\u{FEFF}' | '\u{FE0F}'
            | '⟦'..='⟯' | '⸀'..='⹝' | '、'..='〃' | '〈'..='】' | '〔'..='〟' | '〰' | '〽' | '゠' | '・' | '꓾' | '꓿')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::*;
    use proptest::prelude::*;

    use super::*;

    fn one(array: impl Array + 'static) -> Vec<u64> {
        let rows = array.len();
        hash_rows(&[Arc::new(array) as ArrayRef], rows, 7).unwrap()
    }

    fn alike(arrays: Vec<ArrayRef>) {
        let hashes: Vec<Vec<u128>> = arrays.iter().map(|a| hash_rows(std::slice::from_ref(a), a.len(), 7).unwrap()).collect();
        for (array, hash) in arrays.iter().zip(&hashes) {
            assert_eq!(hash, &hashes[0], "{}", array.data_type());
        }
    }

    #[test]
    fn the_value_counts_and_not_its_type() {
        let text = StringArray::from(vec![Some("a"), None, Some(""), Some("ü and more than twelve bytes")]);
        let types = [DataType::LargeUtf8, DataType::Utf8View, DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8))];
        alike([DataType::Utf8].iter().chain(&types).map(|t| cast(&text, t).unwrap()).collect());
        let numbers = Int64Array::from(vec![Some(0), Some(7), None, Some(127)]);
        let types = [DataType::Int64, DataType::Int8, DataType::UInt8, DataType::Int32, DataType::UInt64];
        alike(types.iter().map(|t| cast(&numbers, t).unwrap()).collect());
        let seconds = TimestampSecondArray::from(vec![Some(-3), Some(1_378_000_000), None]);
        let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
        alike(units.iter().map(|u| cast(&seconds, &DataType::Timestamp(*u, None)).unwrap()).collect());
        let money = Decimal128Array::from(vec![150, 0, -1000]).with_precision_and_scale(10, 2).unwrap();
        alike([(10, 2), (20, 5)].iter().map(|(p, s)| cast(&money, &DataType::Decimal128(*p, *s)).unwrap()).collect());
        alike(vec![
            Arc::new(money.clone()),
            cast(&money, &DataType::Decimal256(50, 3)).unwrap(),
            cast(&money, &DataType::Decimal64(12, 2)).unwrap(),
        ]);
        alike(vec![Arc::new(Float32Array::from(vec![0.5, -0.0])), Arc::new(Float64Array::from(vec![0.5, 0.0]))]);
        alike(vec![Arc::new(Float64Array::from(vec![f64::NAN])), Arc::new(Float64Array::from(vec![-f64::NAN]))]);
    }

    #[test]
    fn values_that_differ_hash_apart() {
        let hashes = one(StringArray::from(vec![Some(""), None, Some("a"), Some("b")]));
        assert_eq!(hashes.iter().collect::<std::collections::HashSet<_>>().len(), 4);
        // columns do not run into each other
        let ab = |a: &str, b: &str| -> Vec<u128> {
            hash_rows(&[Arc::new(StringArray::from(vec![a])) as ArrayRef, Arc::new(StringArray::from(vec![b]))], 1, 0).unwrap()
        };
        assert_ne!(ab("ab", "c"), ab("a", "bc"));
        assert_ne!(ab("a", "b"), ab("b", "a"));
    }

    #[test]
    fn every_type_hashes_alike_in_any_slice() {
        let mut lists = ListBuilder::new(Int32Builder::new());
        let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
        for i in 0..40 {
            lists.values().append_value(i % 3);
            lists.append(i % 7 != 0);
            map.keys().append_value("k");
            map.values().append_value(i % 5);
            map.append(true).unwrap();
        }
        let numbers: ArrayRef = Arc::new(Int32Array::from_iter((0..40).map(|i| (i % 4 != 0).then_some(i % 9))));
        let fields = vec![(Arc::new(Field::new("x", DataType::Int32, true)), numbers.clone())];
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(lists.finish()),
            Arc::new(map.finish()),
            Arc::new(StructArray::from(fields)),
            cast(&numbers, &DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Int32))).unwrap(),
            Arc::new(NullArray::new(40)),
            Arc::new(BooleanArray::from_iter((0..40).map(|i| Some(i % 3 == 0)))),
            cast(&numbers, &DataType::Date32).unwrap(),
            cast(&numbers, &DataType::Time32(TimeUnit::Second)).unwrap(),
            numbers,
        ];
        for array in arrays {
            let whole = hash_rows::<u64>(std::slice::from_ref(&array), 40, 1).unwrap();
            let slices = [array.slice(0, 7), array.slice(7, 20), array.slice(27, 13)];
            let parts: Vec<u64> = slices.iter().flat_map(|s| hash_rows::<u64>(std::slice::from_ref(s), s.len(), 1).unwrap()).collect();
            assert_eq!(whole, parts, "{}", array.data_type());
        }
    }

    #[test]
    fn text_in_normal_form() {
        let normal = |text: &str| {
            let mut out = String::new();
            normalize_text(text, &mut out);
            out
        };
        assert_eq!(normal("  Hello,\tWORLD!! "), "hello world");
        assert_eq!(normal("ﬁne — “quoted” Ⅳ"), "fine quoted iv");
        assert_eq!(normal("I ♥ 東京。"), "i ♥ 東京");
        assert_eq!(normal("e\u{301}cole"), normal("ÉCOLE"));
        assert_ne!(normal("!"), normal("?"));
        assert_ne!(normal("👍"), normal("👎"));
    }

    proptest! {
        #[test]
        fn normal_form_is_stable(text in "\\PC{0,40}") {
            let (mut once, mut twice) = (String::new(), String::new());
            normalize_text(&text, &mut once);
            normalize_text(&once, &mut twice);
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn parts_have_their_shares(seed: u64, shares in proptest::collection::vec(1u32..10, 2..5)) {
            let total: u32 = shares.iter().sum();
            let shares: Vec<f64> = shares.iter().map(|s| f64::from(*s) / f64::from(total)).collect();
            let ends = part_ends(&shares);
            let mut counts = vec![0usize; shares.len()];
            for row in 0..4000u64 {
                counts[part_of(hash_row(row, seed), &ends) as usize] += 1;
            }
            for (count, share) in counts.iter().zip(&shares) {
                // five standard deviations of a binomial of 4000 trials
                let spread = 5.0 * (4000.0 * share * (1.0 - share)).sqrt();
                prop_assert!((*count as f64 - 4000.0 * share).abs() <= spread, "{counts:?} {shares:?}");
            }
        }
    }
}
