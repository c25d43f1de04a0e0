//! What a run is doing, for whoever draws it: a label and four counters that any thread may raise.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The state of a run's current phase.
#[derive(Debug, Default)]
pub struct Progress {
    phase: Mutex<String>,
    phases: AtomicU64,
    rows: AtomicU64,
    rows_total: AtomicU64,
    bytes: AtomicU64,
    bytes_total: AtomicU64,
}

/// A reading of [`Progress`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What is being done.
    pub phase: String,
    /// How many phases have begun.
    pub phases: u64,
    /// Rows done in this phase.
    pub rows: u64,
    /// Rows of this phase.
    pub rows_total: u64,
    /// Bytes done in this phase.
    pub bytes: u64,
    /// Bytes of this phase.
    pub bytes_total: u64,
}

impl Progress {
    /// Begins a phase.
    pub fn begin(&self, label: &str, rows_total: u64, bytes_total: u64) {
        let mut phase = self.phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        label.clone_into(&mut phase);
        self.phases.fetch_add(1, Ordering::Relaxed);
        self.rows.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        self.rows_total.store(rows_total, Ordering::Relaxed);
        self.bytes_total.store(bytes_total, Ordering::Relaxed);
    }

    /// Counts what was done.
    pub fn add(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Reads all of it.
    pub fn snapshot(&self) -> Snapshot {
        let phase = self.phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        Snapshot {
            phase,
            phases: get(&self.phases),
            rows: get(&self.rows),
            rows_total: get(&self.rows_total),
            bytes: get(&self.bytes),
            bytes_total: get(&self.bytes_total),
        }
    }
}
