//! How fast a feed is and where its time goes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytesize::ByteSize;

use super::Feed;
use super::state::FeedState;
use crate::error::Result;

/// Counters that workers add to.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub reading: AtomicU64,
    pub decoding: AtomicU64,
    pub collating: AtomicU64,
    pub bytes_read: AtomicU64,
    pub bytes_out: AtomicU64,
    pub held_peak: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, time: Duration) {
        counter.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// How fast a feed is and where its time goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct FeedStats {
    /// Batches that the consumer received.
    pub batches: u64,
    /// Rows in them; packed rows where tokens are packed.
    pub rows: u64,
    /// Bytes read from shards, compressed.
    pub bytes_read: u64,
    /// Bytes of the arrays of batches that were made, without the columns handed out as they are.
    pub bytes_out: u64,
    /// The most bytes of decoded row groups that were held at once.
    pub held_peak: u64,
    /// Worker threads.
    pub threads: usize,
    /// Seconds from opening to the first batch (how long a resume takes).
    pub first_batch_s: f64,
    /// Seconds from opening to the last batch received.
    pub wall_s: f64,
    /// Seconds in which the consumer waited for a batch.
    pub wait_s: f64,
    /// Seconds of worker threads in reading bytes.
    pub read_s: f64,
    /// Seconds of worker threads in decompressing, decoding and casting to rows.
    pub decode_s: f64,
    /// Seconds of worker threads in gathering rows into batches, padding and packing.
    pub collate_s: f64,
}

impl FeedStats {
    /// Rows a second.
    pub fn rows_per_s(&self) -> f64 {
        if self.wall_s > 0.0 { self.rows as f64 / self.wall_s } else { 0.0 }
    }

    /// The share of time in which the consumer waited, 0 to 1.
    pub fn waiting(&self) -> f64 {
        if self.wall_s > 0.0 { self.wait_s / self.wall_s } else { 0.0 }
    }

    /// The share of the worker threads' time in which they had nothing to do, 0 to 1.
    pub fn idle(&self) -> f64 {
        let all = self.wall_s * self.threads as f64;
        if all > 0.0 { (1.0 - (self.read_s + self.decode_s + self.collate_s) / all).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// What [`drive`] saw.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct FeedSummary {
    /// The counters.
    pub stats: FeedStats,
    /// Where the feed stands.
    pub state: FeedState,
    /// Whether the epoch was read to its end.
    pub ended: bool,
}

/// Takes batches as fast as they come, at most `limit` of them, and says how fast that was.
///
/// # Errors
/// The first error of the feed.
pub fn drive(feed: &mut Feed, limit: Option<u64>) -> Result<FeedSummary> {
    let limit = limit.unwrap_or(u64::MAX);
    let mut ended = false;
    while feed.stats().batches < limit {
        match feed.next() {
            Some(batch) => drop(batch?),
            None => {
                ended = true;
                break;
            }
        }
    }
    Ok(FeedSummary { stats: feed.stats(), state: feed.state(), ended })
}

impl fmt::Display for FeedSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.stats;
        let rate = |bytes: u64| ByteSize::b(if s.wall_s > 0.0 { (bytes as f64 / s.wall_s) as u64 } else { 0 });
        writeln!(f, "split {}, epoch {}{}", self.state.split, self.state.epoch, if self.ended { "" } else { " (not read to its end)" })?;
        writeln!(f, "{} rows in {} batches, {:.2} s: {:.0} rows/s", s.rows, s.batches, s.wall_s, s.rows_per_s())?;
        writeln!(
            f,
            "read {} ({}/s), handed out {} ({}/s)",
            ByteSize::b(s.bytes_read),
            rate(s.bytes_read),
            ByteSize::b(s.bytes_out),
            rate(s.bytes_out)
        )?;
        writeln!(f, "first batch after {:.1} ms; decoded rows held at most {}", s.first_batch_s * 1e3, ByteSize::b(s.held_peak))?;
        writeln!(f, "the consumer waited {:.2} s ({:.0} %)", s.wait_s, s.waiting() * 100.0)?;
        let all = (s.wall_s * s.threads as f64).max(f64::MIN_POSITIVE);
        let part = |seconds: f64| format!("{seconds:.2} s ({:.0} %)", seconds / all * 100.0);
        write!(
            f,
            "{} threads: read {}, decode {}, collate {}, idle {:.0} %",
            s.threads,
            part(s.read_s),
            part(s.decode_s),
            part(s.collate_s),
            s.idle() * 100.0
        )
    }
}
