//! Opening a shard: its footer, nothing else.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::ParquetMetaData;
use sha2::{Digest, Sha256};

use super::ahead::{fetch, fetch_tagged, unreachable};
use super::discover::Found;
use super::{UNIT_BYTES, UNIT_ROWS, types};
use crate::crypt::{ENCRYPTED, FileKeys};
use crate::error::{Error, Result};
use crate::storage::Location;

/// How much of a shard's end is read at first: nearly every footer is smaller, so that one request does.
const TAIL: u64 = 64 * 1024;

/// A Parquet file whose footer was read.
#[derive(Debug, Clone)]
pub struct Shard {
    /// The path below the source's root.
    pub path: String,
    /// Where the rows lie: the shard itself, or its copy in staging where the shard has no footer.
    pub location: Location,
    /// Size in bytes of the shard.
    pub bytes: u64,
    /// Size in bytes of the Parquet file that is read.
    pub stored_bytes: u64,
    /// Rows.
    pub rows: u64,
    /// What tells a changed object.
    pub stamp: String,
    /// The ETag of the Parquet file that is read, where it is the shard itself.
    pub e_tag: Option<String>,
    /// SHA-256 of the footer (or of the whole file, for formats that have none), in hex.
    pub fingerprint: String,
    /// Footer and Arrow schema, with text as views.
    pub reader: ArrowReaderMetadata,
    /// Rows that could not be read, by reason: lines of text formats.
    pub rejected: Vec<(String, u64)>,
    /// The file with those lines, where there are any.
    pub rejected_lines: Option<Location>,
}

impl Shard {
    /// The footer.
    pub fn metadata(&self) -> &Arc<ParquetMetaData> {
        self.reader.metadata()
    }

    /// How the shard is shown to people.
    pub fn display(&self) -> String {
        self.location.display()
    }

    /// Bytes, uncompressed.
    pub fn uncompressed_bytes(&self) -> u64 {
        self.metadata().row_groups().iter().map(|g| g.total_byte_size().max(0) as u64).sum()
    }

    /// The shard's units: spans of row groups, each until it is full.
    pub(super) fn spans(&self) -> Vec<Range<usize>> {
        let (mut spans, mut begin, mut rows, mut bytes) = (Vec::new(), 0, 0, 0);
        for (i, group) in self.metadata().row_groups().iter().enumerate() {
            let (r, b) = (group.num_rows().max(0) as u64, group.total_byte_size());
            if i > begin && (rows + r > UNIT_ROWS || bytes + b > UNIT_BYTES) {
                spans.push(begin..i);
                (begin, rows, bytes) = (i, 0, 0);
            }
            rows += r;
            bytes += b;
        }
        if rows > 0 {
            spans.push(begin..self.metadata().num_row_groups());
        }
        spans
    }

    /// Rows of a span of row groups.
    pub(super) fn rows_of(&self, groups: &Range<usize>) -> u32 {
        groups.clone().map(|g| self.metadata().row_group(g).num_rows().max(0) as u32).sum()
    }
}

/// Opens a Parquet shard by its footer, with keys where it is encrypted.
///
/// # Errors
/// `Key` where the keys do not open the footer and every column; see [`FileKeys::decode`].
pub async fn open_shard(found: &Found, keys: &FileKeys) -> Result<Shard> {
    let at = found.location.display();
    let (tail, e_tag) = read_footer(found).await.map_err(|e| e.at(at.clone()))?;
    let fingerprint = hex::encode(Sha256::digest(&tail[..tail.len() - 8]));
    let opened = keys.decode(&tail).map_err(|e| e.at(at.clone()))?;
    if !opened.locked.is_empty() {
        return Err(keys.lacking(&opened.locked).at(at));
    }
    let mut shard = shard_of(found, opened.metadata, fingerprint).map_err(|e| e.at(at))?;
    shard.e_tag = e_tag;
    Ok(shard)
}

fn shard_of(found: &Found, metadata: ParquetMetaData, fingerprint: String) -> Result<Shard> {
    let metadata = Arc::new(metadata);
    let rows: i64 = metadata.row_groups().iter().map(|g| g.num_rows()).sum();
    if rows != metadata.file_metadata().num_rows()
        || metadata.row_groups().iter().any(|g| !(0..=i64::from(u32::MAX)).contains(&g.num_rows()))
    {
        return Err(Error::input("the Parquet footer contradicts itself on the number of rows"));
    }
    let plain = ArrowReaderMetadata::try_new(metadata.clone(), ArrowReaderOptions::new())?;
    types::check_names(plain.schema())?;
    let views = ArrowReaderOptions::new().with_schema(types::as_views(plain.schema()));
    let reader = ArrowReaderMetadata::try_new(metadata, views)?;
    Ok(Shard {
        path: found.path.clone(),
        location: found.location.clone(),
        bytes: found.bytes,
        stored_bytes: found.bytes,
        rows: rows as u64,
        stamp: found.stamp.clone(),
        e_tag: found.e_tag.clone(),
        fingerprint,
        reader,
        rejected: Vec::new(),
        rejected_lines: None,
    })
}

/// The file's end from the footer's first byte on, and the object's ETag: one request where it fits the tail, two otherwise.
async fn read_footer(found: &Found) -> Result<(Bytes, Option<String>)> {
    if found.bytes < 12 {
        return Err(Error::input(format!("not a Parquet file: only {} bytes long", found.bytes)));
    }
    // Not every listing has ETags; from here on the object is the one whose end was read.
    let tail = found.bytes.saturating_sub(TAIL)..found.bytes;
    let tail = fetch_tagged(&found.location, found.e_tag.as_deref(), tail).await.map_err(|e| unreachable(e, &found.location))?;
    let (tail, e_tag) = (tail.0, found.e_tag.clone().or(tail.1));
    let end: &[u8] = &tail[tail.len() - 8..];
    let is_magic = |bytes: &[u8]| bytes == b"PAR1" || bytes == ENCRYPTED;
    if !is_magic(&end[4..]) {
        let truncated = range(found, &e_tag, 0..4).await.is_ok_and(|b| is_magic(&b));
        let message = if truncated {
            "the Parquet file is cut short: its footer is missing"
        } else {
            "not a Parquet file: it does not end with PAR1"
        };
        return Err(Error::input(message));
    }
    let length = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    if length + 8 > found.bytes {
        return Err(Error::input("the Parquet file is damaged: its footer would be longer than the file"));
    }
    let begin = found.bytes - 8 - length;
    if length + 8 <= tail.len() as u64 {
        let from = tail.len() - 8 - length as usize;
        return Ok((tail.slice(from..), e_tag));
    }
    Ok((range(found, &e_tag, begin..found.bytes).await?, e_tag))
}

async fn range(found: &Found, e_tag: &Option<String>, range: Range<u64>) -> Result<Bytes> {
    fetch(&found.location, e_tag.as_deref(), range).await.map_err(|e| unreachable(e, &found.location))
}
