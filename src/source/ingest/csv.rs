//! CSV: records of fields, with quotes as in RFC 4180.
//!
//! The first reading finds the narrowest type of each column that all its values have ([`value`]), the second makes rows of them. A record with
//! another number of fields than the header, or with a value that its column cannot hold, is rejected. So is a line whose quotes do not
//! match ([`record`]).

mod record;
mod value;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use indexmap::IndexMap;

use super::{BLOCK_BYTES, BLOCK_ROWS, Job, Out, arrow_type, misfit, unchanged, unknown_column};
use crate::error::{Error, Result};
use record::{Record, Records};
use value::{Column, Kinds};

/// Reads a shard. Gives the hash of its stored bytes where it was read to its end.
pub(super) fn read(job: &Job, out: &mut Out) -> Result<Option<String>> {
    let (schema, first) = survey(job)?;
    out.columns(&schema)?;
    let second = rows(job, &schema, out)?;
    unchanged(first.as_deref(), second.as_deref())
}

/// A shard's records behind its header.
struct Table {
    records: Records,
    names: Vec<String>,
    left: Option<u64>,
    /// Where there is no header, the record that told the number of columns.
    first: bool,
}

impl Table {
    fn open(job: &Job) -> Result<Self> {
        let mut records = Records::new(job.opener.open()?, job.delimiter);
        let names = match records.next()? {
            None => return Err(Error::input("the file has no line").hint("write its header, or remove it")),
            Some(Record { fields: Err(reason), .. }) => return Err(Error::input(format!("line 1 cannot be read: {reason}"))),
            Some(Record { fields: Ok(fields), .. }) if job.header => names(fields.iter())?,
            Some(Record { fields: Ok(fields), .. }) => (1..=fields.len()).map(|i| format!("column_{i}")).collect(),
        };
        Ok(Self { records, names, left: job.limit, first: !job.header })
    }

    /// The next record: its fields, or why it is rejected.
    fn next(&mut self) -> Result<Option<Record<'_>>> {
        if let Some(left) = &mut self.left {
            if *left == 0 {
                return Ok(None);
            }
            *left -= 1;
        }
        let record = if std::mem::take(&mut self.first) { Some(self.records.again()) } else { self.records.next()? };
        let wanted = self.names.len();
        Ok(record.map(|r| {
            let fields = r.fields.and_then(|fields| match fields.len() {
                n if n == wanted => Ok(fields),
                n => Err(format!("{n} fields where {wanted} are expected")),
            });
            Record { fields, ..r }
        }))
    }
}

/// The header's names, each once.
fn names<'a>(fields: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let mut known: IndexMap<String, usize> = IndexMap::new();
    for (i, name) in fields.map(str::trim).enumerate() {
        if name.is_empty() {
            return Err(Error::input(format!("column {} of the header has no name", i + 1))
                .hint("name it in the file; where there is no header, set `header: false`"));
        }
        if name.contains('\r') {
            return Err(Error::input("the file's lines end in CR alone").hint("convert them, for example with `tr '\\r' '\\n'`"));
        }
        if let Some(before) = known.insert(name.to_owned(), i + 1) {
            return Err(Error::input(format!("columns {before} and {} of the header are both named `{name}`", i + 1))
                .hint("rename one in the file; where there is no header, set `header: false`"));
        }
    }
    Ok(known.into_keys().collect())
}

/// The first reading.
fn survey(job: &Job) -> Result<(SchemaRef, Option<String>)> {
    let mut table = Table::open(job)?;
    if let Some(unknown) = job.columns.keys().find(|c| !table.names.contains(c)) {
        return Err(unknown_column(unknown, table.names.iter().map(String::as_str)));
    }
    let mut kinds = vec![Kinds::default(); table.names.len()];
    let declared: Vec<Option<DataType>> = table.names.iter().map(|n| job.columns.get(n).map(|t| arrow_type(*t))).collect();
    while let Some(record) = table.next()? {
        let Ok(fields) = record.fields else { continue };
        for ((field, kinds), declared) in fields.iter().zip(&mut kinds).zip(&declared) {
            if declared.is_none() {
                kinds.narrow(field);
            }
        }
    }
    let fields = table
        .names
        .iter()
        .zip(&kinds)
        .zip(declared)
        .map(|((name, kinds), t)| Field::new(name, t.unwrap_or_else(|| kinds.data_type()), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    Ok((schema, table.records.digest().map(str::to_owned)))
}

/// The second reading.
fn rows(job: &Job, schema: &SchemaRef, out: &mut Out) -> Result<Option<String>> {
    let mut table = Table::open(job)?;
    let mut columns = schema.fields().iter().map(|f| Column::new(f.data_type())).collect::<Result<Vec<_>>>()?;
    let (mut held, mut bytes) = (0, 0);
    while let Some(record) = table.next()? {
        let fields = match record.fields {
            Ok(fields) => fields,
            Err(reason) => {
                out.reject(record.line, &reason, record.raw)?;
                continue;
            }
        };
        // Parsed first, kept afterwards: a bad value rejects the whole row.
        if let Some(at) = fields.iter().zip(&mut columns).position(|(field, column)| !column.parse(field)) {
            let field = schema.field(at);
            out.reject(record.line, &misfit(field.name(), field.data_type()), record.raw)?;
            continue;
        }
        for (field, column) in fields.iter().zip(&mut columns) {
            column.keep(field);
        }
        held += 1;
        bytes += record.raw.len();
        if held >= BLOCK_ROWS || bytes >= BLOCK_BYTES {
            flush(schema, &mut columns, std::mem::take(&mut held), std::mem::take(&mut bytes), out)?;
        }
    }
    flush(schema, &mut columns, held, bytes, out)?;
    Ok(table.records.digest().map(str::to_owned))
}

fn flush(schema: &SchemaRef, columns: &mut [Column], rows: usize, bytes: usize, out: &mut Out) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    let arrays = columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>>>()?;
    out.rows(RecordBatch::try_new(schema.clone(), arrays)?, bytes)
}
