//! Bins for a picture, from sorted keys with weights.

use super::class::Class;
use super::ranks::quantile;
use super::summary::Histogram;

/// About how many bins a picture has.
const BINS: f64 = 30.0;
/// So many times the span from the 1st to the 99th percentile may lie on either side before values count as far off …
const FAR: f64 = 1.0;
/// … and so much of it is shown on that side then.
const MARGIN: f64 = 0.25;

/// The histogram of a column, or `None` without values.
pub(super) fn histogram(class: Class, sorted: &[(u64, u64)]) -> Option<Histogram> {
    let (least, most) = (class.number(sorted.first()?.0), class.number(sorted.last()?.0));
    let (low, high) = (class.number(quantile(sorted, 0.01)?), class.number(quantile(sorted, 0.99)?));
    // Halves first: the difference of two large numbers of opposite sign overflows.
    let span = high / 2.0 - low / 2.0;
    let (far, margin) = (2.0 * FAR * span, 2.0 * MARGIN * span);
    let from = if span > 0.0 && least < low - far { low - margin } else { least };
    let to = if span > 0.0 && most > high + far { high + margin } else { most };
    let edges = edges(class, from, to);
    let (first, last) = (*edges.first()?, *edges.last()?);
    let mut out =
        Histogram { counts: vec![0; edges.len() - 1], from: class.position(first), to: class.position(last), ..Histogram::default() };
    let mut bin = 0;
    for (key, weight) in sorted {
        let value = class.number(*key);
        if value < first {
            out.below += weight;
        } else if value > last {
            out.above += weight;
        } else {
            while bin + 1 < out.counts.len() && value >= edges[bin + 1] {
                bin += 1;
            }
            out.counts[bin] += weight;
        }
    }
    out.edges = edges;
    Some(out)
}

/// Strictly rising edges from at most `from` to at least `to`, at round numbers where the column is a measure.
fn edges(class: Class, from: f64, to: f64) -> Vec<f64> {
    let whole = class.is_whole();
    let (from, to) = if whole { (from.floor(), to.ceil()) } else { (from, to) };
    let raw = (to / BINS - from / BINS).max(if whole { 1.0 } else { 0.0 });
    if raw > 0.0 && to > from {
        let (step, start) =
            if class.has_moments() { (Step::above(raw, whole), 0.0) } else { (Step { factor: raw.ceil(), power: 0 }, from) };
        let first = ((from - start) / step.width()).floor();
        // Among whole numbers a bin is `step` numbers wide, the last one too; else a value on the last edge belongs to the last bin.
        let span = (to - start) / step.width();
        let last = if whole { span.floor() + 1.0 } else { span.ceil() };
        let bins = (last - first).clamp(1.0, 4.0 * BINS) as usize;
        let edges: Vec<f64> = (0..=bins).map(|i| start + step.times(first + i as f64)).collect();
        if edges.windows(2).all(|w| w[0] < w[1] && w[1].is_finite()) && edges[0] <= from && edges.last().is_some_and(|e| *e >= to) {
            return edges;
        }
    }
    one_bin(from, to, whole)
}

/// A bin's width: `factor · 10^power`, kept apart so that multiples of 0.1 come out as 0.3, not 0.30000000000000004.
#[derive(Clone, Copy)]
struct Step {
    factor: f64,
    power: i32,
}

impl Step {
    /// The next of 1, 2, 2.5, 5, 10 … that is no smaller, for whole numbers the next whole one.
    fn above(raw: f64, whole: bool) -> Self {
        let power = raw.log10().floor() as i32;
        let fits = |step: &Self| step.width() >= raw * 0.999_999 && (!whole || step.width().fract() == 0.0);
        [1.0, 2.0, 2.5, 5.0].into_iter().map(|factor| Self { factor, power }).find(fits).unwrap_or(Self { factor: 1.0, power: power + 1 })
    }

    fn width(self) -> f64 {
        self.times(1.0)
    }

    fn times(self, n: f64) -> f64 {
        if self.power < 0 { n * self.factor / 10f64.powi(-self.power) } else { n * self.factor * 10f64.powi(self.power) }
    }
}

/// For a single value, and for numbers so large or so near each other that more edges could not be told apart.
fn one_bin(from: f64, to: f64, whole: bool) -> Vec<f64> {
    if to > from {
        vec![from, to]
    } else if whole && from + 1.0 > from {
        vec![from, from + 1.0]
    } else if from - 0.5 < from && from + 0.5 > from {
        vec![from - 0.5, from + 0.5]
    } else if from > 0.0 {
        vec![from.next_down(), from]
    } else {
        vec![from, from.next_up()]
    }
}

#[cfg(test)]
mod tests {
    use super::super::class::{float_key, int_key};
    use super::*;
    use proptest::prelude::*;

    fn of_floats(values: &mut [f64]) -> Histogram {
        values.sort_by(f64::total_cmp);
        histogram(Class::Float, &values.iter().map(|v| (float_key(*v), 1)).collect::<Vec<_>>()).unwrap()
    }

    proptest! {
        #[test]
        fn every_value_is_somewhere(mut values in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::ZERO, 1..200)) {
            let h = of_floats(&mut values);
            prop_assert_eq!(h.below + h.above + h.counts.iter().sum::<u64>(), values.len() as u64);
            prop_assert_eq!(h.edges.len(), h.counts.len() + 1);
            prop_assert!(h.edges.windows(2).all(|w| w[0] < w[1]), "{:?}", h.edges);
            prop_assert!(h.edges.iter().all(|e| e.is_finite()));
            prop_assert!(h.counts.len() <= 64, "{} bins", h.counts.len());
        }

        #[test]
        fn whole_numbers_have_whole_bins(mut values in prop::collection::vec(-1_000i64..1_000, 1..200)) {
            values.sort_unstable();
            let h = histogram(Class::Int, &values.iter().map(|v| (int_key(*v), 1)).collect::<Vec<_>>()).unwrap();
            prop_assert_eq!(h.below + h.above + h.counts.iter().sum::<u64>(), values.len() as u64);
            prop_assert!(h.edges.iter().all(|e| e.fract() == 0.0), "{:?}", h.edges);
        }
    }

    #[test]
    fn one_far_value_does_not_squeeze_the_rest() {
        let mut values: Vec<f64> = (0..1_000).map(|i| f64::from(i) / 10.0).collect();
        values.push(1e12);
        let h = of_floats(&mut values);
        assert_eq!(h.above, 1);
        assert!(h.counts.iter().filter(|c| **c > 0).count() > 10, "{h:?}");
    }

    #[test]
    fn months_have_a_bin_each() {
        let keys: Vec<(u64, u64)> = (1..=12).map(|m| (int_key(m), 100)).collect();
        let h = histogram(Class::Int, &keys).unwrap();
        assert_eq!(h.counts, vec![100; 12]);
    }
}
