//! The types of JSON values, gathered line by line without building them.
//!
//! At each place all values of all lines are counted by shape: scalar, list, object. The most frequent shape gives the type (a tie goes to
//! scalars, then lists); lines with another one are rejected later. Scalars of several kinds become the type that holds them all without
//! loss: whole numbers and fractions `Float64`, whole numbers beyond `i64` `UInt64`, anything else text.

use arrow::datatypes::{DataType, Field};
use indexmap::IndexMap;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::list_of;

/// What was seen at one place.
#[derive(Debug, Default)]
pub(super) struct Seen {
    booleans: u64,
    integers: u64,
    floats: u64,
    texts: u64,
    lists: u64,
    objects: u64,
    /// A whole number below 0.
    negative: bool,
    /// A whole number beyond `i64`.
    large: bool,
    /// What lists hold.
    item: Option<Box<Seen>>,
    /// What objects hold, in the order of their first line.
    fields: IndexMap<String, Seen>,
}

impl Seen {
    /// Adds a line, which is known to be JSON.
    pub(super) fn add(&mut self, text: &str) -> serde_json::Result<()> {
        let mut from = serde_json::Deserializer::from_str(text);
        (&mut *self).deserialize(&mut from)
    }

    /// The columns.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&String, &Seen)> {
        self.fields.iter()
    }

    /// How many names there are, at all depths.
    pub(super) fn names(&self) -> usize {
        self.fields.len() + self.fields.values().chain(self.item.as_deref()).map(Seen::names).sum::<usize>()
    }

    fn scalars(&self) -> u64 {
        self.booleans + self.integers + self.floats + self.texts
    }

    /// Whether some value does not fit the type of its place.
    pub(super) fn is_mixed(&self) -> bool {
        let shapes = [self.scalars(), self.lists, self.objects].iter().filter(|n| **n > 0).count();
        shapes > 1 || self.item.as_ref().is_some_and(|i| i.is_mixed()) || self.fields.values().any(Seen::is_mixed)
    }

    /// The type; none where objects hold nothing, which no Parquet column can say. Text flows as views at the top only.
    pub(super) fn data_type(&self, top: bool) -> Option<DataType> {
        let most = self.scalars().max(self.lists).max(self.objects);
        Some(if most == 0 {
            DataType::Null
        } else if self.scalars() == most {
            self.scalar(top)
        } else if self.lists == most {
            list_of(self.item.as_ref().map_or(Some(DataType::Null), |i| i.data_type(false))?)
        } else {
            let fields = self.fields.iter().filter_map(|(name, seen)| Some(Field::new(name, seen.data_type(false)?, true)));
            let fields: Vec<Field> = fields.collect();
            if fields.is_empty() {
                return None;
            }
            DataType::Struct(fields.into())
        })
    }

    fn scalar(&self, top: bool) -> DataType {
        let numbers = self.integers + self.floats;
        if self.texts > 0 || (self.booleans > 0 && numbers > 0) {
            return if top { DataType::Utf8View } else { DataType::Utf8 };
        }
        match (self.booleans > 0, self.floats > 0, self.large, self.negative) {
            (true, ..) => DataType::Boolean,
            (_, true, ..) | (_, _, true, true) => DataType::Float64,
            (_, _, true, false) => DataType::UInt64,
            _ => DataType::Int64,
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Seen {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Seen {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.booleans += 1;
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        // serde_json gives whole numbers from 0 on as `u64`.
        self.integers += 1;
        self.negative = true;
        Ok(())
    }

    fn visit_u64<E>(self, v: u64) -> Result<(), E> {
        self.integers += 1;
        self.large |= i64::try_from(v).is_err();
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.floats += 1;
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.texts += 1;
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.lists += 1;
        while seq.next_element_seed(&mut **self.item.get_or_insert_default())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.objects += 1;
        while let Some(at) = map.next_key_seed(Key(&mut self.fields))? {
            let (_, seen) = self.fields.get_index_mut(at).ok_or_else(|| A::Error::custom("a name vanished"))?;
            map.next_value_seed(seen)?;
        }
        Ok(())
    }
}

/// A name's place among the fields; only a new one is copied.
struct Key<'a>(&'a mut IndexMap<String, Seen>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<usize, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<usize, E> {
        Ok(match self.0.get_index_of(name) {
            Some(at) => at,
            None => self.0.insert_full(name.to_owned(), Seen::default()).0,
        })
    }
}
