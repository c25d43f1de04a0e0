//! How far a run has come: written by engines, read by whoever shows it.
//!
//! Engines call [`Progress::begin`] once a phase, [`Progress::reading`] once a reading of rows and [`Progress::add`] once a batch; adding is two
//! atomic additions, without a lock. A phase may read its rows several times: each reading counts, in what is done and in the total.
//! Nothing here reaches an output: progress is beside the data, so clocks are allowed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The progress of a run, phase by phase. Share it in an `Arc`.
#[derive(Debug, Default)]
pub struct Progress {
    rows: AtomicU64,
    rows_total: AtomicU64,
    rows_begun: AtomicU64,
    bytes: AtomicU64,
    bytes_total: AtomicU64,
    phases: Mutex<Phases>,
}

#[derive(Debug, Default)]
struct Phases {
    now: Option<(String, Instant)>,
    done: Vec<Phase>,
}

/// A phase, now or finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// What is being done, for example `decide dedup`.
    pub label: String,
    /// Rows done; a row that is read twice counts twice.
    pub rows: u64,
    /// Rows in all, counted the same; 0 where that is not known.
    pub rows_total: u64,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes in all; 0 where that is not known.
    pub bytes_total: u64,
    /// How long it has taken.
    pub elapsed: Duration,
}

impl Phase {
    /// Rows a second.
    pub fn rows_per_second(&self) -> f64 {
        per_second(self.rows, self.elapsed)
    }

    /// Bytes a second.
    pub fn bytes_per_second(&self) -> f64 {
        per_second(self.bytes, self.elapsed)
    }

    /// The part that is done, from 0 to 1; `None` where no total is known. Bytes say it better than rows, which may be narrow or wide.
    pub fn fraction(&self) -> Option<f64> {
        let of = |done: u64, total: u64| (total > 0).then(|| (done as f64 / total as f64).min(1.0));
        of(self.bytes, self.bytes_total).or_else(|| of(self.rows, self.rows_total))
    }

    /// The time left at this speed; `None` where it cannot be told yet.
    pub fn left(&self) -> Option<Duration> {
        let fraction = self.fraction().filter(|f| *f > 0.0)?;
        Duration::try_from_secs_f64(self.elapsed.as_secs_f64() * (1.0 - fraction) / fraction).ok()
    }
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

impl Progress {
    /// Begins a phase, which ends the one before. Totals are what is expected, over all readings; 0 where they are not known.
    pub fn begin(&self, label: impl Into<String>, rows_total: u64, bytes_total: u64) {
        let mut phases = self.lock();
        self.close(&mut phases);
        self.rows_total.store(rows_total, Relaxed);
        self.bytes_total.store(bytes_total, Relaxed);
        phases.now = Some((label.into(), Instant::now()));
    }

    /// A reading of so many rows begins. Where all readings together exceed what was expected, the total grows with them.
    pub fn reading(&self, rows: u64) {
        self.rows_begun.fetch_add(rows, Relaxed);
    }

    /// Adds rows and bytes that are done in this phase.
    pub fn add(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Ends the phase, if one is under way.
    pub fn end(&self) {
        let mut phases = self.lock();
        self.close(&mut phases);
    }

    /// The phase under way.
    pub fn now(&self) -> Option<Phase> {
        let phases = self.lock();
        let (label, started) = phases.now.as_ref()?;
        Some(self.phase(label.clone(), *started))
    }

    /// The finished phases from number `from` on, oldest first.
    pub fn done(&self, from: usize) -> Vec<Phase> {
        self.lock().done.get(from..).unwrap_or_default().to_vec()
    }

    /// Ends the phase with one line in the log.
    fn close(&self, phases: &mut Phases) {
        let Some((label, started)) = phases.now.take() else { return };
        let mut phase = self.phase(label, started);
        // What was only expected did not come.
        if let begun @ 1.. = self.rows_begun.swap(0, Relaxed) {
            phase.rows_total = begun;
        }
        self.rows.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
        let seconds = (phase.elapsed.as_secs_f64() * 1000.0).round() / 1000.0;
        tracing::info!(phase = phase.label, rows = phase.rows, bytes = phase.bytes, seconds, "phase done");
        phases.done.push(phase);
    }

    fn phase(&self, label: String, started: Instant) -> Phase {
        Phase {
            label,
            rows: self.rows.load(Relaxed),
            rows_total: self.rows_total.load(Relaxed).max(self.rows_begun.load(Relaxed)),
            bytes: self.bytes.load(Relaxed),
            bytes_total: self.bytes_total.load(Relaxed),
            elapsed: started.elapsed(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Phases> {
        // A panic elsewhere leaves at worst a stale label behind.
        self.phases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other() {
        let progress = Progress::default();
        progress.add(5, 5);
        assert_eq!(progress.now(), None);
        progress.begin("decide", 100, 0);
        progress.add(25, 1000);
        progress.add(25, 1000);
        let now = progress.now().unwrap();
        assert_eq!((now.label.as_str(), now.rows, now.bytes, now.fraction()), ("decide", 55, 2005, Some(0.55)));
        progress.begin("deliver", 0, 4000);
        progress.add(1, 1000);
        assert_eq!(progress.now().unwrap().fraction(), Some(0.25));
        progress.end();
        progress.end();
        let done = progress.done(0);
        assert_eq!(done.iter().map(|p| (p.label.as_str(), p.rows)).collect::<Vec<_>>(), [("decide", 55), ("deliver", 1)]);
        assert_eq!(progress.done(1).len(), 1);
        assert_eq!(progress.done(9), []);
        assert_eq!(progress.now(), None);
    }

    #[test]
    fn the_total_counts_every_reading() {
        let progress = Progress::default();
        progress.begin("decide", 100, 0);
        progress.reading(100);
        progress.add(100, 0);
        assert_eq!(progress.now().unwrap().fraction(), Some(1.0));
        progress.reading(100);
        progress.add(50, 0);
        let now = progress.now().unwrap();
        assert_eq!((now.rows, now.rows_total, now.fraction()), (150, 200, Some(0.75)));
        // One reading fewer than expected: nothing of it is left in the total, or in the next phase.
        progress.begin("learn", 300, 0);
        progress.reading(100);
        progress.add(100, 0);
        assert_eq!(progress.now().unwrap().rows_total, 300);
        progress.begin("deliver", 100, 0);
        progress.add(100, 0);
        progress.end();
        let totals: Vec<_> = progress.done(0).into_iter().map(|p| (p.rows, p.rows_total)).collect();
        assert_eq!(totals, [(150, 200), (100, 100), (100, 100)]);
    }

    #[test]
    fn time_left_follows_from_what_is_done() {
        let phase =
            |rows, rows_total| Phase { label: String::new(), rows, rows_total, bytes: 0, bytes_total: 0, elapsed: Duration::from_secs(10) };
        assert_eq!(phase(25, 100).left(), Some(Duration::from_secs(30)));
        assert_eq!((phase(0, 100).left(), phase(5, 0).left()), (None, None));
        assert_eq!(phase(200, 100).left(), Some(Duration::ZERO));
        assert_eq!(phase(25, 100).rows_per_second(), 2.5);
    }
}
