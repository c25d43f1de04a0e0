//! How a column's Arrow type is understood: as numbers (through an order-preserving 64-bit key), text, lengths, or only counted.

use arrow::datatypes::{DataType, TimeUnit};
use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};

use super::summary::Value;

/// What a column's values are to a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Class {
    /// Nulls only.
    Null,
    /// True or false.
    Boolean,
    /// Signed integers.
    Int,
    /// Unsigned integers.
    UInt,
    /// Floating point, and decimals of more than 18 digits.
    Float,
    /// Decimals of at most 18 digits, exact: the unscaled integer.
    Decimal {
        /// Digits after the point.
        scale: i8,
    },
    /// Days since 1970-01-01.
    Date,
    /// Moments since 1970-01-01.
    Timestamp {
        /// Ticks in a second.
        per_second: i64,
        /// Whether the type names a zone: moments are shown in UTC then.
        zoned: bool,
    },
    /// Times of day.
    Time {
        /// Ticks in a second.
        per_second: i64,
    },
    /// Spans of time.
    Duration {
        /// Ticks in a second.
        per_second: i64,
    },
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
    /// Lists: their lengths.
    List,
    /// Counted only.
    Other,
}

/// Decimals of so many digits fit into 64 bits.
const EXACT_DIGITS: u8 = 18;

impl Class {
    /// The class of an Arrow type; a dictionary or run-end encoding is what its values are.
    pub fn of(data_type: &DataType) -> Self {
        use DataType as D;
        match data_type {
            D::Null => Self::Null,
            D::Boolean => Self::Boolean,
            D::Int8 | D::Int16 | D::Int32 | D::Int64 => Self::Int,
            D::UInt8 | D::UInt16 | D::UInt32 | D::UInt64 => Self::UInt,
            D::Float16 | D::Float32 | D::Float64 => Self::Float,
            D::Decimal32(digits, scale) | D::Decimal64(digits, scale) | D::Decimal128(digits, scale) if *digits <= EXACT_DIGITS => {
                Self::Decimal { scale: *scale }
            }
            D::Decimal32(..) | D::Decimal64(..) | D::Decimal128(..) | D::Decimal256(..) => Self::Float,
            D::Date32 => Self::Date,
            // A Date64 is a day told in milliseconds; whole days are shown as midnight.
            D::Date64 => Self::Timestamp { per_second: 1_000, zoned: false },
            D::Timestamp(unit, zone) => Self::Timestamp { per_second: per_second(unit), zoned: zone.is_some() },
            D::Time32(unit) | D::Time64(unit) => Self::Time { per_second: per_second(unit) },
            D::Duration(unit) => Self::Duration { per_second: per_second(unit) },
            D::Utf8 | D::LargeUtf8 | D::Utf8View => Self::Text,
            D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => Self::Binary,
            D::List(_) | D::LargeList(_) | D::FixedSizeList(..) | D::ListView(_) | D::LargeListView(_) => Self::List,
            D::Dictionary(_, values) => Self::of(values),
            D::RunEndEncoded(_, values) => Self::of(values.data_type()),
            _ => Self::Other,
        }
    }

    /// Whether values go through 64-bit keys.
    pub fn is_number(self) -> bool {
        !matches!(self, Self::Null | Self::Boolean | Self::Text | Self::Binary | Self::List | Self::Other)
    }

    /// Whether mean and deviation are shown: points in time have an order, but no useful deviation.
    pub fn has_moments(self) -> bool {
        matches!(self, Self::Int | Self::UInt | Self::Float | Self::Decimal { .. } | Self::Duration { .. })
    }

    /// Whether every value is a whole number of the unit shown.
    pub fn is_whole(self) -> bool {
        self.is_number() && !matches!(self, Self::Float | Self::Decimal { .. })
    }

    /// Whether distinct and most frequent values are counted.
    pub fn is_tallied(self) -> bool {
        self.is_number() || matches!(self, Self::Text | Self::Binary)
    }

    /// A key as a number of the unit shown.
    pub fn number(self, key: u64) -> f64 {
        match self {
            Self::Float => float_of(key),
            Self::UInt => key as f64,
            Self::Decimal { scale } => int_of(key) as f64 / 10f64.powi(i32::from(scale)),
            _ => int_of(key) as f64,
        }
    }

    /// A key as it is shown.
    pub fn value(self, key: u64) -> Value {
        match self {
            Self::Float | Self::Decimal { .. } => Value::Float(self.number(key)),
            Self::UInt => Value::UInt(key),
            Self::Date => Value::Text(moment(int_of(key).saturating_mul(86_400), 0, "day")),
            Self::Timestamp { per_second, zoned } => {
                let (seconds, nanos) = split_ticks(int_of(key), per_second);
                Value::Text(moment(seconds, nanos, if zoned { "zoned" } else { "plain" }))
            }
            Self::Time { per_second } => {
                let (seconds, nanos) = split_ticks(int_of(key), per_second);
                Value::Text(moment(seconds, nanos, "time"))
            }
            Self::Duration { per_second } => Value::Float(int_of(key) as f64 / per_second as f64),
            _ => Value::Int(int_of(key)),
        }
    }

    /// A position between keys (an edge of a histogram) as it is shown.
    pub fn position(self, number: f64) -> Value {
        match self {
            Self::Date | Self::Timestamp { .. } | Self::Time { .. } => self.value(int_key(number.round() as i64)),
            Self::Duration { per_second } => Value::Float(number / per_second as f64),
            _ => Value::Float(number),
        }
    }
}

fn per_second(unit: &TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn split_ticks(ticks: i64, per_second: i64) -> (i64, u32) {
    let nanos = ticks.rem_euclid(per_second) * (1_000_000_000 / per_second);
    (ticks.div_euclid(per_second), u32::try_from(nanos).unwrap_or(0))
}

/// A moment as ISO 8601; one that no calendar holds is told in seconds.
fn moment(seconds: i64, nanos: u32, style: &str) -> String {
    let Some(moment) = DateTime::from_timestamp(seconds, nanos) else { return format!("{seconds} s since 1970") };
    match style {
        "day" => moment.format("%Y-%m-%d").to_string(),
        "time" => moment.format("%H:%M:%S%.f").to_string(),
        "zoned" => moment.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        _ => moment.naive_utc().format("%Y-%m-%dT%H:%M:%S%.f").to_string(),
    }
}

/// An order-preserving key of a signed integer.
#[inline]
pub(super) fn int_key(value: i64) -> u64 {
    (value as u64) ^ (1 << 63)
}

/// An order-preserving key of a float: −0 is 0.
#[inline]
pub(super) fn float_key(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    // Negative numbers count downwards in IEEE 754: flip all of their bits, and the sign alone of the others.
    bits ^ ((((bits as i64) >> 63) as u64) | (1 << 63))
}

#[inline]
fn int_of(key: u64) -> i64 {
    (key ^ (1 << 63)) as i64
}

#[inline]
fn float_of(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 { key ^ (1 << 63) } else { !key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_keep_the_order_and_come_back(a in any::<f64>(), b in any::<f64>(), i in any::<i64>(), j in any::<i64>()) {
            prop_assert_eq!(int_key(i).cmp(&int_key(j)), i.cmp(&j));
            prop_assert_eq!(int_of(int_key(i)), i);
            if a.is_finite() && b.is_finite() {
                prop_assert_eq!(Some(float_key(a).cmp(&float_key(b))), a.partial_cmp(&b));
                prop_assert_eq!(float_of(float_key(a)), a);
            }
        }
    }

    #[test]
    fn moments_in_time_are_shown_as_iso_8601() {
        let at = |class: Class, ticks: i64| class.value(int_key(ticks)).to_string();
        assert_eq!(at(Class::Date, -1), "1969-12-31");
        assert_eq!(at(Class::Timestamp { per_second: 1_000, zoned: true }, 1_500), "1970-01-01T00:00:01.500Z");
        assert_eq!(at(Class::Timestamp { per_second: 1, zoned: false }, 60), "1970-01-01T00:01:00");
        assert_eq!(at(Class::Time { per_second: 1_000_000 }, 3_600_000_000), "01:00:00");
        assert_eq!(at(Class::Date, i64::MAX), format!("{} s since 1970", i64::MAX));
        assert_eq!(Class::Decimal { scale: 2 }.value(int_key(-1234)), Value::Float(-12.34));
    }
}
