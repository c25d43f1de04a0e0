//! Quantiles of a stream, within a bound that is known, in little memory, and the same for the same order of rows.
//!
//! This is the buffer-collapsing scheme of Munro and Paterson (1980) and Manku, Rajagopalan and Lindsay (SIGMOD 1998), with the leveled
//! buffers of KLL (Karnin, Lang, Liberty, FOCS 2016): level `h` holds up to [`WIDTH`] sorted keys, each of which stands for `2^h` values; a
//! level that overflows is sorted and every second key moves up. KLL flips a coin for which half; here the halves **alternate**, so that a run
//! can be repeated and errors of neighbouring collapses cancel. One collapse of level `h` moves a rank by at most `2^h`;
//! [`Ranks::error`] is the sum of these, a bound that always holds.

use serde::{Deserialize, Serialize};

/// Keys that a level holds, and values in a block.
pub(super) const WIDTH: usize = 512;

/// The sketch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Ranks {
    levels: Vec<Level>,
    /// How far any rank may be off, in values.
    error: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Level {
    /// Sorted, at most [`WIDTH`].
    keys: Vec<u64>,
    /// Which half goes up at the next collapse.
    odd: bool,
}

impl Ranks {
    /// Takes in keys in any order, each a single value. The slice is sorted in place.
    pub fn add_block(&mut self, keys: &mut [u64]) {
        keys.sort_unstable();
        self.add_sorted(0, keys);
    }

    /// Takes in distinct keys with their counts, in order of keys.
    pub fn add_counted(&mut self, sorted: &[(u64, u64)]) {
        // A count of 13 = 1101b is one key at levels 0, 2 and 3.
        let bits = sorted.iter().fold(0, |all, (_, count)| all | count);
        for level in (0..64).filter(|level| bits >> level & 1 == 1) {
            let keys: Vec<u64> = sorted.iter().filter(|(_, count)| count >> level & 1 == 1).map(|(key, _)| *key).collect();
            self.add_sorted(level, &keys);
        }
    }

    /// Takes in another sketch: afterwards this one stands for the values of both.
    pub fn merge(&mut self, other: &Self) {
        for (height, level) in other.levels.iter().enumerate() {
            self.add_sorted(height, &level.keys);
        }
        self.error += other.error;
    }

    /// How far any rank may be off, in values.
    pub fn error(&self) -> u64 {
        self.error
    }

    /// The keys that are kept, sorted, each with the number of values it stands for.
    pub fn weighted(&self) -> Vec<(u64, u64)> {
        let mut all: Vec<(u64, u64)> =
            self.levels.iter().enumerate().flat_map(|(height, level)| level.keys.iter().map(move |key| (*key, 1 << height))).collect();
        all.sort_unstable();
        all.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
        all
    }

    fn add_sorted(&mut self, height: usize, sorted: &[u64]) {
        let mut carry = sorted.to_vec();
        let mut height = height;
        while !carry.is_empty() {
            if self.levels.len() <= height {
                self.levels.resize_with(height + 1, Level::default);
            }
            let level = &mut self.levels[height];
            let merged = merged(std::mem::take(&mut level.keys), carry);
            if merged.len() <= WIDTH {
                level.keys = merged;
                return;
            }
            // An odd key out stays; the largest, so that the rest pair up.
            let paired = merged.len() & !1;
            level.keys = merged[paired..].to_vec();
            carry = merged[..paired].iter().skip(usize::from(level.odd)).step_by(2).copied().collect();
            level.odd = !level.odd;
            self.error += 1 << height;
            height += 1;
        }
    }
}

fn merged(a: Vec<u64>, b: Vec<u64>) -> Vec<u64> {
    if a.is_empty() {
        return b;
    }
    let mut out = Vec::with_capacity(a.len() + b.len());
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        let from_a = a[i] <= b[j];
        out.push(if from_a { a[i] } else { b[j] });
        i += usize::from(from_a);
        j += usize::from(!from_a);
    }
    out.extend_from_slice(&a[i..]);
    out.extend_from_slice(&b[j..]);
    out
}

/// The smallest key at or below which a share `p` of the values lies (the nearest-rank quantile), from keys with weights in order.
pub(super) fn quantile(sorted: &[(u64, u64)], p: f64) -> Option<u64> {
    let total: u64 = sorted.iter().map(|(_, weight)| weight).sum();
    let rank = ((p * total as f64).ceil() as u64).clamp(1, total.max(1));
    let mut seen = 0;
    for (key, weight) in sorted {
        seen += weight;
        if seen >= rank {
            return Some(*key);
        }
    }
    sorted.last().map(|(key, _)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn true_rank(values: &[u64], at: u64) -> i64 {
        values.iter().filter(|v| **v <= at).count() as i64
    }

    fn sketch_rank(ranks: &Ranks, at: u64) -> i64 {
        ranks.weighted().iter().filter(|(key, _)| *key <= at).map(|(_, weight)| *weight as i64).sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_rank_lies_within_the_bound(values in prop::collection::vec(0u64..100_000, 1..20_000), cut in 0usize..20_000) {
            let cut = cut.min(values.len());
            let mut halves = [Ranks::default(), Ranks::default()];
            for (ranks, part) in halves.iter_mut().zip([&values[..cut], &values[cut..]]) {
                for block in part.chunks(WIDTH) {
                    ranks.add_block(&mut block.to_vec());
                }
            }
            let [mut all, right] = halves;
            all.merge(&right);
            let total: u64 = all.weighted().iter().map(|(_, weight)| weight).sum();
            prop_assert_eq!(total, values.len() as u64, "no weight is lost");
            for at in (0..100_000).step_by(9_973) {
                prop_assert!(true_rank(&values, at).abs_diff(sketch_rank(&all, at)) <= all.error());
            }
        }

        #[test]
        fn counted_keys_keep_their_weight(counts in prop::collection::btree_map(0u64..5_000, 1u64..100_000, 1..1_500)) {
            let sorted: Vec<(u64, u64)> = counts.into_iter().collect();
            let mut ranks = Ranks::default();
            ranks.add_counted(&sorted);
            let total: u64 = ranks.weighted().iter().map(|(_, weight)| weight).sum();
            prop_assert_eq!(total, sorted.iter().map(|(_, count)| count).sum::<u64>());
        }
    }

    #[test]
    fn a_million_values_stay_small_and_near() {
        let mut ranks = Ranks::default();
        let values: Vec<u64> = (0..1_000_000u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32).collect();
        for block in values.chunks(WIDTH) {
            ranks.add_block(&mut block.to_vec());
        }
        let median = quantile(&ranks.weighted(), 0.5).unwrap();
        let off = true_rank(&values, median).abs_diff(500_000);
        assert!(off < 2_000, "off by {off} ranks of a million");
        assert!(ranks.error() < 15_000, "bound {}", ranks.error());
        assert!(ranks.levels.len() <= 12 && ranks.levels.iter().all(|l| l.keys.len() <= WIDTH));
    }
}
