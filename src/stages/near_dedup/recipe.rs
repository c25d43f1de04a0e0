//! How a text becomes band fingerprints: shingle kind, number of bands, rows in a band. Everything follows from these few numbers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a shingle is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Shingle {
    /// So many words in a row. A word is a run of letters, digits and `_`.
    Words(#[schemars(range(min = 1))] usize),
    /// So many characters in a row, where whatever stands between words counts as one blank: for scripts without blanks.
    Chars(#[schemars(range(min = 1))] usize),
}

impl Default for Shingle {
    fn default() -> Self {
        Shingle::Words(5)
    }
}

impl Shingle {
    /// Words or characters in a shingle.
    pub fn size(self) -> usize {
        match self {
            Shingle::Words(n) | Shingle::Chars(n) => n,
        }
    }
}

/// All that the kernels need to know; it travels through plans as JSON, so that any engine can run them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What a shingle is made of.
    pub shingle: Shingle,
    /// Whether all digits count as the same one.
    pub fold_digits: bool,
    /// Bands.
    pub bands: usize,
    /// Hash functions in a band.
    pub rows: usize,
    /// Picks the hash functions.
    pub seed: u64,
}

/// The smallest chance to find a pair that is exactly as similar as the threshold, where bands and rows are chosen.
pub const RECALL: f64 = 0.99;
/// The most hash functions that are chosen: one more is time for every shingle of every text.
pub const MOST_HASHES: usize = 144;
/// More hash functions than this are surely a slip of the pen.
pub const ALLOWED_HASHES: usize = 4096;

/// The chance that two texts of Jaccard similarity `s` meet in at least one band: `1 − (1 − s^rows)^bands`
/// (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.4.2).
pub fn recall(s: f64, bands: usize, rows: usize) -> f64 {
    1.0 - (1.0 - s.powf(rows as f64)).powf(bands as f64)
}

/// The fewest bands of so many rows that reach [`RECALL`] at the threshold.
pub fn bands_for(threshold: f64, rows: usize) -> usize {
    let (mut low, mut high) = (1, 1 << 20);
    while low < high {
        let middle = (low + high) / 2;
        if recall(threshold, middle, rows) >= RECALL { high = middle } else { low = middle + 1 }
    }
    low
}

/// Bands and rows for a threshold: as many rows as [`MOST_HASHES`] allow, since each one spares candidates, and then the fewest bands.
/// `None` where the threshold is too low to be found with so few hash functions.
pub fn choose(threshold: f64) -> Option<(usize, usize)> {
    (1..=MOST_HASHES).rev().map(|rows| (bands_for(threshold, rows), rows)).find(|(bands, rows)| bands * rows <= MOST_HASHES)
}

/// The most rows with which so many bands still reach [`RECALL`] at the threshold, at least 1.
pub fn rows_for(threshold: f64, bands: usize) -> usize {
    (1..=MOST_HASHES).rev().find(|rows| recall(threshold, bands, *rows) >= RECALL).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_follow_from_the_threshold() {
        assert_eq!(choose(0.7), Some((26, 5)));
        assert_eq!(choose(0.8), Some((20, 7)));
        assert_eq!(choose(0.5), Some((35, 3)));
        assert_eq!(choose(0.01), None);
        assert_eq!(rows_for(0.7, 26), 5);
    }

    #[test]
    fn chosen_bands_reach_the_recall_and_no_fewer_do() {
        for threshold in [0.1, 0.3, 0.55, 0.7, 0.85, 0.95, 1.0] {
            let (bands, rows) = choose(threshold).unwrap();
            assert!(bands * rows <= MOST_HASHES);
            assert!(recall(threshold, bands, rows) >= RECALL, "{threshold}");
            assert!(bands == 1 || recall(threshold, bands - 1, rows) < RECALL, "{threshold}");
        }
    }
}
