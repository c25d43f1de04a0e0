//! How values spread: histograms, small and large, before and after on one axis where they share one.

use maud::{Markup, html};

use super::super::format::{count, number, value};
use super::super::profile::{ColumnSummary, Histogram, Lengths, Value};
use super::at;

/// Width of a picture in units.
const WIDE: f64 = 300.0;
/// Ranges that overlap by less than this share of both together are drawn apart.
const OVERLAP: f64 = 0.2;

/// Bins as a picture needs them: edges, and the share of the values in each per unit of the axis.
struct Shape {
    edges: Vec<f64>,
    heights: Vec<f64>,
}

impl Shape {
    fn of(histogram: &Histogram) -> Self {
        let all = (histogram.counts.iter().sum::<u64>() + histogram.below + histogram.above).max(1) as f64;
        let wide = |i: usize| histogram.edges[i + 1] - histogram.edges[i];
        let heights = histogram.counts.iter().enumerate().map(|(i, n)| *n as f64 / all / wide(i)).collect();
        Self { edges: histogram.edges.clone(), heights }
    }

    fn ends(&self) -> (f64, f64) {
        (self.edges.first().copied().unwrap_or(0.0), self.edges.last().copied().unwrap_or(1.0))
    }

    fn highest(&self) -> f64 {
        self.heights.iter().copied().fold(0.0, f64::max)
    }

    /// The outline over an axis from `from` to `to`, as high as `most` at `high` units.
    fn path(&self, from: f64, to: f64, most: f64, high: f64) -> String {
        let x = |v: f64| at(WIDE * ((v - from) / (to - from)));
        let y = |h: f64| at(if most > 0.0 { high - (high - 2.0) * h / most } else { high });
        let mut path = format!("M{} {high}", x(self.ends().0));
        for (i, height) in self.heights.iter().enumerate() {
            path += &format!("V{}H{}", y(*height), x(self.edges[i + 1]));
        }
        path + &format!("V{high}Z")
    }
}

fn histogram_of(summary: Option<&ColumnSummary>) -> Option<&Histogram> {
    // A report may come from elsewhere: bins that do not fit together are not drawn.
    summary
        .and_then(|s| s.numbers.as_ref())
        .and_then(|n| n.histogram.as_ref())
        .filter(|h| !h.counts.is_empty() && h.edges.len() == h.counts.len() + 1 && h.edges.windows(2).all(|w| w[0] < w[1]))
}

/// A picture of a column in a line of the overview.
pub(in crate::quality) fn spark(before: Option<&ColumnSummary>, after: Option<&ColumnSummary>) -> Markup {
    let shapes = [(before, "before"), (after, "after")].map(|(summary, class)| (spark_shape(summary), class));
    let together = match (&shapes[0].0, &shapes[1].0) {
        (Some(a), Some(b)) => overlap(a.ends(), b.ends()) >= OVERLAP,
        _ => true,
    };
    // Where the axes differ, only what was delivered is shown.
    let shown: Vec<(&Shape, &str)> =
        shapes.iter().filter(|(_, class)| together || *class == "after").filter_map(|(s, class)| Some((s.as_ref()?, *class))).collect();
    html! { @if !shown.is_empty() { svg.spark viewBox={ "0 0 " (WIDE) " 40" } preserveAspectRatio="none" aria-hidden="true" { (paths(&shown, 40.0)) } } }
}

fn spark_shape(summary: Option<&ColumnSummary>) -> Option<Shape> {
    let summary = summary?;
    if let Some(histogram) = histogram_of(Some(summary)) {
        return Some(Shape::of(histogram));
    }
    if let Some(flags) = summary.booleans {
        return Some(counted_shape(&[flags.falses, flags.trues]));
    }
    // Text is known by its frequent values where there are such, else by its lengths; a single length is no picture.
    if !summary.top.is_empty() {
        return Some(counted_shape(&summary.top.iter().map(|top| top.count).collect::<Vec<_>>()));
    }
    let lengths = &summary.lengths.as_ref()?.by_doubling;
    let first = lengths.iter().position(|n| *n > 0)?;
    (first + 1 < lengths.len()).then(|| counted_shape(&lengths[first..]))
}

fn counted_shape(counts: &[u64]) -> Shape {
    let all = counts.iter().sum::<u64>().max(1) as f64;
    Shape { edges: (0..=counts.len()).map(|i| i as f64).collect(), heights: counts.iter().map(|n| *n as f64 / all).collect() }
}

fn paths(shapes: &[(&Shape, &str)], high: f64) -> Markup {
    let (from, to) = shapes.iter().map(|(s, _)| s.ends()).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), (c, d)| (a.min(c), b.max(d)));
    let most = shapes.iter().map(|(s, _)| s.highest()).fold(0.0, f64::max);
    html! { @for (shape, class) in shapes { path class=(class) d=(shape.path(from, to, most, high)) {} } }
}

fn overlap(a: (f64, f64), b: (f64, f64)) -> f64 {
    (a.1.min(b.1) - a.0.max(b.0)).max(0.0) / (a.1.max(b.1) - a.0.min(b.0))
}

/// The histograms of a column before and after.
pub(in crate::quality) fn before_after(before: Option<&ColumnSummary>, after: Option<&ColumnSummary>) -> Markup {
    let (was, is) = (histogram_of(before), histogram_of(after));
    let together = match (was, is) {
        (Some(a), Some(b)) => overlap(Shape::of(a).ends(), Shape::of(b).ends()) >= OVERLAP,
        _ => false,
    };
    html! {
        @if was.is_some() || is.is_some() {
            h4 { "Distribution" }
            @if together { (panel(was, is)) } @else { (panel(was, None)) (panel(None, is)) }
        }
    }
}

fn panel(was: Option<&Histogram>, is: Option<&Histogram>) -> Markup {
    let shapes: Vec<(Shape, &str, &Histogram)> =
        [(was, "before"), (is, "after")].into_iter().filter_map(|(h, class)| h.map(|h| (Shape::of(h), class, h))).collect();
    let first = shapes.iter().min_by(|a, b| a.0.ends().0.total_cmp(&b.0.ends().0));
    let last = shapes.iter().max_by(|a, b| a.0.ends().1.total_cmp(&b.0.ends().1));
    let drawn: Vec<(&Shape, &str)> = shapes.iter().map(|(s, class, _)| (s, *class)).collect();
    html! {
        @if let (Some(first), Some(last)) = (first, last) {
            figure {
                svg.hist viewBox={ "0 0 " (WIDE) " 100" } preserveAspectRatio="none" role="img" aria-label="histogram" { (paths(&drawn, 100.0)) }
                div.axis { span { (value(&first.2.from)) } (middle(&first.2.from, &last.2.to)) span { (value(&last.2.to)) } }
                @for (_, class, histogram) in &shapes { (beyond(histogram, class)) }
            }
        }
    }
}

/// The middle of the axis, for plain numbers: dates and times are told at their ends only.
fn middle(from: &Value, to: &Value) -> Markup {
    html! { @if let (Value::Float(from), Value::Float(to)) = (from, to) { span { (number(0.5 * from + 0.5 * to)) } } }
}

fn beyond(histogram: &Histogram, class: &str) -> Markup {
    html! {
        @if histogram.below + histogram.above > 0 {
            figcaption.mute {
                (class) ": "
                @if histogram.below > 0 { (count(histogram.below)) " values lie further left" }
                @if histogram.below > 0 && histogram.above > 0 { ", " }
                @if histogram.above > 0 { (count(histogram.above)) " values lie further right" }
            }
        }
    }
}

/// The lengths of texts or lists, in bins that double.
pub(in crate::quality) fn lengths(before: Option<&ColumnSummary>, after: Option<&ColumnSummary>) -> Markup {
    let of = |s: Option<&ColumnSummary>| s.and_then(|s| s.lengths.clone());
    let both: Vec<(Lengths, &str)> =
        [(of(before), "before"), (of(after), "after")].into_iter().filter_map(|(l, c)| Some((l?, c))).collect();
    let used: Vec<usize> =
        both.iter().flat_map(|(l, _)| l.by_doubling.iter().enumerate().filter(|(_, n)| **n > 0).map(|(bin, _)| bin)).collect();
    let (Some(first), Some(last)) = (used.iter().min().copied(), used.iter().max().copied()) else { return html! {} };
    let bins: Vec<usize> = (first..=last).collect();
    let counts = |l: &Lengths| bins.iter().map(|bin| l.by_doubling.get(*bin).copied().unwrap_or(0)).collect::<Vec<u64>>();
    let shapes: Vec<(Shape, &str)> = both.iter().map(|(lengths, class)| (counted_shape(&counts(lengths)), *class)).collect();
    let drawn: Vec<(&Shape, &str)> = shapes.iter().map(|(s, class)| (s, *class)).collect();
    html! {
        // A single bin is no picture: the figures say all.
        @if bins.len() > 1 {
            h4 { "Lengths" }
            figure {
                svg.hist viewBox={ "0 0 " (WIDE) " 100" } preserveAspectRatio="none" role="img" aria-label="histogram of lengths" { (paths(&drawn, 100.0)) }
                div.axis.bins { @for bin in &bins { span { (bin_name(*bin)) } } }
            }
        }
    }
}

fn bin_name(bin: usize) -> String {
    match bin {
        0 => "0".to_owned(),
        1 => "1".to_owned(),
        bin => {
            let from = 1_u64 << (bin - 1).min(63);
            match from {
                0..1_024 => format!("{from}+"),
                1_024..1_048_576 => format!("{}k+", from >> 10),
                1_048_576..1_073_741_824 => format!("{}M+", from >> 20),
                _ => format!("{}G+", from >> 30),
            }
        }
    }
}
