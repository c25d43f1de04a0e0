//! Pictures in SVG and plain HTML. Colours are classes of the page's style sheet, so that they follow light and dark; text stands in HTML beside the
//! shapes, so that it keeps its size where a shape is squeezed into a phone's width.

mod bars;
mod flow;
mod spread;

pub(super) use bars::{balance, nulls, shown_value, split_bar, top_values};
pub(super) use flow::flow;
pub(super) use spread::{before_after, lengths, spark};

/// Categories get one of so many colours, in turn.
pub(super) const COLOURS: usize = 8;

/// A coordinate with one decimal: more is not seen, and a wide table has many.
fn at(v: f64) -> String {
    let text = format!("{:.1}", if v.is_finite() { v } else { 0.0 });
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}
