//! The columns: a line each, which opens to everything known of the column before and after.

use maud::{Markup, html};

use super::super::charts;
use super::super::format::{count, number, share, value};
use super::super::profile::{ColumnSummary, Distinct};
use super::super::report::{ColumnReport, Report};

/// The section, or nothing where no column was profiled.
pub(super) fn section(report: &Report) -> Markup {
    if report.columns.is_empty() {
        return html! {};
    }
    html! {
        section id="columns" {
            h2 { "Columns" }
            p.legend { span { i.dot.before {} " before the first stage" } span { i.dot.after {} " as delivered" } span.mute { "open a line for all of it" } }
            div.columns {
                div.line.titles aria-hidden="true" { span { "column" } span { "type" } span { "nulls" } span { "distinct" } span { "range" } span { "spread" } }
                @for column in &report.columns { (line(column)) }
            }
        }
    }
}

fn line(column: &ColumnReport) -> Markup {
    let (before, after) = (column.before.as_ref(), column.after.as_ref());
    let shown = after.or(before);
    html! {
        details {
            summary.line {
                span.name { b { (column.name) } (state(column)) }
                span.type { (types(before, after)) }
                span.nulls { (charts::nulls(before, after)) }
                span.distinct { span.only-narrow.mute { "distinct " } (shown.and_then(|s| s.distinct).map_or_else(|| "–".to_owned(), estimate)) }
                span.range { (shown.map(range).unwrap_or_default()) }
                span { (charts::spark(before, after)) }
            }
            div.body {
                @if let Some(note) = shown.and_then(|s| s.note.as_ref()) { p.mute { "Note: " (note) "." } }
                div.sides {
                    div.scroll { (figures(before, after)) }
                    div.pictures {
                        (charts::before_after(before, after))
                        (charts::lengths(before, after))
                        (charts::top_values(before, after))
                    }
                }
            }
        }
    }
}

/// Whether the column is new, gone, changed or as it was.
fn state(column: &ColumnReport) -> Markup {
    let (class, text) = match (&column.before, &column.after) {
        (None, Some(_)) => ("good", "new"),
        (Some(_), None) => ("bad", "dropped"),
        (Some(before), Some(after)) if before.data_type != after.data_type => ("warn", "retyped"),
        _ => return html! {},
    };
    html! { " " span class={ "tag " (class) } { (text) } }
}

fn types(before: Option<&ColumnSummary>, after: Option<&ColumnSummary>) -> String {
    match (before, after) {
        (Some(before), Some(after)) if before.data_type != after.data_type => format!("{} → {}", before.data_type, after.data_type),
        (before, after) => after.or(before).map(|s| s.data_type.clone()).unwrap_or_default(),
    }
}

fn estimate(distinct: Distinct) -> String {
    if distinct.is_exact() { count(distinct.estimate) } else { format!("≈ {}", count(distinct.estimate)) }
}

fn range(summary: &ColumnSummary) -> String {
    if let Some((min, max)) = summary.numbers.as_ref().and_then(|n| n.min.as_ref().zip(n.max.as_ref())) {
        return format!("{} … {}", value(min), value(max));
    }
    if let Some(flags) = summary.booleans {
        return format!("{} true", share(flags.trues, flags.trues + flags.falses));
    }
    let unit = if summary.padded.is_some() { "characters" } else { "long" };
    summary
        .lengths
        .as_ref()
        .map_or_else(String::new, |l| if l.min == l.max { format!("{} {unit}", l.min) } else { format!("{}–{} {unit}", l.min, l.max) })
}

type Row = (&'static str, Box<dyn Fn(&ColumnSummary) -> Option<String>>);

/// Every figure of the column, before and after; rows that say nothing are left out.
fn figures(before: Option<&ColumnSummary>, after: Option<&ColumnSummary>) -> Markup {
    let rows: Vec<(String, Option<String>, Option<String>)> = rows()
        .into_iter()
        .map(|(name, of)| (name.to_owned(), before.and_then(&of), after.and_then(&of)))
        .chain(quantiles(before, after))
        .filter(|(_, was, is)| was.is_some() || is.is_some())
        .collect();
    let cell = |text: &Option<String>, changed: bool| html! { td.num.changed[changed] { (text.as_deref().unwrap_or("–")) } };
    html! {
        table.figures {
            thead { tr { th {} @if before.is_some() { th.num { "before" } } @if after.is_some() { th.num { "after" } } } }
            tbody { @for (name, was, is) in &rows {
                tr {
                    th { (name) }
                    @if before.is_some() { (cell(was, false)) }
                    @if after.is_some() { (cell(is, before.is_some() && was != is)) }
                }
            } }
        }
    }
}

fn rows() -> Vec<Row> {
    let some = |n: u64, of: u64| (n > 0).then(|| format!("{} ({})", count(n), share(n, of)));
    vec![
        ("rows", Box::new(|s| Some(count(s.count)))),
        ("null", Box::new(move |s| Some(some(s.nulls, s.count).unwrap_or_else(|| "0".to_owned())))),
        ("not a number", Box::new(move |s| some(s.nan, s.count))),
        ("+∞", Box::new(move |s| some(s.positive_infinite, s.count))),
        ("−∞", Box::new(move |s| some(s.negative_infinite, s.count))),
        ("distinct", Box::new(|s| s.distinct.map(estimate))),
        ("95 % interval", Box::new(|s| s.distinct.filter(|d| !d.is_exact()).map(|d| format!("{}–{}", count(d.low), count(d.high))))),
        ("true", Box::new(move |s| s.booleans.and_then(|b| some(b.trues, s.count)))),
        ("false", Box::new(move |s| s.booleans.and_then(|b| some(b.falses, s.count)))),
        ("mean", Box::new(|s| s.numbers.as_ref()?.mean.map(number))),
        ("std. deviation", Box::new(|s| s.numbers.as_ref()?.std.map(number))),
        ("minimum", Box::new(|s| s.numbers.as_ref()?.min.as_ref().map(value))),
        ("maximum", Box::new(|s| s.numbers.as_ref()?.max.as_ref().map(value))),
        ("shortest", Box::new(|s| Some(count(s.lengths.as_ref()?.min)))),
        ("mean length", Box::new(|s| Some(number(s.lengths.as_ref()?.mean)))),
        ("longest", Box::new(|s| Some(count(s.lengths.as_ref()?.max)))),
        ("empty", Box::new(move |s| some(s.lengths.as_ref()?.empty, s.count))),
        ("padded with space", Box::new(move |s| some(s.padded?, s.count))),
    ]
}

fn quantiles(before: Option<&ColumnSummary>, after: Option<&ColumnSummary>) -> Vec<(String, Option<String>, Option<String>)> {
    let shares: Vec<f64> =
        [before, after].into_iter().flatten().filter_map(|s| s.numbers.as_ref()).flat_map(|n| n.quantiles.iter().map(|q| q.0)).collect();
    let mut shares = shares;
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    let at = |s: Option<&ColumnSummary>, p: f64| s?.numbers.as_ref()?.quantiles.iter().find(|q| q.0 == p).map(|q| value(&q.1));
    let name = |p: f64| if p == 0.5 { "median".to_owned() } else { format!("{} % below", number(100.0 * p)) };
    let mut rows: Vec<_> = shares.iter().map(|p| (name(*p), at(before, *p), at(after, *p))).collect();
    let error =
        |s: Option<&ColumnSummary>| s?.numbers.as_ref().filter(|n| n.rank_error > 0.0).map(|n| format!("≤ {:.2} %", 100.0 * n.rank_error));
    rows.push(("rank error".to_owned(), error(before), error(after)));
    rows
}
