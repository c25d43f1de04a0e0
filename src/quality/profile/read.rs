//! Arrow arrays into columns of a profile: whole arrays at a time, without an allocation per row.

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use xxhash_rust::xxh3::xxh3_64;

use super::class::{Class, float_key, int_key};
use super::column::Column;
use crate::error::{Error, Result};

/// Rows that are looked at together: their keys stay in the processor's cache.
const CHUNK: usize = 8192;
/// Characters of a text that are kept to be shown.
const SHOWN_CHARS: usize = 80;

impl Column {
    /// Takes in an array of the column's class, in whatever encoding. `scratch` is room for keys, used again and again.
    pub fn update(&mut self, array: &ArrayRef, scratch: &mut Vec<u64>) -> Result<()> {
        if Class::of(array.data_type()) != self.class {
            let (name, now, then) = (&self.name, array.data_type(), &self.data_type);
            return Err(Error::internal(format!("column `{name}` was {then} and is {now} in a later batch")));
        }
        let array = decoded(array)?;
        for from in (0..array.len()).step_by(CHUNK) {
            let chunk = array.slice(from, CHUNK.min(array.len() - from));
            self.rows += chunk.len() as u64;
            self.nulls += chunk.logical_null_count() as u64;
            self.read(&chunk, scratch)?;
        }
        Ok(())
    }

    fn read(&mut self, array: &ArrayRef, scratch: &mut Vec<u64>) -> Result<()> {
        match self.class {
            Class::Null | Class::Other => {}
            Class::Boolean => self.trues += array.as_boolean().true_count() as u64,
            Class::Text => self.texts(array),
            Class::Binary => self.bytes(array),
            Class::List => self.lists(array),
            _ => {
                scratch.clear();
                self.keys(array, scratch)?;
                self.add_numbers(scratch);
            }
        }
        Ok(())
    }

    fn texts(&mut self, array: &ArrayRef) {
        match array.data_type() {
            DataType::Utf8 => self.each_text(array.as_string::<i32>().is_ascii(), array.as_string::<i32>().iter().flatten()),
            DataType::LargeUtf8 => self.each_text(array.as_string::<i64>().is_ascii(), array.as_string::<i64>().iter().flatten()),
            _ => self.each_text(false, array.as_string_view().iter().flatten()),
        }
    }

    fn each_text<'a>(&mut self, ascii: bool, values: impl Iterator<Item = &'a str>) {
        for value in values {
            let chars = if ascii { value.len() } else { value.chars().count() };
            self.lengths.add(chars as u64);
            self.padded += u64::from(is_padded(value));
            self.add_hashed(xxh3_64(value.as_bytes()), || shown(value));
        }
    }

    fn bytes(&mut self, array: &ArrayRef) {
        match array.data_type() {
            DataType::Binary => self.each_bytes(array.as_binary::<i32>().iter().flatten()),
            DataType::LargeBinary => self.each_bytes(array.as_binary::<i64>().iter().flatten()),
            DataType::BinaryView => self.each_bytes(array.as_binary_view().iter().flatten()),
            _ => self.each_bytes(array.as_fixed_size_binary().iter().flatten()),
        }
    }

    fn each_bytes<'a>(&mut self, values: impl Iterator<Item = &'a [u8]>) {
        for value in values {
            self.lengths.add(value.len() as u64);
            self.add_hashed(xxh3_64(value), || shown_bytes(value));
        }
    }

    fn lists(&mut self, array: &ArrayRef) {
        match array.data_type() {
            DataType::List(_) => self.each_list(array, array.as_list::<i32>().offsets()),
            DataType::LargeList(_) => self.each_list(array, array.as_list::<i64>().offsets()),
            DataType::ListView(_) => {
                array.as_list_view::<i32>().sizes().iter().enumerate().for_each(|(i, n)| self.one_list(array, i, *n as u64))
            }
            DataType::LargeListView(_) => {
                array.as_list_view::<i64>().sizes().iter().enumerate().for_each(|(i, n)| self.one_list(array, i, *n as u64))
            }
            _ => {
                let length = array.as_fixed_size_list().value_length() as u64;
                (0..array.len()).for_each(|i| self.one_list(array, i, length));
            }
        }
    }

    fn each_list<O: OffsetSizeTrait>(&mut self, array: &ArrayRef, offsets: &[O]) {
        for (i, ends) in offsets.windows(2).enumerate() {
            self.one_list(array, i, (ends[1] - ends[0]).as_usize() as u64);
        }
    }

    fn one_list(&mut self, array: &ArrayRef, row: usize, length: u64) {
        if array.is_valid(row) {
            self.lengths.add(length);
        }
    }

    fn keys(&mut self, array: &ArrayRef, out: &mut Vec<u64>) -> Result<()> {
        use DataType as D;
        let exact = self.class != Class::Float;
        match array.data_type() {
            D::Int8 => keys_of::<Int8Type>(array, out, |v| int_key(v.into())),
            D::Int16 => keys_of::<Int16Type>(array, out, |v| int_key(v.into())),
            D::Int32 => keys_of::<Int32Type>(array, out, |v| int_key(v.into())),
            D::Int64 => keys_of::<Int64Type>(array, out, int_key),
            D::UInt8 => keys_of::<UInt8Type>(array, out, u64::from),
            D::UInt16 => keys_of::<UInt16Type>(array, out, u64::from),
            D::UInt32 => keys_of::<UInt32Type>(array, out, u64::from),
            D::UInt64 => keys_of::<UInt64Type>(array, out, |v| v),
            D::Float16 => self.floats::<Float16Type>(array, out, |v| v.to_f64()),
            D::Float32 => self.floats::<Float32Type>(array, out, f64::from),
            D::Float64 => self.floats::<Float64Type>(array, out, |v| v),
            D::Decimal32(..) if exact => keys_of::<Decimal32Type>(array, out, |v| int_key(v.into())),
            D::Decimal64(..) if exact => keys_of::<Decimal64Type>(array, out, int_key),
            // At most 18 digits: the class says so.
            D::Decimal128(..) if exact => keys_of::<Decimal128Type>(array, out, |v| int_key(v as i64)),
            D::Decimal32(..) | D::Decimal64(..) | D::Decimal128(..) | D::Decimal256(..) => {
                self.floats::<Float64Type>(&cast(array, &D::Float64)?, out, |v| v)
            }
            other => return time_keys(other, array, out),
        }
        Ok(())
    }

    fn floats<T: ArrowPrimitiveType>(&mut self, array: &ArrayRef, out: &mut Vec<u64>, wide: impl Fn(T::Native) -> f64) {
        let (mut nan, mut positive, mut negative) = (0, 0, 0);
        each_run(array.as_primitive::<T>(), |run| {
            for value in run {
                let value = wide(*value);
                if value.is_finite() {
                    out.push(float_key(value));
                } else {
                    nan += u64::from(value.is_nan());
                    positive += u64::from(value == f64::INFINITY);
                    negative += u64::from(value == f64::NEG_INFINITY);
                }
            }
        });
        self.nan += nan;
        self.positive_infinite += positive;
        self.negative_infinite += negative;
    }
}

/// Dictionaries and run-end encodings as their values; texts of a dictionary as views into it, without a copy.
fn decoded(array: &ArrayRef) -> Result<ArrayRef> {
    let values = match array.data_type() {
        DataType::Dictionary(_, values) => values.as_ref(),
        DataType::RunEndEncoded(_, values) => values.data_type(),
        _ => return Ok(array.clone()),
    };
    let plain = if *values == DataType::Utf8 { &DataType::Utf8View } else { values };
    decoded(&cast(array, plain)?)
}

fn time_keys(data_type: &DataType, array: &ArrayRef, out: &mut Vec<u64>) -> Result<()> {
    use DataType as D;
    use TimeUnit as U;
    match data_type {
        D::Date32 => keys_of::<Date32Type>(array, out, |v| int_key(v.into())),
        D::Date64 => keys_of::<Date64Type>(array, out, int_key),
        D::Timestamp(U::Second, _) => keys_of::<TimestampSecondType>(array, out, int_key),
        D::Timestamp(U::Millisecond, _) => keys_of::<TimestampMillisecondType>(array, out, int_key),
        D::Timestamp(U::Microsecond, _) => keys_of::<TimestampMicrosecondType>(array, out, int_key),
        D::Timestamp(U::Nanosecond, _) => keys_of::<TimestampNanosecondType>(array, out, int_key),
        D::Time32(U::Second) => keys_of::<Time32SecondType>(array, out, |v| int_key(v.into())),
        D::Time32(_) => keys_of::<Time32MillisecondType>(array, out, |v| int_key(v.into())),
        D::Time64(U::Microsecond) => keys_of::<Time64MicrosecondType>(array, out, int_key),
        D::Time64(_) => keys_of::<Time64NanosecondType>(array, out, int_key),
        D::Duration(U::Second) => keys_of::<DurationSecondType>(array, out, int_key),
        D::Duration(U::Millisecond) => keys_of::<DurationMillisecondType>(array, out, int_key),
        D::Duration(U::Microsecond) => keys_of::<DurationMicrosecondType>(array, out, int_key),
        D::Duration(U::Nanosecond) => keys_of::<DurationNanosecondType>(array, out, int_key),
        other => return Err(Error::internal(format!("{other} has no keys"))),
    }
    Ok(())
}

fn keys_of<T: ArrowPrimitiveType>(array: &ArrayRef, out: &mut Vec<u64>, key: impl Fn(T::Native) -> u64) {
    each_run(array.as_primitive::<T>(), |run| out.extend(run.iter().map(|v| key(*v))));
}

/// Calls `run` for every stretch of values without a null.
fn each_run<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, mut run: impl FnMut(&[T::Native])) {
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => run(array.values()),
        Some(nulls) => nulls.valid_slices().for_each(|(from, to)| run(&array.values()[from..to])),
    }
}

fn is_padded(value: &str) -> bool {
    let white = |byte: Option<&u8>, edge: fn(&str) -> Option<char>| match byte {
        Some(byte) if byte.is_ascii() => byte.is_ascii_whitespace(),
        Some(_) => edge(value).is_some_and(char::is_whitespace),
        None => false,
    };
    white(value.as_bytes().first(), |v| v.chars().next()) || white(value.as_bytes().last(), |v| v.chars().next_back())
}

/// The first characters of a text.
fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

fn shown_bytes(value: &[u8]) -> String {
    let most = SHOWN_CHARS / 2;
    let more = if value.len() > most { "…" } else { "" };
    format!("0x{}{more}", hex::encode(&value[..value.len().min(most)]))
}
