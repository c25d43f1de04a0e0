//! Shards of formats without a footer become Parquet in staging, once.
//!
//! ```text
//!  bytes (disk or store) ─ hash ─ unpack ─▶ read: json │ csv │ ipc ─┬▶ rows ──▶ <staging>/ingest/<name>.parquet
//!  └───────────── a blocking thread ──────────────────┘             ├▶ lines ─▶ <staging>/ingest/<name>-lines.parquet
//!                                                                   └▶ last ──▶ <staging>/ingest/<name>.json
//! ```
//!
//! From there on they are shards like any other. `<name>` hashes what the rows depend on: the file's path, size and stamp, and how the spec
//! has it read. The record in `<name>.json` is written last: where it is there, the work is done and is not done again.
//!
//! - **Types** come from all records, not from the first few: text formats are read twice, once for the types, once for the rows. The hash
//!   of the stored bytes is taken both times; a file that changed in between is an error.
//! - **A line that cannot be read** is rejected with its number, its text and the reason, and costs no other line.
//! - **Memory** is bounded by the blocks that are under way (8,192 rows or 8 MiB of text), one row group, and the longest line.
//! - **The same bytes** come out whether the file is plain or packed, on disk or in a store: blocks are cut by the text alone.
//!
//! `plan` and `validate` only need the columns: without a dataset to stage in, the first 1,000 records are read into memory.

mod bytes;
mod csv;
mod ipc;
mod json;
mod out;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use futures::FutureExt;
use indexmap::IndexMap;
use object_store::memory::InMemory;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::discover::Found;
use super::open::{Shard, open_shard};
use crate::crypt::{FileKeys, Vault};
use crate::dataset::manifest::hash_json;
use crate::error::{Error, Result, nearest};
use crate::spec::pipeline::{ColumnType, Format, SourceSpec};
use crate::storage::{Location, again};
use bytes::Opener;
use out::Out;

/// Records that a glance reads.
const GLANCE: u64 = 1000;
/// Rows that are converted together.
const BLOCK_ROWS: usize = 8192;
/// Bytes of text that are converted together.
const BLOCK_BYTES: usize = 8 << 20;
/// The version of what this module writes; a record of another one is not taken up.
const FORMAT: &str = "feedline-ingest/v1";

/// Reads a shard without a footer into Parquet, or takes up what an earlier run read, and opens that.
///
/// With a dataset's root the rows go to its staging, encrypted where the vault says so. The shard's `fingerprint` is then the SHA-256 of the file's stored bytes, `rejected` has the
/// reasons with their counts, and `rejected_lines` the file with the lines: `_stage`, `_reason`, `_shard`, `_shard_row` (the line's number
/// in the unpacked text, from 1) and `_line` (its first 4,096 characters). Without one only the first 1,000 records are read, to know the columns;
/// `fingerprint` then stands for path, size and stamp.
///
/// # Errors
/// `Input` where the file as a whole cannot be read (empty, cut short, not of its format), `Spec` where the spec's `columns` or `delimiter` do not
/// fit, `Storage` where a store fails.
pub async fn ingest(found: &Found, spec: &SourceSpec, dataset: Option<&Location>, keys: &FileKeys, vault: &Vault) -> Result<Shard> {
    let place = found.location.display();
    match (found.format, dataset) {
        (Format::Parquet, _) => AssertUnwindSafe(open_shard(found, keys)).catch_unwind().await.unwrap_or_else(|_| Err(gave_up().at(place))),
        (_, Some(root)) => staged(found, spec, root, vault).await.map_err(|e| e.at(place)),
        (_, None) => glance(found, spec).await.map_err(|e| e.at(place)),
    }
}

/// The checkpoint: what is known of a staged file beside its rows.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: String,
    fingerprint: String,
    rejected: Vec<(String, u64)>,
}

async fn staged(found: &Found, spec: &SourceSpec, root: &Location, vault: &Vault) -> Result<Shard> {
    let name = staged_name(found, spec, vault)?;
    let folder = root.child("_feedline/staging/ingest");
    let rows = folder.child(&format!("{name}.parquet"));
    let lines = folder.child(&format!("{name}-lines.parquet"));
    let record_at = folder.child(&format!("{name}.json"));
    let record = match taken_up(&record_at, &rows, &lines).await? {
        Some(record) => record,
        None => {
            let done = again("reading a file into staging", || convert(found, spec, None, &rows, &lines, vault)).await?;
            let fingerprint = done.digest.ok_or_else(|| Error::internal("a file was not read to its end"))?;
            let record = Record { format: FORMAT.to_owned(), fingerprint, rejected: done.rejected };
            record_at.write(serde_json::to_vec_pretty(&record)?).await?;
            record
        }
    };
    open_staged(found, rows, record, lines, vault).await
}

async fn glance(found: &Found, spec: &SourceSpec) -> Result<Shard> {
    let store = Arc::new(InMemory::new());
    let at = |name: &str| Location::of(store.clone(), name);
    let (rows, lines) = (at("rows.parquet"), at("lines.parquet"));
    let done = convert(found, spec, Some(GLANCE), &rows, &lines, &Vault::default()).await?;
    let fingerprint = hash_json(&json!([found.path, found.bytes, found.stamp]));
    let record = Record { format: FORMAT.to_owned(), fingerprint, rejected: done.rejected };
    open_staged(found, rows, record, lines, &Vault::default()).await
}

/// The staged file's name: a hash of all that its rows depend on.
fn staged_name(found: &Found, spec: &SourceSpec, vault: &Vault) -> Result<String> {
    let columns = serde_json::to_value(&spec.columns)?;
    let rows = json!([found.path, found.bytes, found.stamp, found.format, columns, spec.delimiter, spec.header]);
    let mut hash = hash_json(&match vault.mark() {
        Some(mark) => json!([rows, mark]),
        None => rows,
    });
    hash.truncate(20);
    Ok(hash)
}

async fn taken_up(record: &Location, rows: &Location, lines: &Location) -> Result<Option<Record>> {
    let Some(bytes) = record.read().await? else { return Ok(None) };
    let Ok(record) = serde_json::from_slice::<Record>(&bytes) else { return Ok(None) };
    let whole = rows.head().await?.is_some() && (record.rejected.is_empty() || lines.head().await?.is_some());
    Ok((record.format == FORMAT && whole).then_some(record))
}

async fn open_staged(found: &Found, rows: Location, record: Record, lines: Location, vault: &Vault) -> Result<Shard> {
    let stored = rows.head().await?.ok_or_else(|| Error::storage("the staged file vanished").at(rows.display()))?;
    let as_parquet = Found { location: rows, bytes: stored.size, e_tag: None, format: Format::Parquet, packed: None, ..found.clone() };
    let mut shard = open_shard(&as_parquet, &vault.staging_keys()).await?;
    shard.bytes = found.bytes;
    shard.fingerprint = record.fingerprint;
    shard.rejected_lines = (!record.rejected.is_empty()).then_some(lines);
    shard.rejected = record.rejected;
    Ok(shard)
}

/// What a format's reader needs to know.
struct Job {
    opener: Opener,
    columns: IndexMap<String, ColumnType>,
    delimiter: u8,
    header: bool,
    /// Records to read; all where there is none.
    limit: Option<u64>,
}

/// What was read.
struct Done {
    digest: Option<String>,
    rejected: Vec<(String, u64)>,
}

async fn convert(found: &Found, spec: &SourceSpec, limit: Option<u64>, rows: &Location, lines: &Location, vault: &Vault) -> Result<Done> {
    let job = Job { opener: Opener::new(found), columns: spec.columns.clone(), delimiter: delimiter(spec)?, header: spec.header, limit };
    let format = found.format;
    let (out, pieces) = out::channel(&found.path, vault.of_staging()?);
    let reading = tokio::task::spawn_blocking(move || read(&job, format, out));
    let written = pieces.write(rows, lines).await;
    let read = reading.await.unwrap_or_else(|e| match e.is_panic() {
        true => Err(gave_up()),
        false => Err(e.into()),
    });
    // Where writing fails, reading ends for that reason alone.
    written.and(read)
}

/// The library that reads a format panicked: it does so of damage that its own checks miss, such as an Arrow schema of types that do not exist.
fn gave_up() -> Error {
    Error::input("the file is damaged: its reader gave up")
}

fn read(job: &Job, format: Format, mut out: Out) -> Result<Done> {
    let digest = match format {
        Format::Jsonl => json::read(job, &mut out)?,
        Format::Csv => csv::read(job, &mut out)?,
        Format::Arrow => ipc::read(job, &mut out)?,
        Format::Parquet => return Err(Error::internal("Parquet has a footer: it is not staged")),
    };
    Ok(Done { digest, rejected: out.finish()? })
}

fn delimiter(spec: &SourceSpec) -> Result<u8> {
    match spec.delimiter {
        None => Ok(b','),
        Some(c) if c.is_ascii() && !matches!(c, '"' | '\n' | '\r') => Ok(c as u8),
        Some(c) => Err(Error::spec(format!("`delimiter: {c:?}` cannot be used")).hint("use one ASCII character, such as `;` or a tab")),
    }
}

/// The digest of both readings, which must be the same.
fn unchanged(first: Option<&str>, second: Option<&str>) -> Result<Option<String>> {
    match (first, second) {
        (Some(a), Some(b)) if a != b => {
            // Not the file's fault: to leave it out as a broken shard would lose rows over a bad moment.
            Err(Error::storage("the file changed while it was read").hint("run again once it is written; write beside it and rename"))
        }
        (_, second) => Ok(second.map(str::to_owned)),
    }
}

/// The error that the spec types a column which the shard lacks.
fn unknown_column<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
    Error::spec(format!("`columns` names `{name}`, which the file lacks")).hint(nearest(name, known))
}

/// The Arrow type of a type in a spec.
fn arrow_type(t: ColumnType) -> DataType {
    match t {
        ColumnType::Int8 => DataType::Int8,
        ColumnType::Int16 => DataType::Int16,
        ColumnType::Int32 => DataType::Int32,
        ColumnType::Int64 => DataType::Int64,
        ColumnType::Uint8 => DataType::UInt8,
        ColumnType::Uint16 => DataType::UInt16,
        ColumnType::Uint32 => DataType::UInt32,
        ColumnType::Uint64 => DataType::UInt64,
        ColumnType::Float32 => DataType::Float32,
        ColumnType::Float64 => DataType::Float64,
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Utf8 => DataType::Utf8View,
        ColumnType::Date => DataType::Date32,
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
    }
}

/// Why a value cannot be used.
fn misfit(column: &str, t: &DataType) -> String {
    let t = match t {
        DataType::Utf8 | DataType::Utf8View => "text".to_owned(),
        DataType::List(_) => "a list, or not of the values it has elsewhere".to_owned(),
        DataType::Struct(_) => "an object, or not of the values it has elsewhere".to_owned(),
        DataType::Timestamp(..) => "a timestamp".to_owned(),
        DataType::Date32 => "a date".to_owned(),
        other => other.to_string(),
    };
    format!("value of `{column}` is not {t}")
}

#[cfg(test)]
mod tests;
