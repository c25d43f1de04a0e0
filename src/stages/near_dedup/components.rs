//! Rows as dense numbers, and the components that links make of them.

use std::sync::Arc;

use crate::error::{Error, Kind, Result};

/// Maps [`ROW`](crate::stages::step::ROW) values (`unit << 32 | row in unit`) to 0, 1, 2 … in the same order, and back.
#[derive(Debug, Clone)]
pub struct DenseRows {
    /// Rows before each unit; one more entry than there are units.
    before: Arc<[u64]>,
}

impl DenseRows {
    /// From the number of rows in each unit. At most 2^32 − 1 rows in all: dense numbers are `u32`.
    pub fn new(unit_rows: &[u32]) -> Result<Self> {
        let mut before = Vec::with_capacity(unit_rows.len() + 1);
        let mut sum = 0u64;
        before.push(0);
        before.extend(unit_rows.iter().map(|rows| {
            sum += u64::from(*rows);
            sum
        }));
        if sum >= u64::from(u32::MAX) {
            return Err(Error::new(Kind::Resources, format!("near_dedup looks at 4,294,967,294 rows at most, here are {sum}"))
                .hint("filter or sample first, or run one pipeline for each part of the data"));
        }
        Ok(Self { before: before.into() })
    }

    /// Rows in all.
    pub fn len(&self) -> usize {
        self.before.last().map_or(0, |n| *n as usize)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The dense number of a row. A row beyond its unit's end is a fault of the planner.
    pub fn dense(&self, row: u64) -> Result<u32> {
        let (unit, at) = ((row >> 32) as usize, row & u64::from(u32::MAX));
        match (self.before.get(unit), self.before.get(unit + 1)) {
            (Some(start), Some(end)) if start + at < *end => Ok((start + at) as u32),
            _ => Err(Error::internal(format!("row {at} of unit {unit} is beyond the rows that were planned"))),
        }
    }

    /// The row of a dense number.
    pub fn row(&self, dense: u32) -> u64 {
        let dense = u64::from(dense);
        let unit = self.before.partition_point(|start| *start <= dense).saturating_sub(1);
        (unit as u64) << 32 | (dense - self.before[unit])
    }
}

/// Components over 0 … n−1: a forest in one array, in which the root of a tree is its smallest number. Four bytes a row.
#[derive(Debug, Clone)]
pub struct Components(Vec<u32>);

impl Components {
    /// Each number alone.
    pub fn new(n: usize) -> Self {
        Self((0..n as u32).collect())
    }

    /// The smallest number in `x`'s component. Paths are halved on the way (Tarjan and van Leeuwen 1984).
    pub fn find(&mut self, mut x: u32) -> u32 {
        loop {
            let up = self.0[x as usize];
            if up == x {
                return x;
            }
            let above = self.0[up as usize];
            self.0[x as usize] = above;
            x = above;
        }
    }

    /// Joins two components; the result does not depend on the order of links, only which numbers they connect.
    pub fn link(&mut self, a: u32, b: u32) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b) as usize] = a.min(b);
    }

    /// The root of every number, and thus a flat array: a number that is its own root is the first of its component.
    pub fn roots(mut self) -> Vec<u32> {
        // Parents are smaller than their children, so one pass in order is enough.
        for x in 0..self.0.len() {
            self.0[x] = self.0[self.0[x] as usize];
        }
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_map_there_and_back() {
        let rows = DenseRows::new(&[2, 0, 3]).unwrap();
        let all = [0, 1, 2 << 32, 2 << 32 | 1, 2 << 32 | 2];
        for (dense, row) in all.into_iter().enumerate() {
            assert_eq!((rows.dense(row).unwrap(), rows.row(dense as u32)), (dense as u32, row));
        }
        for bad in [2, 1 << 32, 2 << 32 | 3, 3 << 32] {
            assert!(rows.dense(bad).is_err());
        }
        assert_eq!(DenseRows::new(&[u32::MAX, 1]).unwrap_err().kind(), Kind::Resources);
    }

    proptest! {
        /// Against the definition: repeat "take the smaller name of both ends" until nothing changes.
        #[test]
        fn components_are_those_of_the_graph(links in prop::collection::vec((0u32..40, 0u32..40), 0..60), turn in 0usize..60) {
            let mut slow: Vec<u32> = (0..40).collect();
            for _ in 0..40 {
                for (a, b) in &links {
                    let least = slow[*a as usize].min(slow[*b as usize]);
                    slow[*a as usize] = least;
                    slow[*b as usize] = least;
                }
            }
            let mut turned = links.clone();
            turned.rotate_left(turn.min(links.len()));
            for links in [links, turned] {
                let mut fast = Components::new(40);
                links.iter().for_each(|(a, b)| fast.link(*a, *b));
                prop_assert_eq!(fast.roots(), slow.clone());
            }
        }
    }
}
