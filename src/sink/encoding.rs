//! How the columns of a shard are encoded: chosen by a look at its first rows.
//!
//! Parquet writers put every column into a dictionary and give that up when it has grown too large. For identifiers, measurements and sentences all of
//! that hashing is for nothing, and what comes out is larger too. So each column gets what its first rows speak for:
//!
//! | column | few different values | otherwise |
//! |---|---|---|
//! | whole numbers, dates, times, decimals up to 18 digits | dictionary | `DELTA_BINARY_PACKED` |
//! | floats | dictionary | `BYTE_STREAM_SPLIT` |
//! | text, binary | dictionary | `DELTA_LENGTH_BYTE_ARRAY` |
//! | the rest | the writer's own choice | |
//!
//! The choice is a matter of size and speed alone. It looks at rows whose number does not depend on batches, and computes with nothing but
//! additions, multiplications and divisions, so that every machine chooses alike.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use hashbrown::HashSet;
use parquet::basic::Encoding;
use parquet::file::properties::{DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::error::Result;
use crate::stages::kernel::hash_rows;

/// Rows that are looked at.
const SAMPLE: usize = 8192;
/// Differences that share a width in `DELTA_BINARY_PACKED`.
const MINIBLOCK: usize = 32;
/// What compression makes of text without a dictionary, about.
const TEXT_SHRINKS: f64 = 0.5;
/// What compression makes of the split bytes of floats, about.
const FLOATS_SHRINK: f64 = 0.85;

/// The properties with each column's encoding, for row groups of so many rows that begin like `first`.
pub fn suited(properties: WriterProperties, first: &RecordBatch, group_rows: usize) -> Result<WriterProperties> {
    let mut builder = properties.into_builder();
    let rows = first.num_rows().min(SAMPLE);
    let group_rows = if first.num_rows() > rows { group_rows.max(rows) } else { rows };
    for (field, column) in first.schema().fields().iter().zip(first.columns()) {
        let sample = column.slice(0, rows);
        let Some(kind) = Kind::of(&sample) else { continue };
        let path = ColumnPath::new(vec![field.name().clone()]);
        let distinct = expected_distinct(&sample, group_rows)?;
        builder = builder
            .set_column_dictionary_enabled(path.clone(), kind.dictionary_pays(distinct, group_rows as f64))
            .set_column_encoding(path, kind.encoding);
    }
    Ok(builder.build())
}

/// A column that can do without a dictionary.
struct Kind {
    /// Its encoding then.
    encoding: Encoding,
    /// Bits of a value then, once compressed.
    bits: f64,
    /// Bytes of a value in a dictionary.
    bytes: f64,
}

impl Kind {
    fn of(sample: &ArrayRef) -> Option<Self> {
        let floats = |bytes: f64| Self { encoding: Encoding::BYTE_STREAM_SPLIT, bits: 8.0 * bytes * FLOATS_SHRINK, bytes };
        match sample.data_type() {
            DataType::Float32 => Some(floats(4.0)),
            DataType::Float64 => Some(floats(8.0)),
            DataType::Utf8View => Some(Self::text(sample, sample.as_string_view().lengths())),
            DataType::BinaryView => Some(Self::text(sample, sample.as_binary_view().lengths())),
            DataType::Utf8 => Some(Self::text(sample, sample.as_string::<i32>().offsets().lengths().map(|n| n as u32))),
            DataType::Binary => Some(Self::text(sample, sample.as_binary::<i32>().offsets().lengths().map(|n| n as u32))),
            t => whole_bytes(t).map(|bytes| Self { encoding: Encoding::DELTA_BINARY_PACKED, bits: delta_bits(sample), bytes }),
        }
    }

    fn text(sample: &ArrayRef, lengths: impl Iterator<Item = u32>) -> Self {
        let present = (sample.len() - sample.null_count()).max(1) as f64;
        let mean = lengths.map(f64::from).sum::<f64>() / present;
        Self { encoding: Encoding::DELTA_LENGTH_BYTE_ARRAY, bits: 8.0 * mean * TEXT_SHRINKS, bytes: mean + 4.0 }
    }

    /// Whether so many different values are better kept in a dictionary.
    fn dictionary_pays(&self, distinct: f64, rows: f64) -> bool {
        let index_bits = f64::from((distinct as u64).max(1).ilog2() + 1);
        let overflows = distinct * self.bytes > DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT as f64;
        !overflows && index_bits + 8.0 * self.bytes * distinct / rows.max(1.0) <= self.bits
    }
}

/// Bytes of a value of a type that Parquet stores as a whole number.
fn whole_bytes(t: &DataType) -> Option<f64> {
    use DataType as D;
    match t {
        D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16 | D::UInt32 | D::Date32 | D::Time32(_) => Some(4.0),
        D::Int64 | D::UInt64 | D::Time64(_) | D::Timestamp(..) | D::Duration(_) => Some(8.0),
        D::Decimal32(p, _) | D::Decimal64(p, _) | D::Decimal128(p, _) if *p <= 9 => Some(4.0),
        D::Decimal64(p, _) | D::Decimal128(p, _) if *p <= 18 => Some(8.0),
        _ => None,
    }
}

/// Bits of a value as differences to its predecessor, with one width for every few of them.
fn delta_bits(sample: &ArrayRef) -> f64 {
    let values: Vec<i64> = whole_numbers(sample);
    let deltas: Vec<i64> = values.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
    let bits = deltas.chunks(MINIBLOCK).map(|block| {
        let (least, most) = block.iter().fold((i64::MAX, i64::MIN), |(a, b), d| (a.min(*d), b.max(*d)));
        f64::from(u64::BITS - (most.wrapping_sub(least) as u64).leading_zeros())
    });
    let (sum, blocks) = bits.fold((0.0, 0.0), |(sum, n), bits| (sum + bits, n + 1.0));
    if blocks == 0.0 { 0.0 } else { sum / blocks }
}

/// The values that are there, whatever they mean, as numbers of 64 bits.
fn whole_numbers(array: &ArrayRef) -> Vec<i64> {
    let data = array.to_data();
    let (Some(width), Some(buffer)) = (array.data_type().primitive_width(), data.buffers().first()) else { return Vec::new() };
    let bytes = &buffer.as_slice()[data.offset() * width..(data.offset() + data.len()) * width];
    let number = |bytes: &[u8]| {
        let mut wide = if bytes.last().is_some_and(|b| b & 0x80 != 0) { [0xFF; 16] } else { [0; 16] };
        wide[..width].copy_from_slice(bytes);
        i128::from_le_bytes(wide) as i64
    };
    bytes.chunks_exact(width).enumerate().filter(|(i, _)| array.is_valid(*i)).map(|(_, b)| number(b)).collect()
}

/// How many different values a row group will hold. Each half of the sample brought some that are new; the next ones are taken to bring fewer by the
/// same part each time, which is right for random draws, for runs and for values that never come again.
fn expected_distinct(sample: &ArrayRef, rows: usize) -> Result<f64> {
    let half = sample.len() / 2;
    let mut seen = HashSet::with_capacity(sample.len());
    let mut count = |part: ArrayRef| -> Result<f64> {
        let before = seen.len();
        seen.extend(hash_rows::<u64>(std::slice::from_ref(&part), part.len(), 0)?);
        Ok((seen.len() - before) as f64)
    };
    let (first, second) = (count(sample.slice(0, half))?, count(sample.slice(half, sample.len() - half))?);
    let fewer = if first > 0.0 { (second / first).min(1.0) } else { 1.0 };
    let (mut total, mut new) = (first + second, second);
    for _ in 2..rows.div_ceil(half.max(1)) {
        new *= fewer;
        total += new;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Decimal128Array, Float64Array, Int64Array, StringViewArray};

    use super::*;
    use crate::stages::kernel::hash_row;

    const ROWS: usize = 20_000;

    fn random(i: usize) -> u64 {
        hash_row(i as u64, 1)
    }

    fn chosen(array: ArrayRef) -> (bool, Encoding) {
        let batch = RecordBatch::try_from_iter([("a.b", array)]).unwrap();
        let properties = suited(WriterProperties::default(), &batch, 131_072).unwrap();
        let path = ColumnPath::new(vec!["a.b".to_owned()]);
        (properties.dictionary_enabled(&path), properties.encoding(&path).unwrap())
    }

    fn whole(value: impl Fn(usize) -> i64) -> (bool, Encoding) {
        chosen(Arc::new((0..ROWS).map(|i| Some(value(i))).collect::<Int64Array>()))
    }

    #[test]
    fn few_values_go_into_a_dictionary() {
        assert!(whole(|i| (random(i) % 50) as i64 * 1_000_003).0);
        assert!(chosen(Arc::new((0..ROWS).map(|i| Some((random(i) % 100) as i32 * 30)).collect::<Date32Array>())).0);
        assert!(chosen(Arc::new((0..ROWS).map(|i| Some((random(i) % 11) as f64 / 100.0)).collect::<Float64Array>())).0);
        let words = ["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"];
        assert!(chosen(Arc::new((0..ROWS).map(|i| Some(words[random(i) as usize % 4])).collect::<StringViewArray>())).0);
    }

    #[test]
    fn many_values_do_not() {
        assert_eq!(whole(|i| i as i64 / 4), (false, Encoding::DELTA_BINARY_PACKED));
        assert_eq!(whole(|i| (random(i) % 200_000) as i64), (false, Encoding::DELTA_BINARY_PACKED));
        let money = (0..ROWS).map(|i| i128::from(random(i) % 10_000_000)).map(Some);
        let money = money.collect::<Decimal128Array>().with_precision_and_scale(15, 2).unwrap();
        assert_eq!(chosen(Arc::new(money)), (false, Encoding::DELTA_BINARY_PACKED));
        let floats = (0..ROWS).map(|i| Some(random(i) as f64 / 7.0)).collect::<Float64Array>();
        assert_eq!(chosen(Arc::new(floats)), (false, Encoding::BYTE_STREAM_SPLIT));
        let texts = (0..ROWS).map(|i| Some(format!("sentence {}", random(i)))).collect::<StringViewArray>();
        assert_eq!(chosen(Arc::new(texts)), (false, Encoding::DELTA_LENGTH_BYTE_ARRAY));
    }

    #[test]
    fn random_identifiers_that_come_again_are_kept_once() {
        assert!(whole(|i| random(i / 16) as i64).0);
        assert!(!whole(|i| random(i) as i64).0);
    }

    #[test]
    fn nothing_to_look_at_is_fine() {
        for rows in [0, 1, 2] {
            chosen(Arc::new((0..rows).map(Some).collect::<Int64Array>()));
            chosen(Arc::new((0..rows).map(|_| None::<f64>).collect::<Float64Array>()));
            chosen(Arc::new((0..rows).map(|_| None::<&str>).collect::<StringViewArray>()));
        }
    }

    #[test]
    fn the_number_of_values_is_foreseen() {
        let of = |value: &dyn Fn(usize) -> i64| {
            let sample: ArrayRef = Arc::new((0..SAMPLE).map(|i| Some(value(i))).collect::<Int64Array>());
            expected_distinct(&sample, 131_072).unwrap()
        };
        assert_eq!(of(&|i| i as i64 / 4), 32_768.0);
        assert_eq!(of(&|i| i as i64 % 7), 7.0);
        // Of D values, n random draws find D · (1 − (1 − 1/D)ⁿ).
        for (values, expected) in [(10_000_u64, 10_000.0), (200_000, 96_150.0)] {
            let got = of(&|i| (random(i) % values) as i64);
            assert!((0.8..1.25).contains(&(got / expected)), "{got} of {values}");
        }
    }
}
