//! Count, mean and spread of a stream, the same for the same order of rows.

use serde::{Deserialize, Serialize};

/// Sums are folded block by block with the update of Chan, Golub and LeVeque (1979), which stays exact where a naive sum of squares cancels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Moments {
    #[serde(with = "bits")]
    count: f64,
    #[serde(with = "bits")]
    mean: f64,
    /// Sum of squared differences from the mean.
    #[serde(with = "bits")]
    m2: f64,
}

/// Floats are stored as their bits: JSON's decimals may come back a last place off, and a profile must go on as if it had never been put away.
mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        value.to_bits().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

impl Moments {
    /// The moments of values, each with a weight, in two passes.
    pub fn of(values: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let (count, sum) = values.clone().fold((0.0, 0.0), |(n, s), (value, weight)| (n + weight, s + weight * value));
        if count == 0.0 {
            return Self::default();
        }
        let mean = sum / count;
        let m2 = values.map(|(value, weight)| weight * (value - mean) * (value - mean)).sum();
        Self { count, mean, m2 }
    }

    /// The moments of values of weight 1. Four sums run side by side: the additions of one would wait for each other.
    pub fn of_block(values: &[f64]) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        let count = values.len() as f64;
        let mean = side_by_side(values, |v| v) / count;
        Self { count, mean, m2: side_by_side(values, |v| (v - mean) * (v - mean)) }
    }

    /// Takes in the moments of further values.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0.0 {
            return;
        }
        let count = self.count + other.count;
        let off = other.mean - self.mean;
        self.mean += off * (other.count / count);
        self.m2 += other.m2 + off * off * (self.count * (other.count / count));
        self.count = count;
    }

    /// The mean, where there is one and it is finite.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0.0 && self.mean.is_finite()).then_some(self.mean)
    }

    /// The population's standard deviation, where there is one and it is finite.
    pub fn std(&self) -> Option<f64> {
        Some((self.m2 / self.count).sqrt()).filter(|std| self.count > 0.0 && std.is_finite())
    }
}

fn side_by_side(values: &[f64], of: impl Fn(f64) -> f64) -> f64 {
    let mut sums = [0.0; 4];
    let chunks = values.chunks_exact(4);
    let rest: f64 = chunks.remainder().iter().map(|v| of(*v)).sum();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += of(*value);
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn merged_parts_are_the_whole(values in prop::collection::vec(-1e6..1e6f64, 1..500), cut in 0usize..500) {
            let shifted: Vec<f64> = values.iter().map(|v| v + 1e9).collect();
            let cut = cut.min(values.len());
            let mut all = Moments::of_block(&shifted[..cut]);
            all.merge(&Moments::of_block(&shifted[cut..]));
            let whole = Moments::of(values.iter().map(|v| (*v, 1.0)));
            prop_assert!((all.mean - 1e9 - whole.mean).abs() < 1e-3);
            prop_assert!((all.m2 - whole.m2).abs() <= 1e-6 * (1.0 + whole.m2), "{} {}", all.m2, whole.m2);
        }
    }

    #[test]
    fn nothing_and_too_much_have_no_mean() {
        assert_eq!((Moments::default().mean(), Moments::default().std()), (None, None));
        let huge = Moments::of_block(&[f64::MAX, f64::MAX]);
        assert_eq!((huge.mean(), huge.std()), (None, None));
    }
}
