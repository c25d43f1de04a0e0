//! Moments of a column, exact to the last bits of a double whatever the batches were.
//!
//! Sums of x − p and (x − p)², where the pivot p is the first value, are carried in double-double arithmetic (two-sum and two-product:
//! T. J. Dekker, "A floating-point technique for extending the available precision", 1971; D. E. Knuth, TAOCP 2, 4.2.2), value by value in row
//! order, and merged in unit order. So the result does not depend on where batches were cut, and the variance survives a large mean.

use serde::{Deserialize, Serialize};

use crate::stages::step::Moments;

/// An unevaluated sum of two doubles: about 106 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Double {
    high: f64,
    low: f64,
}

impl Double {
    fn add(&mut self, x: f64) {
        let sum = self.high + x;
        let t = sum - self.high;
        self.low += (self.high - (sum - t)) + (x - t);
        self.high = sum;
    }

    fn merge(&mut self, other: Double) {
        self.add(other.high);
        self.low += other.low;
    }

    fn normal(self) -> Double {
        let high = self.high + self.low;
        Double { high, low: self.low - (high - self.high) }
    }

    fn times(self, b: Double) -> Double {
        let high = self.high * b.high;
        let low = self.high.mul_add(b.high, -high) + (self.high * b.low + self.low * b.high);
        Double { high, low }.normal()
    }

    fn over(self, n: f64) -> Double {
        let q = self.high / n;
        let rest = (-q).mul_add(n, self.high) + self.low;
        Double { high: q, low: rest / n }.normal()
    }
}

/// Gathers moments.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gather {
    count: u64,
    nulls: u64,
    nans: u64,
    /// The first value: what all sums are relative to.
    pivot: f64,
    sum: Double,
    squares: Double,
    min: f64,
    max: f64,
}

impl Default for Gather {
    fn default() -> Self {
        let zero = Double::default();
        Self { count: 0, nulls: 0, nans: 0, pivot: 0.0, sum: zero, squares: zero, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl Gather {
    /// Adds a value.
    pub fn add(&mut self, x: f64) {
        if x.is_nan() {
            self.nans += 1;
            return;
        }
        if self.count == 0 {
            self.pivot = x;
        }
        self.count += 1;
        let y = x - self.pivot;
        // what the subtraction rounded off
        let back = y + self.pivot;
        let rest = (x - back) + (back - y - self.pivot);
        self.sum.add(y);
        self.sum.low += rest;
        let square = y * y;
        self.squares.add(square);
        self.squares.low += y.mul_add(y, -square) + 2.0 * y * rest;
        self.min = self.min.min(x);
        self.max = self.max.max(x);
    }

    /// Counts nulls.
    pub fn add_nulls(&mut self, n: u64) {
        self.nulls += n;
    }

    /// Adds what another one gathered over later rows.
    pub fn merge(&mut self, other: &Gather) {
        self.nulls += other.nulls;
        self.nans += other.nans;
        if self.count == 0 {
            self.pivot = other.pivot;
        }
        if other.count > 0 {
            // Σ(x−p) and Σ(x−p)² for the pivot q of the others: with d = q − p they grow by n·d and by 2d·Σ(x−q) + n·d².
            let n = Double { high: other.count as f64, low: 0.0 };
            let mut d = Double { high: other.pivot, low: 0.0 };
            d.add(-self.pivot);
            let d = d.normal();
            let sum = other.sum.normal();
            self.squares.merge(other.squares);
            self.squares.merge(d.times(sum).times(Double { high: 2.0, low: 0.0 }));
            self.squares.merge(d.times(d).times(n));
            self.sum.merge(sum);
            self.sum.merge(d.times(n));
        }
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// The moments.
    pub fn finish(&self) -> Moments {
        let n = self.count as f64;
        let (mut mean, mut variance) = (0.0, 0.0);
        if self.count > 0 {
            let m = self.sum.normal().over(n);
            let square = m.times(m);
            let mut v = self.squares.normal().over(n);
            v.merge(Double { high: -square.high, low: -square.low });
            (mean, variance) = (self.pivot + m.high, v.normal().high.max(0.0));
        }
        let (count, nulls, nans, min, max) = (self.count, self.nulls, self.nans, self.min, self.max);
        Moments { count, nulls, nans, mean, variance, min, max }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Gather {
        let mut g = Gather::default();
        values.iter().for_each(|x| g.add(*x));
        g
    }

    #[test]
    fn a_large_mean_does_not_hide_a_small_spread() {
        // 1e9 ± 0.001: the textbook formula in doubles gives nonsense here. Population variance is 1e-6 exactly but for input rounding.
        let values: Vec<f64> = (0..1000).map(|i| 1e9 + if i % 2 == 0 { 0.001 } else { -0.001 }).collect();
        let center = values.iter().map(|x| x - 1e9).sum::<f64>() / 1000.0;
        let expected = values.iter().map(|x| (x - 1e9 - center).powi(2)).sum::<f64>() / 1000.0;
        let got = of(&values).finish();
        assert!((got.variance - expected).abs() < 1e-12 * expected, "{} {expected}", got.variance);
        assert!((got.mean - 1e9).abs() < 1e-6);
    }

    #[test]
    fn nothing_gathered_is_zero_spread() {
        let m = Gather::default().finish();
        assert_eq!((m.count, m.mean, m.variance, m.min, m.max), (0, 0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY));
        assert_eq!(of(&[f64::NAN]).finish().nans, 1);
    }

    proptest! {
        #[test]
        fn merging_equals_gathering(values in prop::collection::vec(-1e6..1e6_f64, 0..200), cut in 0usize..200) {
            let cut = cut.min(values.len());
            let mut left = of(&values[..cut]);
            left.merge(&of(&values[cut..]));
            let (merged, whole) = (left.finish(), of(&values).finish());
            prop_assert!((merged.mean - whole.mean).abs() <= 1e-15 * whole.mean.abs());
            prop_assert!((merged.variance - whole.variance).abs() <= 1e-14 * whole.variance.abs());
            prop_assert_eq!((merged.count, merged.min, merged.max), (whole.count, whole.min, whole.max));
        }
    }
}
