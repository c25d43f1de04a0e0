//! One row group becomes typed buffers: read the columns' bytes, decode them, refuse what a matrix cannot hold.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema, SchemaRef,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use half::{bf16, f16};

use super::collate::FixedRows;
use super::columns::{Columns, is_fractional};
use crate::error::{Error, Result};
use crate::spec::pipeline::Dtype;

/// A numeric column of one row group, without nulls.
#[derive(Debug, Clone)]
pub enum Numbers {
    /// 8 bits.
    I8(ScalarBuffer<i8>),
    /// 16 bits.
    I16(ScalarBuffer<i16>),
    /// 32 bits.
    I32(ScalarBuffer<i32>),
    /// 64 bits.
    I64(ScalarBuffer<i64>),
    /// 8 bits, from 0.
    U8(ScalarBuffer<u8>),
    /// 16 bits, from 0.
    U16(ScalarBuffer<u16>),
    /// 32 bits, from 0.
    U32(ScalarBuffer<u32>),
    /// 64 bits, from 0.
    U64(ScalarBuffer<u64>),
    /// 16 bits, IEEE.
    F16(ScalarBuffer<f16>),
    /// 32 bits, IEEE.
    F32(ScalarBuffer<f32>),
    /// 64 bits, IEEE.
    F64(ScalarBuffer<f64>),
    /// One bit.
    Bool(BooleanBuffer),
}

/// Lists of token ids of one row group.
#[derive(Debug, Clone)]
pub struct Lists {
    /// Where each row's tokens begin, and the end of the last: rows + 1 numbers.
    pub offsets: Vec<u64>,
    /// The ids, all below 2³¹.
    pub ids: Vec<u32>,
}

impl Lists {
    /// Tokens of a row.
    pub fn row(&self, row: u32) -> &[u32] {
        let row = row as usize;
        &self.ids[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}

/// A decoded row group: what the feed asked for of it.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    /// The features as rows of the matrix's number type; of no width where there are none.
    pub features: FixedRows,
    /// The label as rows of one `f32` or `i64`; of no width where there is none.
    pub label: FixedRows,
    pub tokens: Option<Lists>,
    pub others: Option<RecordBatch>,
    /// Bytes that it holds in memory.
    pub bytes: u64,
}

/// Takes a row group's columns apart. `batch` has every column in [`Columns::names`].
pub(super) fn take_apart(columns: &Columns, dtype: Dtype, batch: &RecordBatch) -> Result<Decoded> {
    let column = |name: &str| {
        batch.column_by_name(name).ok_or_else(|| {
            Error::input(format!("the shard has no column `{name}`")).hint("the manifest says it has: run `feedline verify`")
        })
    };
    let mut out = Decoded::default();
    let rows = batch.num_rows();
    let mut features = Vec::with_capacity(columns.features.len());
    for name in &columns.features {
        let numbers = numbers(name, column(name)?)?;
        if dtype == Dtype::F16 {
            fits_f16(name, &numbers)?;
        }
        features.push(numbers);
    }
    out.features = match dtype {
        Dtype::F32 => FixedRows::new::<f32>(&features, rows),
        Dtype::F16 => FixedRows::new::<f16>(&features, rows),
        Dtype::Bf16 => FixedRows::new::<bf16>(&features, rows),
    };
    if let Some(label) = &columns.label {
        let array = column(&label.name)?;
        if is_fractional(array.data_type()) != label.fractional {
            return Err(Error::input(format!("the label `{}` is {} in this shard, unlike in the first", label.name, array.data_type()))
                .hint("all shards of a version have one schema: run `feedline verify`"));
        }
        let numbers = [numbers(&label.name, array)?];
        out.label = if label.fractional { FixedRows::new::<f32>(&numbers, rows) } else { FixedRows::new::<i64>(&numbers, rows) };
    }
    out.bytes = out.features.bytes() + out.label.bytes();
    if let Some(tokens) = &columns.tokens {
        let lists = lists(&tokens.column, column(&tokens.column)?)?;
        out.bytes += (lists.offsets.len() * 8 + lists.ids.len() * 4) as u64;
        out.tokens = Some(lists);
    }
    if !columns.others.is_empty() {
        let schema: SchemaRef = Arc::new(Schema::new(columns.others.clone()));
        let arrays: Vec<ArrayRef> = columns.others.iter().map(|f| column(f.name()).cloned()).collect::<Result<_>>()?;
        if let Some((f, a)) = columns.others.iter().zip(&arrays).find(|(f, a)| f.data_type() != a.data_type()) {
            return Err(Error::input(format!(
                "column `{}` is {} in this shard and {} in the first",
                f.name(),
                a.data_type(),
                f.data_type()
            ))
            .hint("all shards of a version have one schema: run `feedline verify`"));
        }
        out.bytes += arrays.iter().map(|a| a.get_array_memory_size() as u64).sum::<u64>();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        out.others = Some(RecordBatch::try_new_with_options(schema, arrays, &options)?);
    }
    Ok(out)
}

/// The first null of a column, as an error.
fn refuse_nulls(name: &str, array: &dyn Array) -> Result<()> {
    // `logical_nulls` also sees nulls that a dictionary's values hold.
    let Some(nulls) = array.logical_nulls().filter(|n| n.null_count() > 0) else { return Ok(()) };
    let row = (0..nulls.len()).find(|&i| nulls.is_null(i)).unwrap_or(0);
    Err(Error::input(format!("column `{name}` is null in {} rows of this row group, first in row {row}", nulls.null_count()))
        .hint(format!("fill it or drop such rows: `- clean: {{ fill_null: {{ {name}: … }} }}`")))
}

fn numbers(name: &str, array: &ArrayRef) -> Result<Numbers> {
    refuse_nulls(name, array)?;
    Ok(match array.data_type() {
        DataType::Int8 => Numbers::I8(values::<Int8Type>(array)),
        DataType::Int16 => Numbers::I16(values::<Int16Type>(array)),
        DataType::Int32 => Numbers::I32(values::<Int32Type>(array)),
        DataType::Int64 => Numbers::I64(values::<Int64Type>(array)),
        DataType::UInt8 => Numbers::U8(values::<UInt8Type>(array)),
        DataType::UInt16 => Numbers::U16(values::<UInt16Type>(array)),
        DataType::UInt32 => Numbers::U32(values::<UInt32Type>(array)),
        DataType::UInt64 => Numbers::U64(values::<UInt64Type>(array)),
        DataType::Float16 => Numbers::F16(values::<Float16Type>(array)),
        DataType::Float32 => Numbers::F32(values::<Float32Type>(array)),
        DataType::Float64 => Numbers::F64(values::<Float64Type>(array)),
        DataType::Boolean => Numbers::Bool(array.as_boolean().values().clone()),
        DataType::Dictionary(_, inner) => return numbers(name, &cast(array, inner)?),
        t if t.is_numeric() => return numbers(name, &cast(array, &DataType::Float64)?),
        t => return Err(Error::input(format!("column `{name}` is {t} in this shard, not a number")).hint("run `feedline verify`")),
    })
}

fn values<T: ArrowPrimitiveType>(array: &ArrayRef) -> ScalarBuffer<T::Native> {
    array.as_primitive::<T>().values().clone()
}

/// The largest magnitude that rounds to a finite half (65504 + half a step).
const F16_LIMIT: f64 = 65520.0;

/// A half float ends at 65504: what lies beyond would silently become infinite.
fn fits_f16(name: &str, numbers: &Numbers) -> Result<()> {
    fn worst(mut values: impl Iterator<Item = f64>) -> Option<f64> {
        values.find(|v| v.is_finite() && v.abs() >= F16_LIMIT)
    }
    let beyond = match numbers {
        Numbers::I32(v) => worst(v.iter().map(|&v| f64::from(v))),
        Numbers::I64(v) => worst(v.iter().map(|&v| v as f64)),
        Numbers::U16(v) => worst(v.iter().map(|&v| f64::from(v))),
        Numbers::U32(v) => worst(v.iter().map(|&v| f64::from(v))),
        Numbers::U64(v) => worst(v.iter().map(|&v| v as f64)),
        Numbers::F32(v) => worst(v.iter().map(|&v| f64::from(v))),
        Numbers::F64(v) => worst(v.iter().copied()),
        Numbers::I8(_) | Numbers::I16(_) | Numbers::U8(_) | Numbers::F16(_) | Numbers::Bool(_) => None,
    };
    match beyond {
        Some(v) => Err(Error::input(format!("column `{name}` holds {v}, which f16 cannot (it ends at 65504)"))
            .hint("scale it with a `normalize` stage, or say `dtype: bf16`")),
        None => Ok(()),
    }
}

fn lists(name: &str, array: &ArrayRef) -> Result<Lists> {
    refuse_nulls(name, array)?;
    let (offsets, items): (Vec<u64>, &ArrayRef) = match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            (list.value_offsets().iter().map(|&o| o as u64).collect(), list.values())
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            (list.value_offsets().iter().map(|&o| o as u64).collect(), list.values())
        }
        t => return Err(Error::input(format!("column `{name}` is {t} in this shard, not a list")).hint("run `feedline verify`")),
    };
    if items.logical_null_count() > 0 {
        return Err(Error::input(format!("a list of column `{name}` holds a null")).hint("drop or replace null tokens before the feed"));
    }
    Ok(Lists { offsets, ids: ids(name, items)? })
}

fn ids(name: &str, items: &ArrayRef) -> Result<Vec<u32>> {
    fn checked<T: ArrowPrimitiveType>(name: &str, items: &ArrayRef) -> Result<Vec<u32>>
    where
        T::Native: TryInto<i32> + Into<i128>,
    {
        let array: &PrimitiveArray<T> = items.as_primitive();
        let id = |v: T::Native| -> Option<u32> { TryInto::<i32>::try_into(v).ok().and_then(|v| u32::try_from(v).ok()) };
        array
            .values()
            .iter()
            .map(|&v| {
                id(v).ok_or_else(|| {
                    Error::input(format!("column `{name}` holds the token id {}", Into::<i128>::into(v)))
                        .hint("token ids are whole numbers from 0 to 2³¹ − 1")
                })
            })
            .collect()
    }
    match items.data_type() {
        DataType::Int8 => checked::<Int8Type>(name, items),
        DataType::Int16 => checked::<Int16Type>(name, items),
        DataType::Int32 => checked::<Int32Type>(name, items),
        DataType::Int64 => checked::<Int64Type>(name, items),
        DataType::UInt8 => checked::<UInt8Type>(name, items),
        DataType::UInt16 => checked::<UInt16Type>(name, items),
        DataType::UInt32 => checked::<UInt32Type>(name, items),
        DataType::UInt64 => checked::<UInt64Type>(name, items),
        t => Err(Error::input(format!("column `{name}` holds lists of {t} in this shard")).hint("run `feedline verify`")),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array, ListArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn columns(features: &[&str]) -> Columns {
        Columns { features: features.iter().map(|&f| f.to_owned()).collect(), ..Default::default() }
    }

    fn batch(arrays: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(arrays).unwrap()
    }

    #[test]
    fn nulls_are_refused_with_the_column_and_the_row() {
        let b = batch(vec![("x", Arc::new(Float64Array::from(vec![Some(1.0), None])) as ArrayRef)]);
        let e = take_apart(&columns(&["x"]), Dtype::F32, &b).unwrap_err();
        assert!(e.to_string().contains("`x`") && e.to_string().contains("row 1"), "{e}");
        assert!(e.to_do().is_some_and(|h| h.contains("fill_null")));
    }

    #[test]
    fn halves_refuse_what_would_become_infinite() {
        let of = |v: f64| batch(vec![("x", Arc::new(Float64Array::from(vec![v])) as ArrayRef)]);
        assert!(take_apart(&columns(&["x"]), Dtype::F16, &of(65_519.9)).is_ok());
        assert!(take_apart(&columns(&["x"]), Dtype::F16, &of(f64::INFINITY)).is_ok());
        assert!(take_apart(&columns(&["x"]), Dtype::F16, &of(-65_520.0)).unwrap_err().to_string().contains("65520"));
        assert!(take_apart(&columns(&["x"]), Dtype::Bf16, &of(1e30)).is_ok());
    }

    #[test]
    fn dictionaries_and_booleans_are_numbers() {
        let keys = Int32Array::from(vec![0, 1, 0]);
        let dict = DictionaryArray::<Int32Type>::new(keys, Arc::new(Int64Array::from(vec![5, 9])));
        let b = batch(vec![("d", Arc::new(dict) as ArrayRef), ("b", Arc::new(BooleanArray::from(vec![true, false, true])))]);
        let d = numbers("d", b.column(0)).unwrap();
        assert!(matches!(&d, Numbers::I64(v) if v[..] == [5, 9, 5]), "{d:?}");
        let got = take_apart(&columns(&["d", "b"]), Dtype::F32, &b).unwrap();
        assert_eq!((got.features.width(), got.bytes), (8, 24));
    }

    #[test]
    fn token_ids_are_checked() {
        let list =
            |v: i32| Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(3), Some(v)]), Some(vec![])])) as ArrayRef;
        let got = lists("ids", &list(4)).unwrap();
        assert_eq!((got.row(0), got.row(1)), (&[3u32, 4][..], &[][..]));
        assert!(lists("ids", &list(-1)).unwrap_err().to_string().contains("-1"));
    }
}
