//! The split's shards: footers, and the bytes of one row group's columns, from a disk or an object store.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use bytes::Bytes;
use bytes::buf::Buf;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::FooterTail;
use parquet::file::reader::{ChunkReader, Length};

use super::order::RowGroup;
use crate::crypt::{FileKeys, wanted};
use crate::dataset::Manifest;
use crate::error::{Error, Kind, Result};
use crate::storage::Location;

/// Footers kept at once: wide tables have footers of a megabyte, and a dataset may have many shards.
const FOOTERS_KEPT: usize = 128;
/// What is read of a shard's end at first: most footers are shorter.
const FOOTER_BYTES: u64 = 64 * 1024;
/// Ranges of a file that are closer than this are read together.
const GAP: u64 = 64 * 1024;

/// The shards of one split.
#[derive(Debug)]
pub(super) struct Shards {
    shards: Vec<Shard>,
    footers: Mutex<VecDeque<(u32, Footer)>>,
    keys: FileKeys,
    /// Only where the dataset is not on this machine's disk.
    io: Option<tokio::runtime::Handle>,
}

/// A footer, and the columns for which there is no key, with the reason.
#[derive(Debug, Clone)]
struct Footer {
    reader: ArrowReaderMetadata,
    locked: Arc<BTreeMap<String, String>>,
}

#[derive(Debug)]
struct Shard {
    path: String,
    at: Location,
    bytes: u64,
    row_groups: Vec<u64>,
}

/// The rows of one row group, and how long it took to get them.
pub(super) struct Loaded {
    pub batch: RecordBatch,
    pub bytes_read: u64,
    pub reading: Duration,
    pub decoding: Duration,
}

impl Shards {
    pub fn new(root: &Location, manifest: &Manifest, split: &str, io: Option<tokio::runtime::Handle>) -> Self {
        let shards = manifest
            .shards_of(split)
            .map(|s| Shard { path: s.path.clone(), at: root.child(&s.path), bytes: s.bytes, row_groups: s.row_groups.clone() })
            .collect();
        Self { shards, footers: Mutex::default(), keys: FileKeys::of_version(manifest), io }
    }

    /// Every row group of the split, in the order as written.
    pub fn row_groups(&self) -> Result<Vec<RowGroup>> {
        let mut all = Vec::new();
        for (shard, s) in self.shards.iter().enumerate() {
            for (group, &rows) in s.row_groups.iter().enumerate() {
                let rows = u32::try_from(rows).map_err(|_| Error::input(format!("a row group has {rows} rows")).at(s.path.clone()))?;
                all.push(RowGroup { shard: shard as u32, group: group as u32, rows });
            }
        }
        Ok(all)
    }

    /// The columns, as the first shard that has rows knows them; `None` where the split has no rows. Reads one footer.
    pub fn schema(&self) -> Result<Option<SchemaRef>> {
        let Some(first) = self.shards.iter().position(|s| s.row_groups.iter().any(|&r| r > 0)) else { return Ok(None) };
        Ok(Some(self.footer(first as u32)?.reader.schema().clone()))
    }

    /// The place of a row group, for errors.
    pub fn place(&self, group: &RowGroup) -> String {
        format!("{}, row group {}", self.shards[group.shard as usize].path, group.group)
    }

    /// Reads and decodes the named columns of a row group.
    pub fn load(&self, group: &RowGroup, columns: &[&str]) -> Result<Loaded> {
        self.load_here(group, columns).map_err(|e| e.at(self.place(group)))
    }

    fn load_here(&self, group: &RowGroup, columns: &[&str]) -> Result<Loaded> {
        let start = Instant::now();
        let Footer { reader: footer, locked } = self.footer(group.shard)?;
        let lacking = wanted(&locked, columns);
        if !lacking.is_empty() {
            return Err(self.keys.lacking(lacking));
        }
        let shard = &self.shards[group.shard as usize];
        let mask = projection(&footer, columns)?;
        let chunks = footer.metadata().row_group(group.group as usize).columns();
        let wanted: Vec<Range<u64>> = chunks
            .iter()
            .enumerate()
            .filter(|(leaf, _)| mask.leaf_included(*leaf))
            .map(|(_, c)| {
                let (start, length) = c.byte_range();
                start..start.saturating_add(length)
            })
            .collect();
        let bytes = self.fetch(shard, &join_near(wanted))?;
        let bytes_read = bytes.parts.iter().map(|(_, b)| b.len() as u64).sum();
        let read = Instant::now();
        let rows = group.rows as usize;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, footer)
            .with_row_groups(vec![group.group as usize])
            .with_projection(mask)
            .with_batch_size(rows)
            .build()?;
        let schema = reader.schema_of();
        let batches = reader.collect::<Result<Vec<_>, _>>()?;
        let batch = if let [one] = batches.as_slice() { one.clone() } else { concat_batches(&schema, &batches)? };
        if batch.num_rows() != rows {
            return Err(changed(format!("it holds {} rows, the manifest says {rows}", batch.num_rows())));
        }
        Ok(Loaded { batch, bytes_read, reading: read - start, decoding: read.elapsed() })
    }

    fn footer(&self, shard: u32) -> Result<Footer> {
        let kept = |f: &VecDeque<(u32, Footer)>| f.iter().find(|(s, _)| *s == shard).map(|(_, m)| m.clone());
        if let Some(found) = kept(&self.footers.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(found);
        }
        let s = &self.shards[shard as usize];
        let footer = self.read_footer(s).map_err(|e| e.at(s.path.clone()))?;
        let have: Vec<u64> = footer.reader.metadata().row_groups().iter().map(|g| g.num_rows().max(0) as u64).collect();
        if have != s.row_groups {
            return Err(changed("its row groups are not those of the manifest".to_owned()).at(s.path.clone()));
        }
        let mut footers = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
        if kept(&footers).is_none() {
            footers.push_back((shard, footer.clone()));
            if footers.len() > FOOTERS_KEPT {
                footers.pop_front();
            }
        }
        Ok(footer)
    }

    /// Reads the end of a shard, and once more where the footer is longer than that.
    fn read_footer(&self, shard: &Shard) -> Result<Footer> {
        let size = match self.io {
            None => open(shard)?.metadata()?.len(),
            Some(_) => shard.bytes,
        };
        let mut tail = FOOTER_BYTES.min(size);
        loop {
            let bytes = self.fetch(shard, std::slice::from_ref(&(size - tail..size)))?.parts.pop().map(|(_, b)| b).unwrap_or_default();
            let end = bytes.last_chunk::<8>().ok_or_else(|| changed("it is too short".to_owned()))?;
            let needed = FooterTail::try_new(end)?.metadata_length() as u64 + 8;
            if needed > size {
                return Err(changed("its footer would be longer than the file".to_owned()));
            }
            if needed <= tail {
                let opened = self.keys.decode(&bytes.slice((tail - needed) as usize..))?;
                let reader = ArrowReaderMetadata::try_new(Arc::new(opened.metadata), ArrowReaderOptions::new())?;
                return Ok(Footer { reader, locked: Arc::new(opened.locked) });
            }
            tail = needed;
        }
    }

    fn fetch(&self, shard: &Shard, ranges: &[Range<u64>]) -> Result<Fetched> {
        let parts = match &self.io {
            None => {
                let mut file = open(shard)?;
                ranges.iter().map(|r| read_range(&mut file, r)).collect::<Result<Vec<_>>>()?
            }
            Some(io) => {
                let (store, path, wanted) = (shard.at.store.clone(), shard.at.path.clone(), ranges.to_vec());
                on_io(io, async move { store.get_ranges(&path, &wanted).await })?.map_err(|e| match e {
                    object_store::Error::NotFound { .. } => missing(),
                    other => other.into(),
                })?
            }
        };
        Ok(Fetched { length: ranges.last().map_or(0, |r| r.end), parts: ranges.iter().map(|r| r.start).zip(parts).collect() })
    }
}

/// Waits for a future on the runtime, from a thread of the feed or of its user (who may be inside a runtime of their own).
fn on_io<T: Send + 'static>(io: &tokio::runtime::Handle, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let (send, receive) = crossbeam_channel::bounded(1);
    io.spawn(async move {
        // The receiver only vanishes when its thread did; then nobody wants the answer.
        let _ = send.send(work.await);
    });
    receive.recv().map_err(|_| Error::internal("the feed's reader ended before it answered"))
}

fn open(shard: &Shard) -> Result<std::fs::File> {
    let path = shard.at.local.as_ref().ok_or_else(|| Error::internal("a shard without a path on this disk"))?;
    std::fs::File::open(path).map_err(|e| if e.kind() == std::io::ErrorKind::NotFound { missing() } else { Error::from(e) })
}

fn read_range(file: &mut std::fs::File, range: &Range<u64>) -> Result<Bytes> {
    let mut buffer = vec![0; (range.end - range.start) as usize];
    let read = file.seek(SeekFrom::Start(range.start)).and_then(|_| file.read_exact(&mut buffer));
    match read {
        Ok(()) => Ok(buffer.into()),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(changed("it ends early".to_owned())),
        Err(e) => Err(e.into()),
    }
}

fn missing() -> Error {
    Error::storage("a shard of the version is missing").hint("was it removed by hand? run `feedline verify`, then the pipeline again")
}

fn changed(how: String) -> Error {
    Error::new(Kind::Input, format!("a shard is not what the manifest describes: {how}"))
        .hint("shards are immutable: run `feedline verify` to see which were changed")
}

fn projection(footer: &ArrowReaderMetadata, columns: &[&str]) -> Result<ProjectionMask> {
    let roots = columns.iter().map(|name| footer.schema().index_of(name)).collect::<Result<Vec<_>, _>>();
    let roots = roots.map_err(|_| changed("it lacks a column".to_owned()))?;
    Ok(ProjectionMask::roots(footer.parquet_schema(), roots))
}

/// Ranges in order, with those that lie close together made one.
fn join_near(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|r| r.start);
    let mut out: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for r in ranges {
        match out.last_mut() {
            Some(last) if r.start <= last.end + GAP => last.end = last.end.max(r.end),
            _ => out.push(r),
        }
    }
    out
}

/// The parts of a file that were read: all that the decoder will ask for.
struct Fetched {
    length: u64,
    parts: Vec<(u64, Bytes)>,
}

impl Fetched {
    fn from(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let part = self.parts.partition_point(|(at, _)| *at <= start).checked_sub(1).map(|i| &self.parts[i]);
        match part {
            Some((at, bytes)) if start - at <= bytes.len() as u64 => Ok(bytes.slice((start - at) as usize..)),
            _ => Err(ParquetError::General(format!("byte {start} lies outside of the columns' chunks"))),
        }
    }
}

impl Length for Fetched {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Fetched {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let bytes = self.from(start)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!("{length} bytes asked at {start}, {} are left", bytes.len())));
        }
        Ok(bytes.slice(..length))
    }
}

/// The schema of a reader, under a name that does not clash with two traits of one method.
trait SchemaOf {
    fn schema_of(&self) -> SchemaRef;
}

impl SchemaOf for parquet::arrow::arrow_reader::ParquetRecordBatchReader {
    fn schema_of(&self) -> SchemaRef {
        let schema = arrow::array::RecordBatchReader::schema(self);
        Arc::new(Schema::new(schema.fields().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_read_together() {
        assert_eq!(join_near(vec![200_000..200_010, 4..90, 100..120]), vec![4..120, 200_000..200_010]);
        assert_eq!(join_near(vec![]), Vec::<Range<u64>>::new());
    }

    #[test]
    fn only_what_was_fetched_can_be_read() {
        let f = Fetched { length: 100, parts: vec![(10, Bytes::from_static(b"abcdef")), (40, Bytes::from_static(b"xyz"))] };
        assert_eq!(f.get_bytes(12, 3).unwrap(), "cde");
        assert_eq!(f.get_bytes(40, 3).unwrap(), "xyz");
        assert!(f.get_bytes(41, 3).is_err());
        assert!(f.get_bytes(5, 1).is_err());
        assert!(f.get_bytes(20, 1).is_err());
    }
}
