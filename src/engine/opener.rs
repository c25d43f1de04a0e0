//! Units opened in order, some before they are needed: where a store answers late, verdicts and first row groups of the next units are under way
//! while one is decoded. On a disk each unit is opened when its turn comes.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::rows::{Live, open_at};
use super::verdict::UnitState;
use crate::error::Result;
use crate::plan::prefix::Prefix;
use crate::source::{Unit, UnitReader};
use crate::spec::stores::REQUESTS;

/// Units under way at most, for each reading thread: small shards keep a store as busy as it may be.
const UNITS_AHEAD: usize = REQUESTS;
/// Their bytes as stored at most, beside one unit in any case.
const BYTES_AHEAD: u64 = 32 << 20;

/// A unit that is ready to be read.
pub struct Opened {
    /// The unit.
    pub unit: Unit,
    /// What is known of its rows.
    pub state: UnitState,
    /// Its rows; `None` where none is left and nobody wants to see them go by.
    pub reader: Option<UnitReader>,
}

/// Opens units.
pub struct Opener {
    live: Live,
    prefix: Arc<Prefix>,
    units: VecDeque<u32>,
    skip_empty: bool,
    coming: VecDeque<Coming>,
}

struct Coming {
    bytes: u64,
    task: JoinHandle<Result<Opened>>,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Opener {
    /// For these units, with the columns that the prefix needs. With `skip_empty`, units of which no row is left are not read.
    pub fn new(live: Live, prefix: Arc<Prefix>, units: Vec<u32>, skip_empty: bool) -> Self {
        Self { live, prefix, units: units.into(), skip_empty, coming: VecDeque::new() }
    }

    /// The next unit.
    pub async fn next(&mut self) -> Result<Option<Opened>> {
        self.top_up();
        match self.coming.pop_front() {
            Some(mut next) => {
                let opened = (&mut next.task).await??;
                self.top_up();
                Ok(Some(opened))
            }
            None => match self.units.pop_front() {
                Some(id) => open(self.live.clone(), self.prefix.clone(), id, self.skip_empty).await.map(Some),
                None => Ok(None),
            },
        }
    }

    fn top_up(&mut self) {
        while let Some(id) = self.units.front().copied() {
            let unit = &self.live.units[id as usize];
            let full = self.coming.len() >= UNITS_AHEAD || self.coming.iter().map(|c| c.bytes).sum::<u64>() >= BYTES_AHEAD;
            if unit.shard.location.local.is_some() || full {
                return;
            }
            let task = tokio::spawn(open(self.live.clone(), self.prefix.clone(), id, self.skip_empty));
            self.coming.push_back(Coming { bytes: unit.bytes(), task });
            self.units.pop_front();
        }
    }
}

async fn open(live: Live, prefix: Arc<Prefix>, id: u32, skip_empty: bool) -> Result<Opened> {
    let unit = live.units[id as usize].clone();
    let state = live.state(id).await?;
    let wanted = !skip_empty || state.alive.count_set_bits() > 0;
    let reader = wanted.then(|| open_at(&live, &unit, &prefix)).transpose()?;
    Ok(Opened { unit, state, reader })
}
