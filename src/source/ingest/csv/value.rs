//! The values of a CSV column: which type they have, and how they become it. An empty field is null; space around a value counts in text only.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::types::Date32Type;
use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, NullArray, StringViewBuilder, TimestampMicrosecondBuilder,
    UInt64Builder,
};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit};

use crate::error::{Error, Result};

const INTEGER: u8 = 1;
const UNSIGNED: u8 = 2;
const FLOAT: u8 = 4;
const BOOLEAN: u8 = 8;
const DATE: u8 = 16;
/// A moment as a clock shows it.
const LOCAL: u8 = 32;
/// A moment with its distance from UTC.
const ZONED: u8 = 64;

/// The types that all values of a column have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kinds {
    common: u8,
    any: bool,
}

impl Default for Kinds {
    fn default() -> Self {
        Self { common: u8::MAX, any: false }
    }
}

impl Kinds {
    /// Takes a value into account.
    pub(super) fn narrow(&mut self, field: &str) {
        if !field.is_empty() {
            self.any = true;
            if self.common != 0 {
                self.common &= kinds(field.trim());
            }
        }
    }

    /// The narrowest type; `Null`, which fits any other shard, where there is no value.
    pub(super) fn data_type(self) -> DataType {
        let order = [
            (INTEGER, DataType::Int64),
            (UNSIGNED, DataType::UInt64),
            (FLOAT, DataType::Float64),
            (BOOLEAN, DataType::Boolean),
            (DATE, DataType::Date32),
            (LOCAL, moment()),
            (ZONED, moment()),
        ];
        if !self.any {
            return DataType::Null;
        }
        order.into_iter().find(|(kind, _)| self.common & kind != 0).map_or(DataType::Utf8View, |(_, t)| t)
    }
}

fn moment() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// All types that a value has, without loss: `007`, `+49` and whole numbers beyond 64 bits are text, not numbers.
fn kinds(v: &str) -> u8 {
    match v.as_bytes() {
        [b't' | b'T' | b'f' | b'F', ..] => boolean(v).map_or(0, |_| BOOLEAN),
        [b'-' | b'.' | b'0'..=b'9' | b'n' | b'N' | b'i' | b'I', ..] => match number(v) {
            0 => time(v),
            kinds => kinds,
        },
        _ => 0,
    }
}

fn number(v: &str) -> u8 {
    let digits = v.strip_prefix('-').unwrap_or(v);
    let bytes = digits.as_bytes();
    if let [b'0', b'0'..=b'9', ..] = bytes {
        return 0;
    }
    if !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit) {
        let unsigned = if v.parse::<u64>().is_ok() { UNSIGNED | FLOAT } else { 0 };
        let integer = if v.parse::<i64>().is_ok() && v != "-0" { INTEGER | FLOAT } else { 0 };
        return unsigned | integer;
    }
    let words = ["NaN", "nan", "inf", "Inf", "Infinity", "infinity"];
    let float = words.contains(&digits) || matches!(bytes, [b'.' | b'0'..=b'9', ..]);
    if float && v.parse::<f64>().is_ok_and(|f| f.is_finite() || words.contains(&digits)) { FLOAT } else { 0 }
}

/// `YYYY-MM-DD`, or that with a time of day to the microsecond.
fn time(v: &str) -> u8 {
    let b = v.as_bytes();
    let dated = b.len() >= 10 && b[4] == b'-' && b[7] == b'-' && [0, 1, 2, 3, 5, 6, 8, 9].iter().all(|i| b[*i].is_ascii_digit());
    if !dated {
        return 0;
    }
    if b.len() == 10 {
        return if Date32Type::parse(v).is_some() { DATE | LOCAL } else { 0 };
    }
    if b.len() < 16 || !matches!(b[10], b' ' | b'T') || moment_of(v).is_none() {
        return 0;
    }
    let lost = v.split_once('.').is_some_and(|(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).skip(6).any(|d| d != b'0'));
    match b[11..].iter().any(|c| matches!(c, b'Z' | b'z' | b'+' | b'-')) {
        _ if lost => 0,
        true => ZONED,
        false => LOCAL,
    }
}

fn boolean(v: &str) -> Option<bool> {
    match v {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Microseconds since 1970 in UTC; without a zone the clock's time is kept as it is.
fn moment_of(v: &str) -> Option<i64> {
    let utc: Tz = "UTC".parse().ok()?;
    string_to_datetime(&utc, v).ok().map(|t| t.timestamp_micros())
}

/// A column in the making. A value is parsed into `next`, and kept once its whole row is good.
pub(super) struct Column {
    t: DataType,
    next: Option<Value>,
    values: Values,
}

/// One value.
#[derive(Clone, Copy)]
enum Value {
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    Boolean(bool),
    Date(i32),
    Text,
}

/// Values in the widest type of their kind; narrower ones are cast from it block by block.
enum Values {
    Integer(Int64Builder),
    Unsigned(UInt64Builder),
    Float(Float64Builder),
    Boolean(BooleanBuilder),
    Date(Date32Builder),
    Moment(TimestampMicrosecondBuilder),
    Text(StringViewBuilder),
    Null(usize),
}

impl Column {
    /// An empty column of a type that a spec can name, or `Null`.
    pub(super) fn new(t: &DataType) -> Result<Self> {
        let values = match t {
            _ if t.is_signed_integer() => Values::Integer(Int64Builder::new()),
            _ if t.is_unsigned_integer() => Values::Unsigned(UInt64Builder::new()),
            _ if t.is_floating() => Values::Float(Float64Builder::new()),
            DataType::Boolean => Values::Boolean(BooleanBuilder::new()),
            DataType::Date32 => Values::Date(Date32Builder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, None) => Values::Moment(TimestampMicrosecondBuilder::new()),
            DataType::Utf8View => Values::Text(StringViewBuilder::new()),
            DataType::Null => Values::Null(0),
            other => return Err(Error::internal(format!("no CSV column is {other}"))),
        };
        Ok(Self { t: t.clone(), next: None, values })
    }

    /// Reads a field; false where it is not of the column's type.
    pub(super) fn parse(&mut self, field: &str) -> bool {
        self.next = None;
        if field.is_empty() {
            return true;
        }
        self.next = parse(&self.t, field);
        self.next.is_some()
    }

    /// Keeps what was parsed of this field.
    pub(super) fn keep(&mut self, field: &str) {
        match (&mut self.values, self.next) {
            (Values::Integer(to), Some(Value::Integer(v))) => to.append_value(v),
            (Values::Integer(to), _) => to.append_null(),
            (Values::Unsigned(to), Some(Value::Unsigned(v))) => to.append_value(v),
            (Values::Unsigned(to), _) => to.append_null(),
            (Values::Float(to), Some(Value::Float(v))) => to.append_value(v),
            (Values::Float(to), _) => to.append_null(),
            (Values::Boolean(to), Some(Value::Boolean(v))) => to.append_value(v),
            (Values::Boolean(to), _) => to.append_null(),
            (Values::Date(to), Some(Value::Date(v))) => to.append_value(v),
            (Values::Date(to), _) => to.append_null(),
            (Values::Moment(to), Some(Value::Integer(v))) => to.append_value(v),
            (Values::Moment(to), _) => to.append_null(),
            (Values::Text(to), Some(_)) => to.append_value(field),
            (Values::Text(to), None) => to.append_null(),
            (Values::Null(rows), _) => *rows += 1,
        }
    }

    /// The values so far, of which the column is then empty.
    pub(super) fn finish(&mut self) -> Result<ArrayRef> {
        let array: ArrayRef = match &mut self.values {
            Values::Integer(of) => Arc::new(of.finish()),
            Values::Unsigned(of) => Arc::new(of.finish()),
            Values::Float(of) => Arc::new(of.finish()),
            Values::Boolean(of) => Arc::new(of.finish()),
            Values::Date(of) => Arc::new(of.finish()),
            Values::Moment(of) => Arc::new(of.finish()),
            Values::Text(of) => Arc::new(of.finish()),
            Values::Null(rows) => Arc::new(NullArray::new(std::mem::take(rows))),
        };
        Ok(if *array.data_type() == self.t {
            array
        } else {
            cast_with_options(&array, &self.t, &CastOptions { safe: false, ..Default::default() })?
        })
    }
}

fn parse(t: &DataType, field: &str) -> Option<Value> {
    fn whole<T: std::str::FromStr + Into<i64>>(v: &str) -> Option<Value> {
        v.parse::<T>().ok().map(|v| Value::Integer(v.into()))
    }
    fn unsigned<T: std::str::FromStr + Into<u64>>(v: &str) -> Option<Value> {
        v.parse::<T>().ok().map(|v| Value::Unsigned(v.into()))
    }
    let v = field.trim();
    match t {
        DataType::Utf8View => Some(Value::Text),
        DataType::Int8 => whole::<i8>(v),
        DataType::Int16 => whole::<i16>(v),
        DataType::Int32 => whole::<i32>(v),
        DataType::Int64 => whole::<i64>(v),
        DataType::UInt8 => unsigned::<u8>(v),
        DataType::UInt16 => unsigned::<u16>(v),
        DataType::UInt32 => unsigned::<u32>(v),
        DataType::UInt64 => unsigned::<u64>(v),
        // By way of f32, so that it is rounded once.
        DataType::Float32 => v.parse::<f32>().ok().map(|v| Value::Float(v.into())),
        DataType::Float64 => v.parse::<f64>().ok().map(Value::Float),
        DataType::Boolean => boolean(v)
            .or(match v {
                "1" => Some(true),
                "0" => Some(false),
                _ => None,
            })
            .map(Value::Boolean),
        DataType::Date32 => Date32Type::parse(v).map(Value::Date),
        DataType::Timestamp(..) => moment_of(v).map(Value::Integer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> DataType {
        let mut kinds = Kinds::default();
        values.iter().for_each(|v| kinds.narrow(v));
        kinds.data_type()
    }

    #[test]
    fn the_narrowest_type_of_all_values_is_found() {
        assert_eq!(of(&["1", "", "-5", " 7"]), DataType::Int64);
        assert_eq!(of(&["1", "18446744073709551615"]), DataType::UInt64);
        assert_eq!(of(&["1", "2.5", "NaN", "1e3", ".5"]), DataType::Float64);
        assert_eq!(of(&["true", "False", ""]), DataType::Boolean);
        assert_eq!(of(&["2013-01-01", "2012-02-29"]), DataType::Date32);
        assert_eq!(of(&["2013-01-01", "2013-01-01 10:00:00"]), moment());
        assert_eq!(of(&["2013-01-01T10:00:00Z", "2013-01-01T10:00:00.123456+02:00"]), moment());
        assert_eq!(of(&["", ""]), DataType::Null);
    }

    #[test]
    fn what_would_lose_something_stays_text() {
        for values in [
            &["007"][..],
            &["+4930123"],
            &["123456789012345678901"],
            &["1", "x"],
            &["1", "true"],
            &["2013-02-30"],
            &["2013-01-01 10:00:00", "2013-01-01T10:00:00Z"],
            &["2013-01-01 10:00:00.123456789"],
            &["1e999"],
            &[" "],
            &["-"],
            &["nano"],
        ] {
            assert_eq!(of(values), DataType::Utf8View, "{values:?}");
        }
    }
}
