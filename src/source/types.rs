//! One schema for all shards of a source, and the types in which rows flow.
//!
//! Text flows as views (`Utf8View`), the type both engines use without copying. Shards may differ: columns in another order, missing ones
//! (null), numbers of another width. What cannot be bridged (text in one shard, a number in another) is an error that names both.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::open::Shard;
use crate::dataset::manifest::ColumnInfo;
use crate::error::{Error, Result};
use crate::stages::step::{CODE, ROW, SPLIT};

/// A schema that fits all shards.
pub(super) struct Merged {
    pub schema: SchemaRef,
    pub notes: Vec<String>,
}

/// The schema with text and binary as views.
pub fn as_views(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_data_type(as_view(f.data_type())));
    Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
}

fn as_view(t: &DataType) -> DataType {
    match t {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        other => other.clone(),
    }
}

/// The type in which a column flows: text as views, dictionaries as their values.
pub fn flowing(t: &DataType) -> DataType {
    match t {
        DataType::Dictionary(_, value) => as_view(value),
        other => as_view(other),
    }
}

/// The columns of a manifest as a schema again.
pub fn parse(columns: &[ColumnInfo]) -> Result<SchemaRef> {
    let fields = columns.iter().map(|c| {
        let t: DataType = c.data_type.parse().map_err(|e| Error::input(format!("the manifest names a type that is unknown here: {e}")))?;
        Ok(Field::new(&c.name, flowing(&t), true))
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

/// Names that cannot be used: twice the same, or Feedline's own.
pub(super) fn check_names(schema: &SchemaRef) -> Result<()> {
    let mut seen = BTreeSet::new();
    for field in schema.fields() {
        if !seen.insert(field.name()) {
            return Err(Error::input(format!("two columns are named `{}`", field.name())).hint("rename one where the file is written"));
        }
        if [ROW, SPLIT, CODE].contains(&field.name().as_str()) {
            return Err(
                Error::input(format!("the column name `{}` is Feedline's own", field.name())).hint("rename it where the file is written")
            );
        }
    }
    Ok(())
}

/// Merges the shards' schemas in order; hive columns come last.
pub(super) fn merge(shards: &[Shard], hive: bool) -> Result<Merged> {
    let mut fields: Vec<Field> = Vec::new();
    let mut origin: Vec<&str> = Vec::new();
    let mut notes = BTreeSet::new();
    for (i, shard) in shards.iter().enumerate() {
        let schema = shard.reader.schema();
        for field in schema.fields() {
            let t = flowing(field.data_type());
            match fields.iter().position(|f| f.name() == field.name()) {
                None => {
                    if i > 0 {
                        notes.insert(format!("column `{}` is missing in `{}` and others: null there", field.name(), shards[0].path));
                    }
                    fields.push(Field::new(field.name(), t, field.is_nullable() || i > 0));
                    origin.push(&shard.path);
                }
                Some(at) => {
                    let known = fields[at].data_type().clone();
                    let common = common_type(&known, &t).ok_or_else(|| {
                        Error::input(format!("column `{}` is {known} in `{}`, but {t} in `{}`", field.name(), origin[at], shard.path))
                            .hint("give the shards one type, or read them as two sources and `cast` before `concat`")
                    })?;
                    if common != known || common != t {
                        notes.insert(format!(
                            "column `{}` is {known} in `{}`, {t} in `{}`: read as {common}",
                            field.name(),
                            origin[at],
                            shard.path
                        ));
                    }
                    let nullable = fields[at].is_nullable() || field.is_nullable();
                    fields[at] = Field::new(field.name(), common, nullable);
                }
            }
        }
        for field in &mut fields {
            if schema.field_with_name(field.name()).is_err() {
                notes.insert(format!("column `{}` is missing in `{}`: null there", field.name(), shard.path));
                *field = field.clone().with_nullable(true);
            }
        }
    }
    if hive {
        add_hive(shards, &mut fields);
    }
    Ok(Merged { schema: Arc::new(Schema::new(fields)), notes: notes.into_iter().collect() })
}

/// The `key=value` folders of a path, values decoded; `None` for Hive's null.
pub(super) fn hive_parts(path: &str) -> Vec<(String, Option<String>)> {
    let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
    let pairs = folders.split('/').filter_map(|part| part.split_once('=')).filter(|(key, _)| !key.is_empty());
    pairs.map(|(key, value)| (decode(key), (value != "__HIVE_DEFAULT_PARTITION__").then(|| decode(value)))).collect()
}

/// `%20` and the like as characters.
fn decode(text: &str) -> String {
    let url = url::form_urlencoded::parse(text.replace('+', "%2B").as_bytes()).next().map(|(k, _)| k.into_owned());
    if text.contains('%') && !text.contains(['&', '=']) { url.unwrap_or_else(|| text.to_owned()) } else { text.to_owned() }
}

/// A key whose values are all whole numbers becomes `Int64`, any other text. A column that the files hold themselves wins.
fn add_hive(shards: &[Shard], fields: &mut Vec<Field>) {
    let parts: Vec<_> = shards.iter().map(|s| hive_parts(&s.path)).collect();
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in parts.iter().flatten() {
        if !keys.contains(&key) && !fields.iter().any(|f| f.name() == key) {
            keys.push(key);
        }
    }
    for key in keys {
        let mut values = parts.iter().flatten().filter(|(k, _)| k == key).filter_map(|(_, v)| v.as_deref());
        let whole = values.all(|v| v.parse::<i64>().is_ok());
        fields.push(Field::new(key, if whole { DataType::Int64 } else { DataType::Utf8View }, true));
    }
}

/// The narrowest type that holds both without loss (whole numbers of 64 bits beside floating point become `Float64`).
pub fn common_type(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{Date32, Float16, Float32, Float64, Int8, Int16, Int32, Int64, Null, Timestamp, UInt8, UInt16, UInt32, UInt64};
    if a == b {
        return Some(a.clone());
    }
    let width = |t: &DataType| match t {
        Int8 | UInt8 => Some(8),
        Int16 | UInt16 | Float16 => Some(16),
        Int32 | UInt32 | Float32 => Some(32),
        Int64 | UInt64 | Float64 => Some(64),
        _ => None,
    };
    match (a, b) {
        (Null, other) | (other, Null) => Some(other.clone()),
        (Date32, t @ Timestamp(_, _)) | (t @ Timestamp(_, _), Date32) => Some(t.clone()),
        (Timestamp(u, za), Timestamp(v, zb)) if za == zb => Some(Timestamp(*u.max(v), za.clone())),
        _ => {
            let (wa, wb) = (width(a)?, width(b)?);
            if a.is_floating() || b.is_floating() {
                let narrow = a.is_floating() && b.is_floating() || wa.max(wb) <= 16;
                return Some(if narrow && wa.max(wb) <= 32 { Float32 } else { Float64 });
            }
            let signed = a.is_signed_integer() || b.is_signed_integer();
            let mixed = a.is_signed_integer() != b.is_signed_integer();
            let unsigned_width = if a.is_signed_integer() { wb } else { wa };
            let bits = if mixed { wa.max(wb).max((unsigned_width * 2).min(64)) } else { wa.max(wb) };
            Some(match (signed, bits) {
                (true, 16) => Int16,
                (true, 32) => Int32,
                (true, _) => Int64,
                (false, 16) => UInt16,
                (false, 32) => UInt32,
                (false, _) => UInt64,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_widen_and_text_does_not() {
        use DataType::*;
        assert_eq!(common_type(&Int32, &Int64), Some(Int64));
        assert_eq!(common_type(&Int64, &Float32), Some(Float64));
        assert_eq!(common_type(&Int16, &Float32), Some(Float64));
        assert_eq!(common_type(&UInt32, &Int32), Some(Int64));
        assert_eq!(common_type(&UInt8, &Int8), Some(Int16));
        assert_eq!(common_type(&Utf8View, &Int64), None);
        assert_eq!(common_type(&Null, &Utf8View), Some(Utf8View));
    }

    #[test]
    fn hive_folders_are_read() {
        assert_eq!(
            hive_parts("year=2013/city=New%20York/a=b.parquet"),
            vec![("year".into(), Some("2013".into())), ("city".into(), Some("New York".into()))]
        );
        assert_eq!(hive_parts("x=__HIVE_DEFAULT_PARTITION__/p"), vec![("x".into(), None)]);
        assert_eq!(hive_parts("c=a+b/p"), vec![("c".into(), Some("a+b".into()))]);
    }
}
