//! The workers: one lock, two kinds of work, batches in exact order.
//!
//! ```text
//!            ┌ decode (window, row group) ─▶ windows ┐
//!  workers ──┤                                        ├─▶ done[0, 1, 2 …] ─▶ consumer
//!            └ fill (next batch) ◀───────────────────┘
//! ```
//!
//! A worker takes the next batch where its windows are decoded and the ring has room, else the next row group that is needed, else one of the
//! window after: reading runs ahead by one window, never more. What a batch holds was planned before any thread touched it, so threads
//! change when it is made and nothing else.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::collate::{fill_numbers, take_columns};
use super::columns::Columns;
use super::decode::{Decoded, take_apart};
use super::order::{Order, RowRef};
use super::plan::{BatchPlan, Extent, Planned, Planner};
use super::ring::{Batch, Pool};
use super::shards::Shards;
use super::stats::Counters;
use super::tokens::{self, Cursor};
use crate::error::{Error, Kind, Result};

/// Everything that workers share and that never changes.
pub(super) struct Context {
    pub order: Order,
    pub shards: Shards,
    pub columns: Columns,
    pub prefetch: u64,
    pub memory: Option<u64>,
    pub pool: Arc<Pool>,
    pub counters: Counters,
}

/// What workers and the consumer share.
pub(super) struct Shared {
    pub cx: Context,
    board: Mutex<Board>,
    /// Workers wait here for work.
    work: Condvar,
    /// The consumer waits here for a batch.
    ready: Condvar,
}

/// A window of decoded row groups.
struct Window {
    groups: Vec<Decoded>,
    bytes: u64,
}

enum WindowState {
    /// Row groups claimed so far, how many are still missing, and those that are there.
    Loading {
        claimed: usize,
        missing: usize,
        groups: Vec<Option<Decoded>>,
    },
    Ready(Arc<Window>),
    Failed(Option<Error>),
}

struct Board {
    stop: bool,
    planner: Planner,
    /// A plan that waits for its windows.
    planned: Option<BatchPlan>,
    /// The number of the next batch to be made, and of the next to be handed out.
    next: u64,
    taken: u64,
    /// Batches in all, once known.
    end: Option<u64>,
    windows: BTreeMap<usize, WindowState>,
    done: BTreeMap<u64, Result<(Batch, Cursor)>>,
    decoded_rows: u64,
    decoded_bytes: u64,
}

enum Job {
    Decode { window: usize, group: usize },
    Fill { number: u64, plan: BatchPlan, windows: Vec<Arc<Window>> },
}

impl Shared {
    pub fn new(cx: Context, planner: Planner) -> Self {
        let board = Board {
            stop: false,
            planner,
            planned: None,
            next: 0,
            taken: 0,
            end: None,
            windows: BTreeMap::new(),
            done: BTreeMap::new(),
            decoded_rows: 0,
            decoded_bytes: 0,
        };
        Self { cx, board: Mutex::new(board), work: Condvar::new(), ready: Condvar::new() }
    }

    /// The next batch with where the feed then stands, or `None` at the end of the epoch. Waits.
    pub fn take(&self) -> Option<Result<(Batch, Cursor)>> {
        let mut board = self.lock();
        loop {
            let number = board.taken;
            if let Some(done) = board.done.remove(&number) {
                board.taken += 1;
                self.work.notify_all();
                return Some(done);
            }
            if board.end == Some(number) {
                return None;
            }
            board = self.ready.wait(board).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Asks all workers to end after what they are doing.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.work.notify_all();
    }

    /// A worker's life.
    pub fn run(&self) {
        let mut scratch = Vec::new();
        let worked = catch_unwind(AssertUnwindSafe(|| {
            while let Some(job) = self.wait_for_job() {
                self.work_on(job, &mut scratch);
            }
        }));
        if worked.is_err() {
            // A fault of our own outside of a job: the consumer must hear of it instead of waiting for ever.
            let mut board = self.lock();
            let number = board.taken;
            board.fail(number, Error::internal("a worker of the feed panicked"));
            drop(board);
            self.ready.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_job(&self) -> Option<Job> {
        let mut board = self.lock();
        loop {
            if board.stop {
                return None;
            }
            let had = (board.end, board.done.len());
            if let Some(job) = board.claim(&self.cx) {
                // There may be more of it for others.
                self.work.notify_one();
                return Some(job);
            }
            if had != (board.end, board.done.len()) {
                self.ready.notify_all();
            }
            board = self.work.wait(board).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work_on(&self, job: Job, scratch: &mut Vec<RowRef>) {
        match job {
            Job::Decode { window, group } => {
                let decoded =
                    guarded(|| self.cx.decode(window, group)).map_err(|e| e.at(self.cx.shards.place(&self.cx.order.groups(window)[group])));
                self.lock().decoded(&self.cx, window, group, decoded);
            }
            Job::Fill { number, plan, windows } => {
                let after = plan.after;
                let filled = guarded(|| self.cx.fill(&plan, &windows, scratch)).map(|batch| (batch, after));
                // The windows are let go before the batch is handed out, so that memory does not depend on who is faster.
                drop(windows);
                let mut board = self.lock();
                match filled {
                    Ok(batch) => drop(board.done.insert(number, Ok(batch))),
                    Err(e) => board.fail(number, e),
                }
            }
        }
        self.ready.notify_all();
        self.work.notify_all();
    }
}

/// Runs a job; a panic (of a decoder on corrupt bytes) becomes an error.
fn guarded<T>(job: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Error::internal(format!("the decoder panicked: {}", text.unwrap_or_else(|| "no reason given".to_owned())))
            .hint("is the shard intact? run `feedline verify`"))
    })
}

impl Board {
    /// The epoch ends for the consumer with an error as batch `number`.
    fn fail(&mut self, number: u64, error: Error) {
        // Of several failures the first in order is told, whichever came first in time.
        if self.end.is_none_or(|end| number < end) {
            self.end = Some(number + 1);
            self.done.insert(number, Err(error));
        }
    }

    fn claim(&mut self, cx: &Context) -> Option<Job> {
        let mut needed = 0..0;
        if self.end.is_none() && self.next < self.taken.saturating_add(cx.prefetch) {
            match self.plan(cx) {
                Planned::Ready(plan) => match self.windows_of(&plan.windows) {
                    Ok(Some(windows)) if self.fits(cx, &windows) => return Some(self.fill(cx, plan, windows)),
                    Ok(Some(windows)) => self.fail(self.next, too_large(cx, &windows)),
                    Ok(None) => {
                        needed = plan.windows.clone();
                        self.planned = Some(plan);
                    }
                    Err(e) => self.fail(self.next, e),
                },
                Planned::Needs(windows) => match self.failure_in(&windows) {
                    Some(e) => self.fail(self.next, e),
                    None => needed = windows,
                },
                Planned::End => self.end = Some(self.next),
            }
        }
        if self.end.is_some() { None } else { self.claim_decode(cx, needed) }
    }

    fn plan(&mut self, cx: &Context) -> Planned {
        if let Some(plan) = self.planned.take() {
            return Planned::Ready(plan);
        }
        let windows = &self.windows;
        self.planner.next(&cx.order, |window, position| match windows.get(&window) {
            Some(WindowState::Ready(w)) => {
                let (group, row) = cx.order.locate(window, position);
                w.groups[group as usize].tokens.as_ref().map(|t| t.row(row).len() as u64)
            }
            _ => None,
        })
    }

    fn fill(&mut self, cx: &Context, plan: BatchPlan, windows: Vec<Arc<Window>>) -> Job {
        self.planner.advance(plan.after);
        let number = self.next;
        self.next += 1;
        let front = self.front(cx);
        self.windows.retain(|&w, _| w >= front);
        self.count_held(cx);
        Job::Fill { number, plan, windows }
    }

    fn front(&self, cx: &Context) -> usize {
        self.planned.as_ref().map_or_else(|| self.planner.front(&cx.order), |p| p.windows.start)
    }

    /// The windows of a plan, or `None` where one is not decoded yet, or the error of the first that failed.
    fn windows_of(&mut self, range: &Range<usize>) -> Result<Option<Vec<Arc<Window>>>> {
        if let Some(e) = self.failure_in(range) {
            return Err(e);
        }
        let ready = |w: usize| match self.windows.get(&w) {
            Some(WindowState::Ready(window)) => Some(window.clone()),
            _ => None,
        };
        Ok(range.clone().map(ready).collect())
    }

    fn failure_in(&mut self, range: &Range<usize>) -> Option<Error> {
        self.windows.range_mut(range.clone()).find_map(|(_, w)| match w {
            WindowState::Failed(e) => Some(e.take().unwrap_or_else(|| Error::internal("a window failed twice"))),
            _ => None,
        })
    }

    /// Whether the windows of one batch are within the cap on decoded rows.
    fn fits(&self, cx: &Context, windows: &[Arc<Window>]) -> bool {
        cx.memory.is_none_or(|cap| windows.iter().map(|w| w.bytes).sum::<u64>() <= cap)
    }

    fn claim_decode(&mut self, cx: &Context, needed: Range<usize>) -> Option<Job> {
        let order = &cx.order;
        let front = self.front(cx);
        let end = needed.end.max(front + 1).min(order.windows());
        for window in front..end {
            // A plan of rows may skip windows that are other ranks' alone.
            if (needed.contains(&window) || self.planner.touches(order, window))
                && let Some(group) = self.claim_group(cx, window)
            {
                return Some(Job::Decode { window, group });
            }
        }
        let ahead = (end..order.windows()).find(|&w| self.planner.touches(order, w))?;
        if !self.windows.contains_key(&ahead) && !self.room_for(cx, ahead) {
            return None;
        }
        self.claim_group(cx, ahead).map(|group| Job::Decode { window: ahead, group })
    }

    /// Whether a window more is expected to stay within the cap on decoded rows.
    fn room_for(&self, cx: &Context, window: usize) -> bool {
        let Some(cap) = cx.memory else { return true };
        // Half-loaded windows would be counted too small: let them come in first.
        if self.decoded_rows == 0 || self.windows.values().any(|w| matches!(w, WindowState::Loading { .. })) {
            return false;
        }
        let positions = cx.order.positions(window);
        let expected = u128::from(positions.end - positions.start) * u128::from(self.decoded_bytes) / u128::from(self.decoded_rows);
        u128::from(self.held()) + expected <= u128::from(cap)
    }

    fn claim_group(&mut self, cx: &Context, window: usize) -> Option<usize> {
        let count = cx.order.groups(window).len();
        let state = self.windows.entry(window).or_insert_with(|| WindowState::Loading {
            claimed: 0,
            missing: count,
            groups: std::iter::repeat_with(|| None).take(count).collect(),
        });
        match state {
            WindowState::Loading { claimed, .. } if *claimed < count => {
                *claimed += 1;
                Some(*claimed - 1)
            }
            _ => None,
        }
    }

    fn decoded(&mut self, cx: &Context, window: usize, group: usize, decoded: Result<Decoded>) {
        let Some(state) = self.windows.get_mut(&window) else { return };
        match (state, decoded) {
            (WindowState::Loading { missing, groups, .. }, Ok(decoded)) => {
                self.decoded_rows += u64::from(cx.order.groups(window)[group].rows);
                self.decoded_bytes += decoded.bytes;
                groups[group] = Some(decoded);
                *missing -= 1;
                if *missing == 0 {
                    let groups: Vec<Decoded> = groups.iter_mut().filter_map(Option::take).collect();
                    let bytes = groups.iter().map(|g| g.bytes).sum();
                    self.windows.insert(window, WindowState::Ready(Arc::new(Window { groups, bytes })));
                }
            }
            (state @ WindowState::Loading { .. }, Err(e)) => *state = WindowState::Failed(Some(e)),
            (WindowState::Ready(_) | WindowState::Failed(_), _) => {}
        }
        self.count_held(cx);
    }

    /// Bytes of decoded row groups.
    fn held(&self) -> u64 {
        let bytes = |w: &WindowState| match w {
            WindowState::Loading { groups, .. } => groups.iter().flatten().map(|g| g.bytes).sum(),
            WindowState::Ready(w) => w.bytes,
            WindowState::Failed(_) => 0,
        };
        self.windows.values().map(bytes).sum()
    }

    fn count_held(&self, cx: &Context) {
        cx.counters.held_peak.fetch_max(self.held(), Ordering::Relaxed);
    }
}

fn too_large(cx: &Context, windows: &[Arc<Window>]) -> Error {
    let bytes: u64 = windows.iter().map(|w| w.bytes).sum();
    let cap = cx.memory.unwrap_or(u64::MAX);
    Error::new(Kind::Resources, format!("a batch needs {bytes} bytes of decoded rows, the feed may hold {cap}"))
        .hint("lower `window_rows` (the shuffle mixes fewer rows), write smaller row groups (`sink.row_group_rows`), or raise the memory")
}

impl Context {
    fn decode(&self, window: usize, group: usize) -> Result<Decoded> {
        let loaded = self.shards.load(&self.order.groups(window)[group], &self.columns.names())?;
        let start = Instant::now();
        let decoded = take_apart(&self.columns, self.pool.layout.dtype, &loaded.batch)?;
        Counters::add(&self.counters.reading, loaded.reading);
        Counters::add(&self.counters.decoding, loaded.decoding + start.elapsed());
        self.counters.bytes_read.fetch_add(loaded.bytes_read, Ordering::Relaxed);
        Ok(decoded)
    }

    fn fill(&self, plan: &BatchPlan, windows: &[Arc<Window>], scratch: &mut Vec<RowRef>) -> Result<Batch> {
        let start = Instant::now();
        let mut block = self.pool.take()?;
        let layout = &self.pool.layout;
        let (rows, position, columns) = match &plan.extent {
            Extent::Rows(positions) => {
                let rows = (positions.end - positions.start) as usize;
                let mut sections = layout.sections(block.bytes_mut(), rows);
                let columns = self.fill_rows(positions, plan.windows.start, windows, scratch, &mut sections)?;
                (rows, positions.start, columns)
            }
            Extent::Packed { pieces, rows } => {
                let count = (rows.end - rows.start) as usize;
                let mut sections = layout.sections(block.bytes_mut(), count);
                if let Some(spec) = &self.columns.tokens {
                    let tokens_of = |position: u64| {
                        let window = self.order.window_of(position);
                        let (group, row) = self.order.locate(window, position);
                        let lists = windows[window - plan.windows.start].groups[group as usize].tokens.as_ref()?;
                        Some((lists, row))
                    };
                    tokens::pack(pieces, rows.start, spec.length, spec.pad_id, tokens_of, &mut sections);
                }
                (count, pieces.first().map_or(plan.after.position, |p| p.position), None)
            }
        };
        Counters::add(&self.counters.collating, start.elapsed());
        self.counters.bytes_out.fetch_add(layout.bytes_of(rows) as u64, Ordering::Relaxed);
        Ok(Batch::new(rows, position, columns, block, self.pool.clone()))
    }

    fn fill_rows(
        &self,
        positions: &Range<u64>,
        first_window: usize,
        windows: &[Arc<Window>],
        scratch: &mut Vec<RowRef>,
        out: &mut super::ring::Sections<'_>,
    ) -> Result<Option<arrow::array::RecordBatch>> {
        scratch.clear();
        let (mut groups, mut group_base) = (Vec::new(), 0u32);
        for (i, window) in windows.iter().enumerate() {
            let has = self.order.positions(first_window + i);
            let part = positions.start.max(has.start)..positions.end.min(has.end);
            let at = scratch.len();
            self.order.locate_all(first_window + i, part, scratch);
            fill_numbers(&window.groups, &scratch[at..], at, out);
            if let Some(spec) = &self.columns.tokens {
                for (k, &(group, row)) in scratch[at..].iter().enumerate() {
                    let tokens = window.groups[group as usize].tokens.as_ref().map_or(&[][..], |t| t.row(row));
                    tokens::pad(tokens, spec.length, spec.pad_id, at + k, out);
                }
            }
            groups.extend(window.groups.iter().filter_map(|g| g.others.as_ref()));
            scratch[at..].iter_mut().for_each(|r| r.0 += group_base);
            group_base += window.groups.len() as u32;
        }
        if groups.is_empty() { Ok(None) } else { take_columns(&groups, scratch).map(Some) }
    }
}
