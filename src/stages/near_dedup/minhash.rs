//! MinHash signatures and their bands.
//!
//! A hash function is `h(x) = a·x + b (mod 2^32)` with an odd `a`: a permutation of all 32-bit numbers. The chance that two sets have the same minimum under it is
//! their Jaccard similarity (Broder 1997). Order among the hashes is that of signed numbers: any total order serves, and every
//! vector unit compares signed lanes.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::recipe::Recipe;

/// Hash functions that are computed together: so few that multipliers, offsets and minima stay in registers while all shingles pass by.
const LANES: usize = 16;

/// Sixteen hash functions.
#[derive(Debug, Clone, Copy)]
struct Lanes {
    multiply: [i32; LANES],
    add: [i32; LANES],
}

/// Makes the band fingerprints of shingle sets; its buffers are used again.
#[derive(Debug)]
pub struct MinHasher {
    blocks: Vec<Lanes>,
    bands: usize,
    rows: usize,
    signature: Vec<i32>,
}

/// The highest bit of a fingerprint tells bands (1) from whole texts (0), so that equal texts come first in a sort.
pub const BAND: u64 = 1 << 63;

impl MinHasher {
    /// The hash functions of a recipe, picked by its seed.
    pub fn new(recipe: &Recipe) -> Self {
        let hashes = recipe.bands * recipe.rows;
        let number = |i: usize, what: u8| {
            let mut name = [what; 9];
            name[1..].copy_from_slice(&(i as u64).to_le_bytes());
            xxh3_64_with_seed(&name, recipe.seed) as i32
        };
        let blocks = (0..hashes.div_ceil(LANES))
            .map(|block| Lanes {
                multiply: std::array::from_fn(|lane| number(block * LANES + lane, b'a') | 1),
                add: std::array::from_fn(|lane| number(block * LANES + lane, b'b')),
            })
            .collect();
        Self { blocks, bands: recipe.bands, rows: recipe.rows, signature: Vec::with_capacity(hashes + LANES) }
    }

    /// The minimum of each hash function over the shingles: as many as the recipe has bands × rows.
    pub fn signature(&mut self, shingles: &[u32]) -> &[i32] {
        self.signature.clear();
        for lanes in &self.blocks {
            self.signature.extend_from_slice(&minima(lanes, shingles));
        }
        &self.signature[..self.bands * self.rows]
    }

    /// Appends one fingerprint for each band: a hash of the band's number and its rows' minima, with [`BAND`] set.
    pub fn fingerprints(&mut self, shingles: &[u32], out: &mut Vec<u64>) {
        let rows = self.rows;
        let bytes: &[u8] = bytemuck::cast_slice(self.signature(shingles));
        out.extend(bytes.chunks_exact(rows * 4).enumerate().map(|(band, minima)| xxh3_64_with_seed(minima, band as u64) | BAND));
    }
}

/// The fingerprint of a whole text, from the hash of the folded text.
pub fn whole(hash: u64) -> u64 {
    hash & !BAND
}

fn minima(lanes: &Lanes, shingles: &[u32]) -> [i32; LANES] {
    let mut least = [i32::MAX; LANES];
    for shingle in shingles {
        for ((least, multiply), add) in least.iter_mut().zip(&lanes.multiply).zip(&lanes.add) {
            *least = (*least).min((*shingle as i32).wrapping_mul(*multiply).wrapping_add(*add));
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::near_dedup::recipe::Shingle;
    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn hasher(bands: usize, rows: usize, seed: u64) -> MinHasher {
        MinHasher::new(&Recipe { shingle: Shingle::Words(5), fold_digits: true, bands, rows, seed })
    }

    /// Well spread numbers, as shingles are.
    fn set(range: std::ops::Range<u64>) -> Vec<u32> {
        range.map(|i| xxh3_64(&i.to_le_bytes()) as u32).collect()
    }

    #[test]
    fn the_share_of_equal_minima_estimates_jaccard() {
        // |A ∩ B| / |A ∪ B| = 600 / 1000, from 2,000 hash functions: standard error sqrt(0.6 · 0.4 / 2000) = 0.011
        for seed in 0..5 {
            let mut hasher = hasher(400, 5, seed);
            let a = hasher.signature(&set(0..800)).to_vec();
            let b = hasher.signature(&set(200..1000)).to_vec();
            let equal = a.iter().zip(&b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64;
            assert!((equal - 0.6).abs() < 4.0 * 0.011, "seed {seed}: {equal}");
        }
    }

    #[test]
    fn short_texts_meet_as_often_as_the_formula_says() {
        // pairs of sets of 51 with 42 in common: J = 42 / 60 = 0.7
        let (bands, rows, pairs) = (26, 5, 2000);
        let mut hasher = hasher(bands, rows, 7);
        let met = (0..pairs)
            .filter(|pair| {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                hasher.fingerprints(&set(pair * 100..pair * 100 + 51), &mut a);
                hasher.fingerprints(&set(pair * 100 + 9..pair * 100 + 60), &mut b);
                a.iter().zip(&b).any(|(a, b)| a == b)
            })
            .count() as f64
            / pairs as f64;
        let expected = super::super::recipe::recall(0.7, bands, rows);
        assert!((met - expected).abs() < 0.01, "{met} instead of {expected}");
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(mut shingles in prop::collection::vec(any::<u32>(), 1..200), seed: u64) {
            let mut hasher = hasher(3, 7, seed);
            let once = hasher.signature(&shingles).to_vec();
            shingles.reverse();
            shingles.extend_from_within(..);
            prop_assert_eq!(once, hasher.signature(&shingles));
        }

        #[test]
        fn a_fingerprint_says_that_it_is_of_a_band(shingles in prop::collection::vec(any::<u32>(), 1..20)) {
            let mut out = Vec::new();
            hasher(4, 3, 1).fingerprints(&shingles, &mut out);
            prop_assert_eq!(out.len(), 4);
            prop_assert!(out.iter().all(|f| f & BAND != 0));
            prop_assert!(whole(out[0]) & BAND == 0);
        }
    }
}
