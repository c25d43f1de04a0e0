//! Which rows the next batch holds, and which windows it needs. Every rank plans alike and takes its share.
//!
//! A **step** is what all ranks take together: `world_size × batch_rows` consecutive rows, of which rank *r* takes
//! the *r*-th part. The last step of an epoch has fewer; it is divided evenly. A state names the end of a step, so that any number of ranks
//! can go on from it.

use std::ops::Range;

use super::order::Order;
use super::tokens::{Cursor, Packer, Piece};

/// This rank's share of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub rank: u64,
    pub world: u64,
    pub batch_rows: u64,
    pub drop_last: bool,
}

impl Share {
    /// Rows of a full step.
    pub fn step(&self) -> u64 {
        self.world.saturating_mul(self.batch_rows)
    }

    /// This rank's part of a step of so many rows; `None` where the epoch has ended for it.
    pub fn of(&self, rows: u64) -> Option<Range<u64>> {
        if rows == 0 || (self.drop_last && rows < self.step()) {
            return None;
        }
        // 128 bits: rows × rank may pass 2⁶⁴ for absurd batch sizes, and a wrong share would be silent.
        let part = |r: u64| (u128::from(rows) * u128::from(r) / u128::from(self.world)) as u64;
        let mine = part(self.rank)..part(self.rank + 1);
        (!mine.is_empty()).then_some(mine)
    }
}

/// What a batch holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Extent {
    /// The rows at these positions.
    Rows(Range<u64>),
    /// Packed rows `rows`, counted in the step, made of these pieces.
    Packed { pieces: Vec<Piece>, rows: Range<u64> },
}

/// One batch of this rank.
#[derive(Debug, Clone)]
pub(super) struct BatchPlan {
    pub extent: Extent,
    /// The windows it needs.
    pub windows: Range<usize>,
    /// Where the feed stands once the batch is received.
    pub after: Cursor,
}

/// Makes one plan after another.
#[derive(Debug)]
pub(super) enum Planner {
    Rows { next: u64, share: Share },
    Packed { packer: Packer, share: Share, ended: bool },
}

/// What a planner says.
pub(super) enum Planned {
    /// The next batch.
    Ready(BatchPlan),
    /// It cannot say before these windows are decoded: packing needs to know how long rows are.
    Needs(Range<usize>),
    /// The epoch has ended for this rank.
    End,
}

impl Planner {
    pub fn rows(from: Cursor, share: Share) -> Self {
        Self::Rows { next: from.position, share }
    }

    pub fn packed(from: Cursor, share: Share, length: u32) -> Self {
        Self::Packed { packer: Packer::new(length, share.step(), from), share, ended: false }
    }

    /// Plans the next batch. `len_of` gives the tokens of the row at a position of a window, where that window is decoded.
    ///
    /// A plan of rows stays the next one until [`Planner::advance`]; a packed one is given once.
    pub fn next(&mut self, order: &Order, len_of: impl Fn(usize, u64) -> Option<u64>) -> Planned {
        match self {
            Self::Rows { next, share } => rows_plan(order, *next, share).map_or(Planned::End, Planned::Ready),
            Self::Packed { ended: true, .. } => Planned::End,
            Self::Packed { packer, share, ended } => {
                while packer.cursor().position < order.rows() {
                    let position = packer.cursor().position;
                    let window = order.window_of(position);
                    let Some(len) = len_of(window, position) else {
                        return Planned::Needs(order.window_of(packer.step_start())..window + 1);
                    };
                    if packer.add(len) {
                        return packed_plan(order, packer, share).map_or(Planned::End, Planned::Ready);
                    }
                }
                *ended = true;
                packed_plan(order, packer, share).map_or(Planned::End, Planned::Ready)
            }
        }
    }

    /// The batch planned last is being made: the next one is due.
    pub fn advance(&mut self, after: Cursor) {
        if let Self::Rows { next, .. } = self {
            *next = after.position;
        }
    }

    /// The first window that is still needed; all windows where none is.
    pub fn front(&self, order: &Order) -> usize {
        let (start, touches_all) = match self {
            Self::Rows { next, .. } => (*next, false),
            Self::Packed { packer, ended, .. } => (if *ended { order.rows() } else { packer.step_start() }, true),
        };
        if start >= order.rows() {
            return order.windows();
        }
        let first = order.window_of(start);
        if touches_all { first } else { (first..order.windows()).find(|&w| self.touches(order, w)).unwrap_or(order.windows()) }
    }

    /// Whether a later batch of this rank needs the window.
    pub fn touches(&self, order: &Order, window: usize) -> bool {
        let Self::Rows { next, share } = self else { return true };
        let positions = order.positions(window);
        let start = positions.start.max(*next);
        if start >= positions.end {
            return false;
        }
        let step = share.step();
        let first = next + (start - next) / step * step;
        [first, first.saturating_add(step)].iter().any(|&s| {
            let rows = order.rows().saturating_sub(s).min(step);
            share.of(rows).is_some_and(|mine| s + mine.start < positions.end && s + mine.end > start)
        })
    }
}

fn rows_plan(order: &Order, next: u64, share: &Share) -> Option<BatchPlan> {
    let rows = order.rows().saturating_sub(next).min(share.step());
    let mine = share.of(rows)?;
    let extent = next + mine.start..next + mine.end;
    let windows = order.window_of(extent.start)..order.window_of(extent.end - 1) + 1;
    Some(BatchPlan { extent: Extent::Rows(extent), windows, after: Cursor { position: next + rows, taken: 0 } })
}

fn packed_plan(order: &Order, packer: &mut Packer, share: &Share) -> Option<BatchPlan> {
    let (pieces, rows) = packer.finish();
    let mine = share.of(rows)?;
    let from = pieces.partition_point(|p| p.row < mine.start);
    let to = pieces.partition_point(|p| p.row < mine.end);
    let pieces = pieces[from..to].to_vec();
    let windows = match (pieces.first(), pieces.last()) {
        (Some(a), Some(b)) => order.window_of(a.position)..order.window_of(b.position) + 1,
        _ => return None,
    };
    Some(BatchPlan { extent: Extent::Packed { pieces, rows: mine }, windows, after: packer.cursor() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::order::{Key, RowGroup};
    use super::*;
    use crate::spec::pipeline::Shuffle;

    fn order(groups: u32, rows: u32, window: u64) -> Order {
        let groups = (0..groups).map(|g| RowGroup { shard: g, group: 0, rows }).collect();
        Order::new(groups, Shuffle::Global, window, Key { version: "v", split: "s", seed: 1, epoch: 0 }).unwrap()
    }

    fn plans(order: &Order, from: u64, share: Share) -> Vec<BatchPlan> {
        let mut planner = Planner::rows(Cursor { position: from, taken: 0 }, share);
        let mut out = Vec::new();
        while let Planned::Ready(plan) = planner.next(order, |_, _| None) {
            planner.advance(plan.after);
            out.push(plan);
        }
        out
    }

    proptest! {
        #[test]
        fn ranks_take_every_position_once(world in 1u64..6, batch_rows in 1u64..40, from in 0u64..100, drop_last: bool) {
            let order = order(7, 20, 45);
            let share = |rank| Share { rank, world, batch_rows, drop_last };
            let mut taken: Vec<u64> = Vec::new();
            for rank in 0..world {
                for plan in plans(&order, from, share(rank)) {
                    let Extent::Rows(r) = plan.extent else { unreachable!() };
                    prop_assert!(r.end - r.start <= batch_rows);
                    taken.extend(r);
                }
            }
            taken.sort_unstable();
            let full = (140 - from) / (world * batch_rows) * (world * batch_rows);
            let end = if drop_last { from + full } else { 140 };
            prop_assert_eq!(taken, (from..end).collect::<Vec<_>>());
        }

        #[test]
        fn touches_says_what_plans_need(world in 1u64..9, batch_rows in 1u64..60, from in 0u64..140, drop_last: bool, window in 1u64..90) {
            let order = order(7, 20, window);
            for rank in 0..world {
                let share = Share { rank, world, batch_rows, drop_last };
                let mut needed = vec![false; order.windows()];
                plans(&order, from, share).iter().for_each(|p| needed[p.windows.clone()].fill(true));
                let planner = Planner::rows(Cursor { position: from, taken: 0 }, share);
                let said: Vec<bool> = (0..order.windows()).map(|w| planner.touches(&order, w)).collect();
                prop_assert_eq!(&said, &needed);
                prop_assert_eq!(planner.front(&order), needed.iter().position(|&n| n).unwrap_or(order.windows()));
            }
        }
    }

    #[test]
    fn equal_batches_for_all_ranks_where_the_last_step_is_left_out() {
        let order = order(7, 20, 45);
        let counts: Vec<usize> =
            (0..3).map(|rank| plans(&order, 0, Share { rank, world: 3, batch_rows: 9, drop_last: true }).len()).collect();
        assert_eq!(counts, [5, 5, 5]);
    }
}
