//! What a format's reader gives: rows and rejected lines, from its blocking thread to the store, and the files they become.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray, StringViewBuilder, UInt64Builder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use indexmap::IndexMap;
use object_store::buffered::BufWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{AsyncArrowWriter, add_encoded_arrow_schema_to_metadata};
use parquet::basic::{Compression, ZstdLevel};
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tokio::sync::mpsc;

use crate::error::{Error, Kind, Result};
use crate::sink::shard::plain;
use crate::storage::Location;

/// Pieces that may wait to be written.
const AHEAD: usize = 2;
/// Rows of a row group in staging.
const GROUP_ROWS: usize = 131_072;
/// Bytes of source that fill a row group, whatever its rows: what the writer holds in memory.
const GROUP_BYTES: u64 = 64 << 20;
/// Characters of a rejected line that are kept.
const KEPT: usize = 4096;
/// Rejected lines that are handed on together.
const LINES: usize = 1024;

/// A piece of what was read. The first is the schema.
enum Piece {
    Columns(SchemaRef),
    Rows { batch: RecordBatch, bytes: u64 },
    Rejected(RecordBatch),
}

/// The reader's end.
pub(super) struct Out {
    to: mpsc::Sender<Piece>,
    shard: String,
    reasons: IndexMap<String, u64>,
    lines: Vec<(u64, String, String)>,
}

/// The writer's end.
pub(super) struct Pieces {
    from: mpsc::Receiver<Piece>,
    encryption: Encryption,
}

/// How files are encrypted, where they are.
type Encryption = Option<Arc<FileEncryptionProperties>>;

/// A channel from a format's reader to the store, for the shard of this path.
pub(super) fn channel(shard: &str, encryption: Encryption) -> (Out, Pieces) {
    let (to, from) = mpsc::channel(AHEAD);
    (Out { to, shard: shard.to_owned(), reasons: IndexMap::new(), lines: Vec::new() }, Pieces { from, encryption })
}

impl Out {
    /// Says the columns, once, before any row.
    pub(super) fn columns(&mut self, schema: &SchemaRef) -> Result<()> {
        self.send(Piece::Columns(schema.clone()))
    }

    /// Hands rows on, which took this many bytes in the source.
    pub(super) fn rows(&mut self, batch: RecordBatch, bytes: usize) -> Result<()> {
        self.send(Piece::Rows { batch, bytes: bytes as u64 })
    }

    /// Rejects the line of this number (from 1).
    pub(super) fn reject(&mut self, number: u64, reason: &str, line: &[u8]) -> Result<()> {
        match self.reasons.get_mut(reason) {
            Some(count) => *count += 1,
            None => _ = self.reasons.insert(reason.to_owned(), 1),
        }
        // A character has at most 4 bytes.
        let line = &line[..line.len().min(4 * KEPT)];
        let text: String = String::from_utf8_lossy(line).trim_end_matches(['\r', '\n']).chars().take(KEPT).collect();
        self.lines.push((number, reason.to_owned(), text));
        if self.lines.len() == LINES { self.flush() } else { Ok(()) }
    }

    /// Hands on what is left. Gives the reasons with their counts, in the order of their first line.
    pub(super) fn finish(mut self) -> Result<Vec<(String, u64)>> {
        self.flush()?;
        Ok(self.reasons.into_iter().collect())
    }

    fn flush(&mut self) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let n = self.lines.len();
        let (mut reasons, mut rows, mut texts) = (StringViewBuilder::new(), UInt64Builder::new(), StringViewBuilder::new());
        for (number, reason, text) in self.lines.drain(..) {
            reasons.append_value(reason);
            rows.append_value(number);
            texts.append_value(text);
        }
        let same = |text: &str| Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(text, n)));
        let columns: Vec<ArrayRef> =
            vec![same("source"), Arc::new(reasons.finish()), same(&self.shard), Arc::new(rows.finish()), Arc::new(texts.finish())];
        self.send(Piece::Rejected(RecordBatch::try_new(line_columns(), columns)?))
    }

    fn send(&mut self, piece: Piece) -> Result<()> {
        // The writer's own error is the one that is shown.
        self.to.blocking_send(piece).map_err(|_| Error::internal("the staged file was given up"))
    }
}

/// The columns of the file of rejected lines.
fn line_columns() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8View, true);
    Arc::new(Schema::new(vec![
        text("_stage"),
        text("_reason"),
        text("_shard"),
        Field::new("_shard_row", DataType::UInt64, true),
        text("_line"),
    ]))
}

impl Pieces {
    /// Writes all that comes: rows to one file, rejected lines to another, which is there only where there are any.
    pub(super) async fn write(mut self, rows: &Location, lines: &Location) -> Result<()> {
        let (mut to_rows, mut to_lines) = (None, None);
        while let Some(piece) = self.from.recv().await {
            match (piece, &mut to_rows) {
                (Piece::Columns(schema), to) => *to = Some(File::begin(rows, &schema, &self.encryption)?),
                (Piece::Rows { batch, bytes }, Some(to)) => to.write(&batch, bytes).await?,
                (Piece::Rows { .. }, None) => return Err(Error::internal("rows came before their columns")),
                (Piece::Rejected(batch), _) => {
                    if to_lines.is_none() {
                        to_lines = Some(File::begin(lines, &line_columns(), &self.encryption)?);
                    }
                    if let Some(to) = &mut to_lines {
                        to.write(&batch, 0).await?;
                    }
                }
            }
        }
        for file in [to_rows, to_lines].into_iter().flatten() {
            file.finish().await?;
        }
        Ok(())
    }
}

/// A staged file in the making. Unlike a dataset's shard it is written in the pieces that come (cut by the text alone, so the same for any
/// machine): gathering thousands of rows of long text would not be bounded by bytes.
struct File {
    writer: AsyncArrowWriter<BufWriter>,
    at: Location,
    held: u64,
}

impl File {
    fn begin(at: &Location, schema: &SchemaRef, encryption: &Encryption) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_created_by("feedline".to_owned());
        let properties = match encryption {
            Some(encryption) => properties.with_file_encryption_properties(encryption.clone()),
            None => properties,
        };
        let mut properties = properties.build();
        add_encoded_arrow_schema_to_metadata(&plain(schema), &mut properties);
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let to = BufWriter::new(at.store.clone(), at.path.clone());
        let writer = AsyncArrowWriter::try_new_with_options(to, schema.clone(), options).map_err(|e| failed(at, e))?;
        Ok(Self { writer, at: at.clone(), held: 0 })
    }

    async fn write(&mut self, batch: &RecordBatch, bytes: u64) -> Result<()> {
        self.writer.write(batch).await.map_err(|e| failed(&self.at, e))?;
        self.held += bytes;
        if self.held >= GROUP_BYTES {
            self.held = 0;
            self.writer.flush().await.map_err(|e| failed(&self.at, e))?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<()> {
        self.writer.finish().await.map_err(|e| failed(&self.at, e))?;
        self.at.sync()
    }
}

/// A type that Parquet lacks is the input's matter, anything else the store's.
fn failed(at: &Location, e: ParquetError) -> Error {
    if let ParquetError::NYI(what) | ParquetError::ArrowError(what) = &e {
        return Error::input(format!("the columns cannot be kept as Parquet: {what}"));
    }
    let e = Error::from(e);
    let e = if e.kind() == Kind::Input { Error::storage(format!("cannot write the staged file: {}", e.message())) } else { e };
    e.at(at.display())
}
