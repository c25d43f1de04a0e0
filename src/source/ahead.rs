//! Bytes of row groups, asked for before they are needed: a remote store answers late, and an engine that waits for each answer is idle.
//!
//! A unit's row groups are fetched in their order, some ahead of the one that is decoded, within a budget of bytes. On a disk nothing is fetched
//! ahead: the system does that.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use object_store::{GetOptions, GetRange, GetResult, OBJECT_STORE_COALESCE_DEFAULT, ObjectStore, coalesce_ranges};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use tokio::task::JoinHandle;

use crate::error::{Error, Kind, Result};
use crate::storage::Location;
use crate::storage::is_out_of_range;
use crate::storage::steady::is_same;

/// Bytes of a unit that are fetched ahead of what is decoded, beside one row group in any case.
const AHEAD_BYTES: u64 = 16 << 20;

/// Reads a part of an object, of the version that the ETag names.
pub(super) async fn fetch(at: &Location, e_tag: Option<&str>, range: Range<u64>) -> object_store::Result<Bytes> {
    fetch_tagged(at, e_tag, range).await.map(|(bytes, _)| bytes)
}

/// The same, with the ETag of the object that was read.
pub(super) async fn fetch_tagged(at: &Location, e_tag: Option<&str>, range: Range<u64>) -> object_store::Result<(Bytes, Option<String>)> {
    let wanted = range.end - range.start;
    let got = open_tagged(at, e_tag, Some(range)).await?;
    let found = got.meta.e_tag.clone();
    let bytes = got.bytes().await?;
    if bytes.len() as u64 != wanted {
        let source = format!("{} bytes are there, {wanted} were", bytes.len()).into();
        return Err(object_store::Error::Precondition { path: at.path.to_string(), source });
    }
    Ok((bytes, found))
}

/// Begins to read an object, whole or in part, of the version that the ETag names.
pub(super) async fn open_tagged(at: &Location, e_tag: Option<&str>, range: Option<Range<u64>>) -> object_store::Result<GetResult> {
    let options = GetOptions { range: range.map(GetRange::Bounded), if_match: e_tag.map(str::to_owned), ..Default::default() };
    let got = at.store.get_opts(&at.path, options).await?;
    is_same(&at.path, e_tag, &got.meta)?;
    Ok(got)
}

/// The store failed, which says nothing about the shard; unless the shard is another one by now.
pub(super) fn unreachable(e: object_store::Error, at: &Location) -> Error {
    let e = match e {
        // One that has become shorter is another one too, whatever the server knows of If-Match.
        e if matches!(e, object_store::Error::Precondition { .. }) || is_out_of_range(&e) => {
            Error::new(Kind::Storage, "the shard was replaced while the run read it")
                .hint("run again once nobody writes there; put new data under new names")
        }
        object_store::Error::NotFound { .. } => {
            Error::new(Kind::Storage, "the shard was there when the run began, and is gone").hint("run again once nobody writes there")
        }
        other => other.into(),
    };
    e.at(at.display())
}

/// Ranged reads of a shard whose footer is known.
pub(super) struct Ranges {
    at: Location,
    e_tag: Option<String>,
    footer: Arc<ParquetMetaData>,
    /// The row groups that are still to be asked for.
    groups: VecDeque<Vec<Range<u64>>>,
    flights: VecDeque<Flight>,
}

/// A row group's bytes, under way.
struct Flight {
    ranges: Vec<Range<u64>>,
    bytes: u64,
    task: JoinHandle<object_store::Result<Vec<Bytes>>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ranges {
    /// Begins to fetch the chosen columns of the row groups, where the shard lies in a remote store.
    pub fn new(at: Location, e_tag: Option<String>, footer: Arc<ParquetMetaData>, groups: Range<usize>, mask: &ProjectionMask) -> Self {
        let remote = at.local.is_none();
        let of_group = |g: usize| {
            let chunks = footer.row_group(g).columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
            chunks.map(|(_, c)| c.byte_range()).map(|(start, length)| start..start.saturating_add(length)).collect::<Vec<_>>()
        };
        let groups = groups.filter(|_| remote).map(of_group).filter(|ranges| !ranges.is_empty()).collect();
        let mut ranges = Self { at, e_tag, footer, groups, flights: VecDeque::new() };
        ranges.top_up();
        ranges
    }

    /// Asks for further row groups until enough is under way.
    fn top_up(&mut self) {
        while self.flights.is_empty() || self.flights.iter().map(|f| f.bytes).sum::<u64>() < AHEAD_BYTES {
            let Some(ranges) = self.groups.pop_front() else { return };
            let (at, e_tag, wanted) = (self.at.clone(), self.e_tag.clone(), ranges.clone());
            let task = tokio::spawn(async move { fetch_all(&at, e_tag.as_deref(), &wanted).await });
            self.flights.push_back(Flight { bytes: ranges.iter().map(|r| r.end - r.start).sum(), ranges, task });
        }
    }

    /// The parts asked for, from what is under way where that holds them.
    async fn parts(&mut self, wanted: Vec<Range<u64>>) -> object_store::Result<Vec<Bytes>> {
        let within = |flight: &Flight, r: &Range<u64>| flight.ranges.iter().position(|f| f.start <= r.start && r.end <= f.end);
        let places: Option<Vec<usize>> = self.flights.front().and_then(|f| wanted.iter().map(|r| within(f, r)).collect());
        let (Some(places), Some(mut flight)) = (places, self.flights.pop_front()) else {
            return match self.at.local {
                // A disk is read in one go, without the gaps between the ranges.
                Some(_) => self.at.store.get_ranges(&self.at.path, &wanted).await,
                None => fetch_all(&self.at, self.e_tag.as_deref(), &wanted).await,
            };
        };
        let bytes = (&mut flight.task).await.map_err(|source| object_store::Error::JoinError { source })??;
        self.top_up();
        let part = |(r, place): (&Range<u64>, usize)| {
            let from = (r.start - flight.ranges[place].start) as usize;
            bytes[place].slice(from..from + (r.end - r.start) as usize)
        };
        Ok(wanted.iter().zip(places).map(part).collect())
    }
}

/// Reads parts of an object, those that lie close together in one request.
async fn fetch_all(at: &Location, e_tag: Option<&str>, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
    coalesce_ranges(ranges, |range| fetch(at, e_tag, range), OBJECT_STORE_COALESCE_DEFAULT).await
}

fn external(e: object_store::Error) -> ParquetError {
    ParquetError::External(e.into())
}

impl AsyncFileReader for Ranges {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move { Ok(self.parts(vec![range]).await.map_err(external)?.remove(0)) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        self.parts(ranges).map_err(external).boxed()
    }

    fn get_metadata<'a>(&'a mut self, _: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move { Ok(self.footer.clone()) }.boxed()
    }
}
