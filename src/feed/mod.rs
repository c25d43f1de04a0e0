//! The feed: a published version becomes batches for a trainer.
//!
//! ```text
//!  manifest ─▶ order      position p ─▶ (shard, row group, row): arithmetic, no list of rows
//!                │
//!                ▼                        window n            window n + 1
//!  shards ─▶ decode, cast to rows ────▶ [5  2  7]            [0  6  .]       read ahead by one window
//!                                          │
//!                                          ▼ gather, pad or pack: one copy a row
//!                                  ring   [slot][slot][slot][slot]           `prefetch` slots, used again and again
//!                                          │
//!                                          ▼ in exact order
//!                                       consumer: `for batch in feed`        dropping a batch frees its slot
//! ```
//!
//! # What holds
//!
//! - **Every row once an epoch**, in an order that is a pure function of (version, split, seed, epoch, `window_rows`): the same batches with any
//!   number of threads and any prefetch. Another seed or epoch is another order.
//! - **Resume is a seek.** [`Feed::state`] says what the consumer has received, not what was prefetched. A feed opened with it decodes the current
//!   window and goes on with the next row.
//! - **The world size may change.** All ranks together take `world_size × batch_rows` consecutive positions a step, rank *r* the *r*-th part
//!   of them. A state names a position in the epoch and no rank. The last step of an epoch is divided evenly; where it
//!   has fewer rows than ranks, some ranks end one batch earlier, unless `drop_last` leaves it out for all.
//! - **Nothing hangs.** A bad row group is an error that names it, as the batch that needs it; dropping a feed ends its threads; a consumer that
//!   keeps all its batches gets new slots. There are no processes and nothing in `/dev/shm`; a feed that crosses a `fork` says so.
//! - **Memory** is the windows that the next batches need, one more that is read ahead (where [`FeedOptions::memory`] allows it), and the slots.
//!
//! Every rank decodes every window that its rows come from. Where a step is smaller than a window this is the whole split, so keep one feed a machine
//! and share its batches among the machine's devices where decoding is what takes the time.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use feedline::feed::{Feed, FeedOptions, FeedState};
//! use feedline::spec::pipeline::FeedSpec;
//! use feedline::storage::Location;
//! # use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch};
//! # let dir = tempfile::tempdir()?;
//! # let x: ArrayRef = Arc::new(Float64Array::from_iter_values((0..1000).map(f64::from)));
//! # let y: ArrayRef = Arc::new(BooleanArray::from_iter((0..1000).map(|i| Some(i % 3 == 0))));
//! # let rows = RecordBatch::try_from_iter([("dep_delay", x), ("late", y)])?;
//! # let properties = parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(100)).build();
//! # let file = std::fs::File::create(dir.path().join("part-0.parquet"))?;
//! # let mut writer = parquet::arrow::ArrowWriter::try_new(file, rows.schema(), Some(properties))?;
//! # writer.write(&rows)?;
//! # writer.close()?;
//! # let manifest: feedline::dataset::Manifest = serde_json::from_value(serde_json::json!({
//! #     "format": "feedline-manifest/v1", "version": 1, "parent": null, "hash": "c0ffee", "name": "flights", "inputs": [],
//! #     "spec": {}, "spec_hash": "", "seed": 7, "splits": ["train"], "fits": {},
//! #     "schema": [{"name": "dep_delay", "type": "Float64", "nullable": true}, {"name": "late", "type": "Boolean", "nullable": true}],
//! #     "rows": {"input": 1000, "added": {}, "rejected": {}, "output": 1000, "by_split": {"train": 1000}},
//! #     "shards": [{"path": "part-0.parquet", "split": "train", "rows": 1000, "bytes": 0, "sha256": "", "row_groups": vec![100; 10]}],
//! #     "run": {"feedline": "", "started": "", "committed": "", "uris": {}},
//! # }))?;
//! # let root = Location::open(dir.path().to_str().ok_or("path")?, dir.path())?;
//! // `root` and `manifest` are a published version: see `Dataset::manifest`.
//! let spec: FeedSpec = serde_json::from_value(serde_json::json!({
//!     "batch_rows": 128, "features": ["dep_delay"], "label": "late", "dtype": "f32",
//! }))?;
//! let mut feed = Feed::open(&root, &manifest, &spec, FeedOptions { epoch: 3, ..Default::default() })?;
//!
//! let batch = feed.next().ok_or("an empty split")??;
//! let matrix = batch.features().ok_or("no features")?;
//! assert_eq!((matrix.rows, matrix.cols), (128, 1));
//! assert_eq!(batch.labels().ok_or("no label")?.to_f32().len(), 128);
//!
//! // A checkpoint holds the state; a later feed goes on with the very next row.
//! let saved = feed.state().to_json()?;
//! let expected = feed.next().ok_or("ended")??.features().ok_or("no features")?.data.to_f32();
//! let resume = Some(FeedState::from_json(&saved)?);
//! let mut resumed = Feed::open(&root, &manifest, &spec, FeedOptions { resume, threads: 1, ..Default::default() })?;
//! assert_eq!(resumed.next().ok_or("ended")??.features().ok_or("no features")?.data.to_f32(), expected);
//!
//! // The rest of the epoch: 1000 rows in all, each once.
//! let rest: usize = resumed.map(|b| b.map(|b| b.rows())).sum::<Result<usize, _>>()?;
//! assert_eq!(128 + 128 + rest, 1000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod collate;
mod columns;
pub mod decode;
pub mod device;
pub mod order;
mod plan;
pub mod ring;
mod shards;
mod state;
mod stats;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tokens;
mod work;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub use columns::check;
pub use ring::{Batch, Labels, Matrix, MatrixData, Tokens};
pub use state::FeedState;
pub use stats::{FeedStats, FeedSummary, drive};

use crate::dataset::Manifest;
use crate::error::{Error, Result, nearest};
use crate::spec::pipeline::{FeedSpec, TokensMode};
use crate::storage::Location;
use columns::Columns;
use device::HostAllocator;
use order::{Key, Order};
use plan::{Planner, Share};
use ring::{Layout, Pool};
use shards::Shards;
use tokens::Cursor;
use work::{Context, Shared};

/// Rows in a window of the shuffle unless an option says otherwise: four row groups of the sink's default size.
pub const WINDOW_ROWS: u64 = 524_288;

/// What a feed does beside what the spec says.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedOptions {
    /// The split; `train` where there is one, else the first.
    pub split: Option<String>,
    /// The seed of the order; the version's unless given.
    pub seed: Option<u64>,
    /// The epoch, from 0. Each has an order of its own.
    pub epoch: u64,
    /// Worker threads, at least 1. They never change a batch.
    pub threads: usize,
    /// Batches made ahead of the consumer, at least 1.
    pub prefetch: usize,
    /// This process among those that train together, from 0.
    pub rank: usize,
    /// How many processes train together, at least 1.
    pub world_size: usize,
    /// Rows that are shuffled together. More of them mix better and take more memory. Part of the order.
    pub window_rows: u64,
    /// Cap on bytes of decoded rows. Nothing is read ahead that would pass it; a batch that needs more is an error. It never changes a batch.
    pub memory: Option<u64>,
    /// Go on from here: the state's split, seed, epoch, shuffle and window hold, whatever stands above.
    pub resume: Option<FeedState>,
}

impl Default for FeedOptions {
    fn default() -> Self {
        Self {
            split: None,
            seed: None,
            epoch: 0,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            prefetch: 4,
            rank: 0,
            world_size: 1,
            window_rows: WINDOW_ROWS,
            memory: None,
            resume: None,
        }
    }
}

impl FeedOptions {
    fn check(&self) -> Result<()> {
        let wrong = |what: &str, hint: &str| Err(Error::usage(what.to_owned()).hint(hint.to_owned()));
        if self.threads == 0 || self.prefetch == 0 {
            return wrong("a feed needs a thread and a batch of prefetch", "give `threads` and `prefetch` of at least 1");
        }
        if self.world_size == 0 || self.rank >= self.world_size {
            let what = format!("rank {} of {} processes", self.rank, self.world_size);
            return wrong(&what, "ranks count from 0 to world_size − 1");
        }
        if self.window_rows == 0 {
            return wrong("a window must have a row", "leave `window_rows` out, or give at least 1");
        }
        Ok(())
    }
}

/// The `feed` section of the spec that made a version; without one, all columns are handed out as they are.
///
/// # Errors
/// Where the section is not one of this Feedline's.
pub fn spec_of(manifest: &Manifest) -> Result<FeedSpec> {
    let section = manifest.spec.get("feed").filter(|s| !s.is_null()).cloned().unwrap_or_else(|| serde_json::json!({}));
    serde_json::from_value(section).map_err(|e| {
        Error::input(format!("cannot read the version's `feed` section: {e}")).hint("was the version made by another Feedline? give a spec")
    })
}

/// One epoch of batches, from one split of one version. See the [module](self).
pub struct Feed {
    shared: Arc<Shared>,
    workers: Vec<std::thread::JoinHandle<()>>,
    io: Option<tokio::runtime::Runtime>,
    state: FeedState,
    process: u32,
    ended: bool,
    opened: Instant,
    stats: FeedStats,
}

impl Feed {
    /// Opens a feed: checks everything that can be checked, reads one footer and starts the workers.
    ///
    /// # Errors
    /// Mistakes in the spec and the options, a state of another version, a first shard that is missing.
    pub fn open(root: &Location, manifest: &Manifest, spec: &FeedSpec, options: FeedOptions) -> Result<Self> {
        Self::open_on(root, manifest, spec, options, Box::new(device::cpu::Heap))
    }

    /// Opens a feed whose slots lie in the memory that `allocator` gives.
    ///
    /// # Errors
    /// As [`Feed::open`].
    pub fn open_on(
        root: &Location,
        manifest: &Manifest,
        spec: &FeedSpec,
        options: FeedOptions,
        allocator: Box<dyn HostAllocator>,
    ) -> Result<Self> {
        let opened = Instant::now();
        options.check()?;
        let state = start_state(manifest, spec, &options)?;
        let io = if root.local.is_none() { Some(runtime()?) } else { None };
        let shards = Shards::new(root, manifest, &state.split, io.as_ref().map(|r| r.handle().clone()));
        let known: Vec<&str> = manifest.schema.iter().map(|c| c.name.as_str()).collect();
        // Names first: a mistake in the spec is told even where the shards are out of reach.
        Columns::resolve(spec, &known, None)?;
        let schema = shards.schema()?;
        let columns = Columns::resolve(spec, &known, schema.as_deref())?;
        let key = Key { version: &state.version, split: &state.split, seed: state.seed, epoch: state.epoch };
        let order = Order::new(shards.row_groups()?, state.shuffle, state.window_rows, key)?;
        state.check(manifest, order.rows())?;

        let share = Share {
            rank: options.rank as u64,
            world: options.world_size as u64,
            batch_rows: spec.batch_rows as u64,
            drop_last: spec.drop_last,
        };
        let from = Cursor { position: state.position, taken: state.tokens_taken };
        let packed = columns.tokens.as_ref().filter(|t| t.mode == TokensMode::Pack);
        if packed.is_none() && from.taken > 0 {
            return Err(Error::input("the state is of a feed that packed tokens").hint("resume with the same `tokens` section"));
        }
        let planner = match packed {
            Some(tokens) => Planner::packed(from, share, tokens.length as u32),
            None => Planner::rows(from, share),
        };
        // No slot is larger than the largest batch: a batch of more rows than the split has would waste it.
        let slot_rows = if packed.is_some() { spec.batch_rows as u64 } else { share.batch_rows.min(order.rows()) };
        let layout = Layout::new(
            slot_rows as usize,
            columns.features.len(),
            spec.dtype,
            columns.label.as_ref().map(|l| l.fractional),
            columns.tokens.as_ref().map(|t| (t.length, t.mode)),
        );
        let pool = Arc::new(Pool::new(layout, allocator, options.prefetch + 1));
        let cx = Context {
            order,
            shards,
            columns,
            prefetch: options.prefetch as u64,
            memory: options.memory,
            pool,
            counters: Default::default(),
        };
        let mut feed = Self {
            shared: Arc::new(Shared::new(cx, planner)),
            workers: Vec::with_capacity(options.threads),
            io,
            state,
            process: std::process::id(),
            ended: false,
            opened,
            stats: FeedStats { threads: options.threads, ..Default::default() },
        };
        for i in 0..options.threads {
            let shared = feed.shared.clone();
            let worker = std::thread::Builder::new().name(format!("feedline-feed-{i}")).spawn(move || shared.run());
            // Where this fails, dropping `feed` ends those that were started.
            feed.workers.push(worker.map_err(|e| Error::from(e).hint("lower `threads`"))?);
        }
        Ok(feed)
    }

    /// Where the feed stands: what was received from it, exactly. Save it with the model's weights.
    pub fn state(&self) -> FeedState {
        self.state.clone()
    }

    /// Rows of the split, over all ranks.
    pub fn rows(&self) -> u64 {
        self.shared.cx.order.rows()
    }

    /// How fast the feed is and where its time goes, so far.
    pub fn stats(&self) -> FeedStats {
        let c = &self.shared.cx.counters;
        let seconds = |ns: &std::sync::atomic::AtomicU64| Duration::from_nanos(ns.load(Ordering::Relaxed)).as_secs_f64();
        FeedStats {
            bytes_read: c.bytes_read.load(Ordering::Relaxed),
            bytes_out: c.bytes_out.load(Ordering::Relaxed),
            held_peak: c.held_peak.load(Ordering::Relaxed),
            read_s: seconds(&c.reading),
            decode_s: seconds(&c.decoding),
            collate_s: seconds(&c.collating),
            ..self.stats
        }
    }

    fn forked(&self) -> bool {
        std::process::id() != self.process
    }

    fn received(&mut self, batch: &Batch, after: Cursor, asked: Instant) {
        self.state.position = after.position;
        self.state.tokens_taken = after.taken;
        let now = Instant::now();
        if self.stats.batches == 0 {
            self.stats.first_batch_s = (now - self.opened).as_secs_f64();
        }
        self.stats.batches += 1;
        self.stats.rows += batch.rows() as u64;
        self.stats.wall_s = (now - self.opened).as_secs_f64();
        self.stats.wait_s += (now - asked).as_secs_f64();
    }
}

impl Iterator for Feed {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.forked() {
            self.ended = true;
            return Some(Err(Error::usage("this feed was opened before the process forked: its threads did not come along")
                .hint("open the feed in the process that reads it; its threads make loader processes unnecessary")));
        }
        let asked = Instant::now();
        match self.shared.take() {
            Some(Ok((batch, after))) => {
                self.received(&batch, after, asked);
                Some(Ok(batch))
            }
            Some(Err(e)) => {
                self.ended = true;
                Some(Err(e))
            }
            None => {
                self.ended = true;
                self.state.position = self.rows();
                self.state.tokens_taken = 0;
                None
            }
        }
    }
}

impl std::iter::FusedIterator for Feed {}

impl Drop for Feed {
    fn drop(&mut self) {
        if self.forked() {
            // The threads are the parent's: waiting for them here would be for ever.
            self.workers.drain(..).for_each(std::mem::forget);
            std::mem::forget(self.io.take());
            return;
        }
        self.shared.stop();
        // Requests to a store are given up first, so that no worker waits for one; this never blocks.
        if let Some(io) = self.io.take() {
            io.shutdown_background();
        }
        for worker in self.workers.drain(..) {
            // A worker's panic was caught and told already.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("state", &self.state).field("ended", &self.ended).finish_non_exhaustive()
    }
}

fn start_state(manifest: &Manifest, spec: &FeedSpec, options: &FeedOptions) -> Result<FeedState> {
    let state = match &options.resume {
        Some(state) => state.clone(),
        None => FeedState {
            format: state::FORMAT.to_owned(),
            version: manifest.hash.clone(),
            split: match &options.split {
                Some(split) => split.clone(),
                None => default_split(manifest)?,
            },
            seed: options.seed.unwrap_or(manifest.seed),
            epoch: options.epoch,
            shuffle: spec.shuffle,
            window_rows: options.window_rows,
            position: 0,
            tokens_taken: 0,
        },
    };
    if !manifest.splits.contains(&state.split) {
        return Err(Error::usage(format!("the version has no split `{}`", state.split))
            .hint(nearest(&state.split, manifest.splits.iter().map(String::as_str))));
    }
    Ok(state)
}

fn default_split(manifest: &Manifest) -> Result<String> {
    let train = manifest.splits.iter().find(|s| *s == "train");
    train.or(manifest.splits.first()).cloned().ok_or_else(|| Error::input("the version has no split").hint("was the manifest edited?"))
}

/// One thread that talks to an object store; decoding stays on the workers.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("feedline-feed-io").enable_all().build()?)
}
