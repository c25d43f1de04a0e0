//! Whether a line is JSON, and whether its values fit the columns.

use arrow::array::timezone::Tz;
use arrow::array::types::Date32Type;
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::{DataType, Fields, Schema};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::source::ingest::misfit;

/// Whether a text is a JSON object; an error where it is not JSON by the strict grammar.
pub(super) fn is_object(text: &str) -> serde_json::Result<bool> {
    serde_json::from_str::<Strict>(text)?;
    Ok(text.starts_with('{'))
}

/// Any value, looked at whole: serde's own `IgnoredAny` skips escapes and ranges of numbers.
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_str<E>(self, _: &str) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
        while seq.next_element::<Strict>()?.is_some() {}
        Ok(Strict)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
        while map.next_entry::<Strict, Strict>()?.is_some() {}
        Ok(Strict)
    }
}

/// Checks a line, which is known to be a JSON object, against the columns. The reason names the first column that does not fit.
pub(super) fn check(line: &[u8], schema: &Schema) -> Result<(), String> {
    let mut misfits = None;
    let mut from = serde_json::Deserializer::from_slice(line);
    let read = Row { fields: schema.fields(), misfit: &mut misfits }.deserialize(&mut from);
    match (misfits, read) {
        (Some(at), _) => Err(misfit(schema.field(at).name(), schema.field(at).data_type())),
        (None, Ok(_)) => Ok(()),
        (None, Err(e)) => Err(super::not_json(&e)),
    }
}

/// An object against fields: true where all values fit. Names that are no fields are not looked at.
struct Row<'a> {
    fields: &'a Fields,
    misfit: &'a mut Option<usize>,
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        while let Some(at) = map.next_key_seed(Name(self.fields))? {
            match at {
                None => _ = map.next_value::<Strict>()?,
                Some(at) => {
                    if !map.next_value_seed(Value(self.fields[at].data_type()))? {
                        self.misfit.get_or_insert(at);
                    }
                }
            }
        }
        Ok(self.misfit.is_none())
    }
}

/// The place of a name among fields.
struct Name<'a>(&'a Fields);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.find(name).map(|(at, _)| at))
    }
}

/// A value against a type: whether it can become it without loss. Null fits all.
struct Value<'a>(&'a DataType);

impl Value<'_> {
    fn is_text(&self) -> bool {
        matches!(self.0, DataType::Utf8 | DataType::Utf8View)
    }

    /// The bounds of whole numbers of the type.
    fn range(&self) -> Option<(i128, i128)> {
        Some(match self.0 {
            DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => (i64::MIN.into(), i64::MAX.into()),
            DataType::UInt8 => (0, u8::MAX.into()),
            DataType::UInt16 => (0, u16::MAX.into()),
            DataType::UInt32 => (0, u32::MAX.into()),
            DataType::UInt64 => (0, u64::MAX.into()),
            _ => return None,
        })
    }

    fn integer(&self, v: i128) -> bool {
        self.is_text() || self.0.is_floating() || self.range().is_some_and(|(low, high)| (low..=high).contains(&v))
    }

    fn text(&self, v: &str) -> bool {
        match self.0 {
            DataType::Utf8 | DataType::Utf8View => true,
            DataType::Float32 | DataType::Float64 => v.parse::<f64>().is_ok(),
            DataType::Date32 => Date32Type::parse(v).is_some(),
            DataType::Timestamp(..) => "UTC".parse::<Tz>().is_ok_and(|utc| string_to_datetime(&utc, v).is_ok()),
            _ => self.range().is_some() && v.parse::<i128>().is_ok_and(|v| self.integer(v)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(self.is_text() || matches!(self.0, DataType::Boolean))
    }

    fn visit_i64<E>(self, v: i64) -> Result<bool, E> {
        Ok(self.integer(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<bool, E> {
        Ok(self.integer(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<bool, E> {
        // `3.0` and `1e3` are whole numbers too, as long as a double holds every one of their size.
        let whole = v.fract() == 0.0 && v.abs() <= 9_007_199_254_740_992.0;
        let narrow = !matches!(self.0, DataType::Float32) || (v as f32).is_finite();
        Ok(if self.range().is_some() { whole && self.integer(v as i128) } else { self.is_text() || (self.0.is_floating() && narrow) })
    }

    fn visit_str<E>(self, v: &str) -> Result<bool, E> {
        Ok(self.text(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let DataType::List(item) = self.0 else {
            while seq.next_element::<Strict>()?.is_some() {}
            return Ok(false);
        };
        let mut fits = true;
        while let Some(one) = seq.next_element_seed(Value(item.data_type()))? {
            fits &= one;
        }
        Ok(fits)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        match self.0 {
            DataType::Struct(fields) => Row { fields, misfit: &mut None }.visit_map(map),
            _ => {
                while map.next_entry::<Strict, Strict>()?.is_some() {}
                Ok(false)
            }
        }
    }
}
