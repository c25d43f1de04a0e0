//! The order of an epoch, by arithmetic.
//!
//! ```text
//!  row groups as written    0  1  2  3  4  5  6  7
//!  permuted by the key      5  2  7  0  6  1  4  3        sort by hash: a list of row groups, never of rows
//!  cut into windows        [5  2  7][0  6  1][4  3]       consecutive row groups, at most `window_rows` rows
//!  permuted in a window     position p ─ Feistel ─▶ (row group, row)
//! ```
//!
//! The row at position *p* of an epoch is a pure function of the version, the split, the seed, the epoch, `window_rows` and *p*. Nothing
//! is drawn in sequence, so any thread can make any batch and resuming is a seek.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Error, Result};
use crate::spec::pipeline::Shuffle;

/// A row group of the split: which shard, which row group in it, how many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowGroup {
    /// Index of the shard among the split's shards.
    pub shard: u32,
    /// Index of the row group in the shard.
    pub group: u32,
    /// Its rows.
    pub rows: u32,
}

/// Where a row lies in a window: an index into the window's row groups, and the row in that row group.
pub type RowRef = (u32, u32);

/// The order of one epoch.
#[derive(Debug)]
pub struct Order {
    groups: Vec<RowGroup>,
    windows: Vec<Window>,
    rows: u64,
}

/// Consecutive row groups of the permuted list, whose rows are shuffled together.
#[derive(Debug)]
struct Window {
    first_position: u64,
    first_group: usize,
    /// Row in the window at which each of its row groups begins, and the window's rows at the end.
    starts: Vec<u32>,
    permutation: Permutation,
}

/// What fixes an order, besides the row groups.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// The manifest's hash.
    pub version: &'a str,
    /// The split's name.
    pub split: &'a str,
    /// The seed.
    pub seed: u64,
    /// The epoch.
    pub epoch: u64,
}

impl Key<'_> {
    fn hash(&self) -> u64 {
        let text = format!("{}\0{}\0{}\0{}", self.version, self.split, self.seed, self.epoch);
        xxh3_64_with_seed(text.as_bytes(), self.seed)
    }
}

impl Order {
    /// The order of an epoch over these row groups. A window has at least one row group and, beyond that, at most `window_rows` rows.
    ///
    /// # Errors
    /// Where a window would have 2³² rows or more.
    pub fn new(mut groups: Vec<RowGroup>, shuffle: Shuffle, window_rows: u64, key: Key<'_>) -> Result<Self> {
        groups.retain(|g| g.rows > 0);
        let key = key.hash();
        // Without a shuffle a window is one row group: the order is the same, the memory smaller.
        let limit = if shuffle == Shuffle::Global { window_rows } else { 1 };
        if shuffle == Shuffle::Global {
            groups.sort_by_cached_key(|g| (mix(key ^ mix(u64::from(g.shard) << 32 | u64::from(g.group))), g.shard, g.group));
        }
        let mut windows: Vec<Window> = Vec::new();
        let (mut rows, mut first) = (0u64, 0usize);
        while first < groups.len() {
            let (mut starts, mut inside, mut next) = (vec![0u32], 0u64, first);
            while next < groups.len() && (next == first || inside + u64::from(groups[next].rows) <= limit) {
                inside += u64::from(groups[next].rows);
                let start = u32::try_from(inside).map_err(|_| {
                    Error::usage(format!("a window of {inside} rows is too large")).hint("lower `window_rows` below 4 billion")
                })?;
                starts.push(start);
                next += 1;
            }
            let permutation = match shuffle {
                Shuffle::Global => Permutation::new(inside as u32, mix(key.wrapping_add(windows.len() as u64 + 1))),
                Shuffle::None => Permutation::identity(inside as u32),
            };
            windows.push(Window { first_position: rows, first_group: first, starts, permutation });
            rows += inside;
            first = next;
        }
        Ok(Self { groups, windows, rows })
    }

    /// Rows in an epoch, over all ranks.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Number of windows.
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    /// The window that holds a position below [`Order::rows`].
    pub fn window_of(&self, position: u64) -> usize {
        self.windows.partition_point(|w| w.first_position <= position).saturating_sub(1)
    }

    /// The positions of a window, as a half-open range.
    pub fn positions(&self, window: usize) -> std::ops::Range<u64> {
        let first = self.windows[window].first_position;
        first..self.windows.get(window + 1).map_or(self.rows, |w| w.first_position)
    }

    /// The row groups of a window; [`RowRef`] counts from the first of them.
    pub fn groups(&self, window: usize) -> &[RowGroup] {
        let w = &self.windows[window];
        &self.groups[w.first_group..w.first_group + w.starts.len() - 1]
    }

    /// Where the row at a position of the window lies.
    pub fn locate(&self, window: usize, position: u64) -> RowRef {
        let w = &self.windows[window];
        w.find(w.permutation.at((position - w.first_position) as u32))
    }

    /// Appends where the rows at consecutive positions of one window lie.
    pub fn locate_all(&self, window: usize, positions: std::ops::Range<u64>, out: &mut Vec<RowRef>) {
        let w = &self.windows[window];
        let local = (positions.start - w.first_position) as u32..(positions.end - w.first_position) as u32;
        out.extend(local.map(|i| w.find(w.permutation.at(i))));
    }
}

impl Window {
    fn find(&self, row: u32) -> RowRef {
        // Windows of a few row groups are the rule: a short scan without a hard-to-predict search.
        let group = if self.starts.len() <= 9 {
            self.starts[1..].iter().map(|&end| usize::from(row >= end)).sum()
        } else {
            self.starts.partition_point(|&s| s <= row) - 1
        };
        (group as u32, row - self.starts[group])
    }
}

/// A keyed permutation of `0..n`: a Feistel network over a grid that is nearly square and hardly larger than `n`, so that a walk back into `0..n`
/// is rare (about one in √n). See Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (2002), for both.
#[derive(Debug, Clone)]
pub struct Permutation {
    n: u32,
    /// The grid: `i` is row `i / columns`, column `i % columns`.
    rows: u32,
    columns: u32,
    keys: Option<[u64; ROUNDS]>,
}

/// Four rounds make a good permutation of good round functions (Luby and Rackoff, 1988).
const ROUNDS: usize = 4;
/// Sides of a few places mix badly in any few rounds, so a small window walks over a grid of this many: as many steps for the whole window.
const SMALLEST_GRID: u32 = 1024;

impl Permutation {
    /// The permutation of `0..n` for a key.
    pub fn new(n: u32, key: u64) -> Self {
        let places = n.max(SMALLEST_GRID);
        let root = places.isqrt();
        let rows = if root * root < places { root + 1 } else { root };
        let mut keys = [0; ROUNDS];
        for (i, k) in keys.iter_mut().enumerate() {
            *k = mix(key.wrapping_add((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        }
        Self { n, rows, columns: places.div_ceil(rows), keys: Some(keys) }
    }

    /// The permutation that leaves everything in its place.
    pub fn identity(n: u32) -> Self {
        Self { n, rows: 0, columns: 0, keys: None }
    }

    /// Where `i` below `n` goes.
    pub fn at(&self, i: u32) -> u32 {
        debug_assert!(i < self.n);
        let Some(keys) = &self.keys else { return i };
        let (mut row, mut column) = (i / self.columns, i % self.columns);
        loop {
            for pair in keys.chunks_exact(2) {
                column = add_below(column, round(row, pair[0], self.columns), self.columns);
                row = add_below(row, round(column, pair[1], self.rows), self.rows);
            }
            let place = u64::from(row) * u64::from(self.columns) + u64::from(column);
            if place < u64::from(self.n) {
                return place as u32;
            }
        }
    }
}

fn add_below(a: u32, b: u32, limit: u32) -> u32 {
    // Both are below `limit`, which is at most 2¹⁶: no overflow.
    let sum = a + b;
    if sum >= limit { sum - limit } else { sum }
}

/// The round function, a number below `limit`: two multiplications, because after one the low bits of `x` still show through, and small windows
/// come out uneven.
fn round(x: u32, key: u64, limit: u32) -> u32 {
    let m = (u64::from(x) ^ key).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let m = (m ^ (m >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (((m >> 32) * u64::from(limit)) >> 32) as u32
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection on 64 bits that spreads every bit.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn groups(rows: &[u32]) -> Vec<RowGroup> {
        rows.iter().enumerate().map(|(i, &rows)| RowGroup { shard: i as u32 / 3, group: i as u32 % 3, rows }).collect()
    }

    fn key(seed: u64, epoch: u64) -> Key<'static> {
        Key { version: "abc", split: "train", seed, epoch }
    }

    /// Every position's row, as its number in the order as written.
    fn sequence(rows: &[u32], shuffle: Shuffle, window_rows: u64, key: Key<'_>) -> Vec<u64> {
        let order = Order::new(groups(rows), shuffle, window_rows, key).unwrap();
        let before = |g: &RowGroup| {
            let i = (g.shard * 3 + g.group) as usize;
            rows[..i].iter().map(|&r| u64::from(r)).sum::<u64>()
        };
        (0..order.rows())
            .map(|p| {
                let w = order.window_of(p);
                assert!(order.positions(w).contains(&p));
                let (g, r) = order.locate(w, p);
                before(&order.groups(w)[g as usize]) + u64::from(r)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn every_row_comes_once(rows in prop::collection::vec(0u32..300, 0..30), window in 1u64..2000, seed: u64, epoch in 0u64..5) {
            let mut seen = sequence(&rows, Shuffle::Global, window, key(seed, epoch));
            seen.sort_unstable();
            let total: u64 = rows.iter().map(|&r| u64::from(r)).sum();
            prop_assert_eq!(seen, (0..total).collect::<Vec<_>>());
        }

        #[test]
        fn a_permutation_is_one(n in 1u32..5000, key: u64) {
            let p = Permutation::new(n, key);
            let mut seen: Vec<u32> = (0..n).map(|i| p.at(i)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }

        #[test]
        fn ranges_are_single_positions_in_a_row(window in 1u64..500, seed: u64, from in 0u64..99, len in 0u64..200) {
            let order = Order::new(groups(&[40, 1, 77, 30, 2, 50]), Shuffle::Global, window, key(seed, 0)).unwrap();
            let w = order.window_of(from);
            let range = order.positions(w);
            let end = (from + len).min(range.end);
            let mut got = Vec::new();
            order.locate_all(w, from..end, &mut got);
            prop_assert_eq!(got, (from..end).map(|p| order.locate(w, p)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn without_a_shuffle_rows_come_as_written() {
        assert_eq!(sequence(&[5, 0, 7, 3], Shuffle::None, 6, key(1, 2)), (0..15).collect::<Vec<_>>());
    }

    #[test]
    fn seeds_epochs_and_splits_give_other_orders() {
        let of = |k| sequence(&[50, 50, 50], Shuffle::Global, 100, k);
        let base = of(key(1, 0));
        assert_eq!(base, of(key(1, 0)));
        assert_ne!(base, of(key(2, 0)));
        assert_ne!(base, of(key(1, 1)));
        assert_ne!(base, of(Key { split: "test", ..key(1, 0) }));
        assert_ne!(base, of(Key { version: "abd", ..key(1, 0) }));
    }

    #[test]
    fn positions_tell_nothing_about_rows() {
        // Pearson's r of position against row: its standard deviation is 1/sqrt(n) for a random permutation.
        let seen = sequence(&[500; 40], Shuffle::Global, 2000, key(3, 0));
        let n = seen.len() as f64;
        let mean = (n - 1.0) / 2.0;
        let cov: f64 = seen.iter().enumerate().map(|(p, &r)| (p as f64 - mean) * (r as f64 - mean)).sum();
        let var: f64 = (0..seen.len()).map(|p| (p as f64 - mean).powi(2)).sum();
        // Whole row groups move together from window to window, so the spread is that of 40 groups, not of 20,000 rows.
        assert!((cov / var).abs() < 4.0 / 40f64.sqrt(), "r = {}", cov / var);
        // Within a window neighbours do not stay neighbours.
        let together = seen.windows(2).filter(|w| w[0].abs_diff(w[1]) == 1).count();
        assert!(together < 60, "{together} neighbours of 20,000 stayed together");
    }

    /// Chi-square of equally likely cells.
    fn chi_square(counts: &[f64]) -> f64 {
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        counts.iter().map(|c| (c - mean).powi(2) / mean).sum()
    }

    #[test]
    fn small_permutations_are_evenly_spread() {
        // Over 24,000 keys all places and all pairs of places must be about equally likely. 0.01 % points of chi-square: 25.7 with 5 degrees
        // of freedom, 66.6 with 29.
        for position in 0..6 {
            let (mut single, mut pairs) = (vec![0f64; 6], vec![0f64; 36]);
            for k in 0..24_000u64 {
                let p = Permutation::new(6, mix(k));
                let (a, b) = (p.at(position), p.at((position + 1) % 6));
                single[a as usize] += 1.0;
                pairs[(a * 6 + b) as usize] += 1.0;
            }
            assert!(chi_square(&single) < 25.7, "position {position}: {single:?}");
            pairs.retain(|&c| c > 0.0);
            assert!(pairs.len() == 30 && chi_square(&pairs) < 66.6, "position {position}: {}", chi_square(&pairs));
        }
    }

    #[test]
    fn the_largest_window_has_room() {
        let p = Permutation::new(u32::MAX, 5);
        assert!([0, 1, 65_535, 65_536, u32::MAX - 1].iter().all(|&i| p.at(i) < u32::MAX));
        assert!(u64::from(p.rows) * u64::from(p.columns) >= u64::from(u32::MAX));
    }

    #[test]
    fn large_permutations_are_evenly_spread() {
        // One key, 100,000 rows: which tenth goes to which tenth. 81 degrees of freedom, 0.01 % point 136.
        for key in 0..5 {
            let p = Permutation::new(100_000, mix(key));
            let mut counts = vec![0f64; 100];
            (0..100_000u32).for_each(|i| counts[(i / 10_000 * 10 + p.at(i) / 10_000) as usize] += 1.0);
            assert!(chi_square(&counts) < 136.0, "key {key}: {}", chi_square(&counts));
        }
    }
}
