//! Row accounting of a segment, out of its verdicts: who rejected how many and why, and how many rows each unit has left.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use indexmap::IndexMap;

use super::rows::Live;
use crate::dataset::manifest::Rows;
use crate::error::Result;
use crate::plan::Segment;
use crate::spec::stores::REQUESTS;
use crate::stages::step::{Decide, Gives, Step};

/// The accounts of one segment.
#[derive(Debug, Default)]
pub struct Accounts {
    left: BTreeMap<u32, u64>,
    /// Rejected rows by step and reason's code.
    pub rejected: BTreeMap<(u32, u32), u64>,
    /// Copies that were added, by step.
    pub copied: BTreeMap<u32, u64>,
}

impl Accounts {
    /// Reads the verdicts of all units.
    pub async fn of(live: &Live) -> Result<Self> {
        let mut accounts = Self::default();
        let ids: Vec<u32> = live.units.iter().map(|u| u.id).collect();
        let mut states = stream::iter(ids).map(|id| async move { live.state(id).await.map(|s| (id, s)) }).buffered(REQUESTS);
        let copying = live.segment.decisions().find(|(_, s)| matches!(&s.step, Step::Decide(Decide { gives: Gives::Copies, .. })));
        while let Some((id, state)) = states.try_next().await? {
            for (step, code, rows) in &state.rejects {
                *accounts.rejected.entry((*step, *code)).or_default() += rows.len();
            }
            let more: u64 = state.copies.iter().filter(|(r, _)| state.alive.value(**r as usize)).map(|(_, n)| u64::from(*n) - 1).sum();
            if let (Some((step, _)), true) = (&copying, more > 0) {
                *accounts.copied.entry(*step as u32).or_default() += more;
            }
            accounts.left.insert(id, state.alive.count_set_bits() as u64 + more);
        }
        Ok(accounts)
    }

    /// Rows that a unit has left, copies counted.
    pub fn left(&self, unit: u32) -> u64 {
        self.left.get(&unit).copied().unwrap_or(0)
    }

    /// Rows that all units have left.
    pub fn total(&self) -> u64 {
        self.left.values().sum()
    }

    /// Adds this segment's entries to the manifest's.
    pub fn enter(&self, live: &Live, rows: &mut Rows) {
        for unit in live.units.iter().filter(|u| u.enters > 0) {
            let label = &live.segment.steps[unit.enters - 1].label;
            *rows.added.entry(label.clone()).or_default() += u64::from(unit.rows);
        }
        for (step, n) in &self.copied {
            *rows.added.entry(live.segment.steps[*step as usize].label.clone()).or_default() += n;
        }
        for ((step, code), n) in &self.rejected {
            let by_reason: &mut IndexMap<String, u64> = rows.rejected.entry(live.segment.steps[*step as usize].label.clone()).or_default();
            *by_reason.entry(reason(&live.segment, *step, *code).to_owned()).or_default() += n;
        }
    }
}

/// A reason's words.
pub fn reason(segment: &Segment, step: u32, code: u32) -> &str {
    match &segment.steps[step as usize].step {
        Step::Decide(Decide { gives: Gives::Rejects(reasons), .. }) => reasons.get(code as usize).map_or("rejected", String::as_str),
        Step::Decide(Decide { gives: Gives::Survivors(reason), .. }) => reason,
        _ => "rejected",
    }
}
