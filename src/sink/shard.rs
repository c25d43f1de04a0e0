//! Writing one shard: Parquet, hashed while it is written, visible only when it is whole.

use std::sync::Arc;
use std::sync::Mutex;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{BatchCoalescer, SortOptions, sort_to_indices};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use indexmap::IndexMap;
use object_store::buffered::BufWriter;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::arrow::{AsyncArrowWriter, add_encoded_arrow_schema_to_metadata, parquet_to_arrow_schema};
use parquet::basic::ZstdLevel;
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::encoding;
use crate::crypt::RowsHash;
use crate::error::{Error, Result};
use crate::spec::pipeline::{Compression, SinkSpec};
use crate::storage::Location;

/// Rows that go to the writer at once. Fixed, because pages are cut by it: the same bytes whatever the engine's batches are. Large enough that a column's
/// dictionary stays in the processor's cache for a while before the next column's takes its place.
pub const WRITE_ROWS: usize = 32_768;
/// Parts of a shard (10 MiB each) that are under way at once, at most: every split and thread has a shard of its own.
const PARTS: usize = 4;
/// Longest text shown of a column's smallest and largest value.
const SHOWN: usize = 80;

/// How shards are written.
#[derive(Debug, Clone)]
pub struct ShardOptions {
    schema: SchemaRef,
    properties: WriterProperties,
    write_rows: usize,
    hash_rows: bool,
    group_rows: usize,
}

impl ShardOptions {
    /// Options for shards with these columns.
    pub fn new(schema: &SchemaRef, sink: &SinkSpec) -> Result<Self> {
        let compression = match sink.compression {
            Compression::Zstd => parquet::basic::Compression::ZSTD(ZstdLevel::try_new(sink.compression_level)?),
            Compression::Lz4 => parquet::basic::Compression::LZ4_RAW,
            Compression::Snappy => parquet::basic::Compression::SNAPPY,
            Compression::None => parquet::basic::Compression::UNCOMPRESSED,
        };
        let mut properties = WriterProperties::builder()
            .set_compression(compression)
            .set_max_row_group_row_count(Some(sink.row_group_rows))
            .set_created_by("feedline".to_owned())
            .build();
        // Views are a matter of memory: other readers see plain text.
        add_encoded_arrow_schema_to_metadata(&plain(schema), &mut properties);
        // The writer cuts a batch at row groups by recursion, so a batch must not hold many of them.
        let write_rows = WRITE_ROWS.min(sink.row_group_rows.max(1));
        let (schema, group_rows) = (schema.clone(), sink.row_group_rows);
        Ok(Self { schema, properties, write_rows, group_rows, hash_rows: false })
    }

    /// The same, encrypted where that is asked for. Rows are then hashed too: nonces make the bytes of a file differ from run to run.
    pub fn encrypted(mut self, how: Option<Arc<FileEncryptionProperties>>) -> Self {
        if let Some(how) = how {
            self.properties = self.properties.into_builder().with_file_encryption_properties(how).build();
            self.hash_rows = true;
        }
        self
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

/// The schema as readers see it: text and binary without views, no metadata.
pub fn plain(schema: &SchemaRef) -> Schema {
    let fields = schema.fields().iter().map(|f| {
        let t = match f.data_type() {
            DataType::Utf8View => DataType::Utf8,
            DataType::BinaryView => DataType::Binary,
            other => other.clone(),
        };
        Field::new(f.name(), t, f.is_nullable())
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// A shard in the making.
pub struct ShardWriter {
    /// There once the first rows are, for they say how columns are encoded.
    writer: Option<AsyncArrowWriter<Hashed>>,
    coalescer: BatchCoalescer,
    hash: Arc<Mutex<(Sha256, u64)>>,
    row_hash: Option<RowsHash>,
    options: ShardOptions,
    at: Location,
    rows: u64,
}

/// A finished file.
#[derive(Debug, Clone)]
pub struct Written {
    /// Rows.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, in hex.
    pub sha256: String,
    /// SHA-256 of the rows, in hex, where the file is encrypted: see [`RowsHash`].
    pub rows_sha256: Option<String>,
    /// Rows of each row group.
    pub row_groups: Vec<u64>,
    /// Smallest and largest value by column.
    pub min_max: IndexMap<String, (String, String)>,
}

impl ShardWriter {
    /// Begins a shard. Nothing is visible at `at` until it is finished.
    pub fn begin(at: Location, options: &ShardOptions) -> Result<Self> {
        let hash = Arc::new(Mutex::new((Sha256::new(), 0)));
        let coalescer = BatchCoalescer::new(options.schema.clone(), options.write_rows);
        let row_hash = options.hash_rows.then(|| RowsHash::new(&options.schema)).transpose()?;
        Ok(Self { writer: None, coalescer, hash, row_hash, options: options.clone(), at, rows: 0 })
    }

    /// The writer of a shard with these first rows.
    fn open(&self, first: &RecordBatch) -> Result<AsyncArrowWriter<Hashed>> {
        let inner = BufWriter::new(self.at.store.clone(), self.at.path.clone()).with_max_concurrency(PARTS);
        let sink = Hashed { inner, hash: self.hash.clone() };
        let properties = encoding::suited(self.options.properties.clone(), first, self.options.group_rows)?;
        let arrow = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        Ok(AsyncArrowWriter::try_new_with_options(sink, self.options.schema.clone(), arrow)?)
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds rows.
    pub async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.coalescer.push_batch(batch)?;
        self.drain().await
    }

    /// Adds the rows for which the mask is true.
    pub async fn write_where(&mut self, batch: RecordBatch, mask: &BooleanArray) -> Result<()> {
        self.rows += mask.true_count() as u64;
        self.coalescer.push_batch_with_filter(batch, mask)?;
        self.drain().await
    }

    async fn drain(&mut self) -> Result<()> {
        while let Some(ready) = self.coalescer.next_completed_batch() {
            if let Some(hash) = &mut self.row_hash {
                hash.update(&ready)?;
            }
            let writer = match self.writer.take() {
                Some(writer) => writer,
                None => self.open(&ready)?,
            };
            let written = self.writer.insert(writer).write(&ready).await;
            written.map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    /// Finishes the shard: from here on it is visible, whole and on disk.
    pub async fn finish(mut self) -> Result<Written> {
        self.coalescer.finish_buffered_batch()?;
        self.drain().await?;
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.open(&RecordBatch::new_empty(self.options.schema.clone()))?,
        };
        let metadata = writer.finish().await.map_err(|e| self.failed(e))?;
        // The disk takes its time; the threads that compute have better things to do.
        let at = self.at.clone();
        tokio::task::spawn_blocking(move || at.sync()).await??;
        let (hash, bytes) = {
            let held = self.hash.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            (held.0.clone(), held.1)
        };
        Ok(Written {
            rows: self.rows,
            bytes,
            sha256: hex::encode(hash.finalize()),
            rows_sha256: self.row_hash.take().map(RowsHash::finish),
            row_groups: metadata.row_groups().iter().map(|g| g.num_rows().max(0) as u64).collect(),
            min_max: min_max(&self.options.schema, &metadata),
        })
    }

    fn failed(&self, e: ParquetError) -> Error {
        let e = Error::from(e);
        let e = if e.kind() == crate::error::Kind::Input { Error::storage(format!("cannot write the shard: {}", e.message())) } else { e };
        e.at(self.at.display())
    }
}

/// Smallest and largest value of each column, as text, where the footer's statistics have them.
fn min_max(schema: &SchemaRef, metadata: &ParquetMetaData) -> IndexMap<String, (String, String)> {
    let descriptor = metadata.file_metadata().schema_descr();
    let Ok(stored) = parquet_to_arrow_schema(descriptor, metadata.file_metadata().key_value_metadata()) else { return IndexMap::new() };
    let of = |name: &String| -> Option<(String, String)> {
        let converter = StatisticsConverter::try_new(name, &stored, descriptor).ok()?;
        let mins = converter.row_group_mins(metadata.row_groups()).ok()?;
        let maxes = converter.row_group_maxes(metadata.row_groups()).ok()?;
        Some((first(&mins, false)?, first(&maxes, true)?))
    };
    schema.fields().iter().filter_map(|f| Some((f.name().clone(), of(f.name())?))).collect()
}

fn first(array: &ArrayRef, descending: bool) -> Option<String> {
    let order = sort_to_indices(array, Some(SortOptions { descending, nulls_first: false }), Some(1)).ok()?;
    let at = order.values().first().copied()? as usize;
    if array.is_null(at) {
        return None;
    }
    Some(array_value_to_string(array, at).ok()?.chars().take(SHOWN).collect())
}

/// Passes bytes on and hashes them.
struct Hashed {
    inner: BufWriter,
    hash: Arc<Mutex<(Sha256, u64)>>,
}

impl AsyncFileWriter for Hashed {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), ParquetError>> {
        {
            let mut held = self.hash.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            held.0.update(&bytes);
            held.1 += bytes.len() as u64;
        }
        async { self.inner.put(bytes).await.map_err(|e| ParquetError::External(e.into())) }.boxed()
    }

    fn complete(&mut self) -> BoxFuture<'_, Result<(), ParquetError>> {
        async { Ok(self.inner.shutdown().await?) }.boxed()
    }
}
