//! Reading a unit: batches of the columns asked for, in the source's types, in row order.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{FutureExt, StreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;

use super::ahead::{Ranges, unreachable};
use super::{Shard, Unit, types};
use crate::error::{Error, Kind, Result};

/// Reads the rows of one unit.
pub struct UnitReader {
    unit: Unit,
    stream: ParquetRecordBatchStream<Ranges>,
    columns: Vec<Column>,
    schema: SchemaRef,
    row: u32,
}

/// Where a column comes from.
enum Column {
    /// The shard, at this place of its batch.
    Shard(usize),
    /// The folder's name: the same in every row.
    Hive(Option<String>),
    /// Not in this shard.
    Missing,
}

impl UnitReader {
    /// Opens a unit for the columns given, which come in these types; one that the shard lacks is null.
    pub fn open(unit: &Unit, fields: Vec<Field>, batch_rows: usize) -> Result<Self> {
        let shard = &unit.shard;
        let stored = shard.reader.schema();
        let hive = types::hive_parts(&shard.path);
        let mut roots: Vec<usize> = fields.iter().filter_map(|f| stored.index_of(f.name()).ok()).collect();
        roots.sort_unstable();
        let columns = fields.iter().map(|field| match stored.index_of(field.name()) {
            Ok(root) => Column::Shard(roots.partition_point(|r| *r < root)),
            Err(_) => hive.iter().find(|(k, _)| k == field.name()).map_or(Column::Missing, |(_, v)| Column::Hive(v.clone())),
        });
        let columns = columns.collect();
        let mask = ProjectionMask::roots(shard.reader.parquet_schema(), roots);
        let object = Ranges::new(shard.location.clone(), shard.e_tag.clone(), shard.metadata().clone(), unit.groups.clone(), &mask);
        let stream = ParquetRecordBatchStreamBuilder::new_with_metadata(object, shard.reader.clone())
            .with_row_groups(unit.groups.clone().collect())
            .with_projection(mask)
            .with_batch_size(batch_rows)
            .build()?;
        // A shard may hold nulls where the common schema, made of footers, does not say so.
        let fields: Vec<Field> = fields.into_iter().map(|f| f.with_nullable(true)).collect();
        Ok(Self { unit: unit.clone(), stream, columns, schema: Arc::new(Schema::new(fields)), row: 0 })
    }

    /// The next batch, with the number of its first row in the unit.
    pub async fn next(&mut self) -> Result<Option<(u32, RecordBatch)>> {
        let batch = match self.decoded().await {
            None if self.row == self.unit.rows => return unchanged(&self.unit.shard).await.map(|()| None),
            None => return Err(self.broken(format!("{} rows, but its footer says {}", self.row, self.unit.rows))),
            Some(Err(ParquetError::External(e))) if e.is::<object_store::Error>() => return Err(self.unreachable(e)),
            Some(Err(e)) => return Err(self.broken(e.to_string())),
            Some(Ok(batch)) => batch,
        };
        let rows = batch.num_rows();
        let first = self.row;
        self.row += rows as u32;
        let arrays = self.columns.iter().zip(self.schema.fields()).map(|(c, f)| self.column(c, f, &batch));
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(Some((first, RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)))
    }

    /// What comes next. Decryption trusts the lengths in a damaged file: what it makes of them is damage, no fault of the program.
    async fn decoded(&mut self) -> Option<Result<RecordBatch, ParquetError>> {
        let next = AssertUnwindSafe(self.stream.next()).catch_unwind().await;
        next.unwrap_or_else(|_| Some(Err(ParquetError::General("its lengths contradict each other".to_owned()))))
    }

    fn column(&self, from: &Column, field: &Field, batch: &RecordBatch) -> Result<ArrayRef> {
        let rows = batch.num_rows();
        Ok(match from {
            Column::Missing | Column::Hive(None) => new_null_array(field.data_type(), rows),
            Column::Hive(Some(text)) => match (field.data_type(), text.parse::<i64>()) {
                (DataType::Int64, Ok(number)) => Arc::new(Int64Array::from_value(number, rows)),
                _ => Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(text, rows))),
            },
            Column::Shard(at) => {
                let array = batch.column(*at);
                if array.data_type() == field.data_type() {
                    array.clone()
                } else {
                    cast_with_options(array, field.data_type(), &CastOptions { safe: false, ..Default::default() })?
                }
            }
        })
    }

    /// The store failed, which says nothing about the shard.
    fn unreachable(&self, e: Box<dyn std::error::Error + Send + Sync>) -> Error {
        match e.downcast::<object_store::Error>() {
            Ok(e) => unreachable(*e, &self.unit.shard.location),
            Err(e) => Error::storage(e.to_string()).at(self.unit.shard.display()),
        }
    }

    fn broken(&self, what: String) -> Error {
        Error::new(Kind::Input, format!("the shard is damaged: {what}"))
            .at(format!("{}, row groups {:?}", self.unit.shard.display(), self.unit.groups))
            .hint("mend or remove it, or set `on_bad_shard: quarantine`")
    }
}

/// A file on a disk has been read without asking for its ETag each time; at the end it must still be the same.
async fn unchanged(shard: &Shard) -> Result<()> {
    let (Some(wanted), Some(_)) = (&shard.e_tag, &shard.location.local) else { return Ok(()) };
    match shard.location.head().await? {
        Some(meta) if meta.e_tag.as_ref() == Some(wanted) => Ok(()),
        _ => Err(unreachable(object_store::Error::Precondition { path: String::new(), source: "".into() }, &shard.location)),
    }
}
