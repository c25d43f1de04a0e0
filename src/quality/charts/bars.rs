//! Bars: nulls, frequent values, labels by split.

use maud::{Markup, html};

use super::super::format::{count, share, value};
use super::super::profile::{ColumnSummary, TopValue};
use super::super::report::{LabelReport, LabelValue, SplitReport};
use super::COLOURS;

/// A percentage for a style attribute.
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "0".to_owned() } else { format!("{:.2}", 100.0 * part as f64 / whole as f64) }
}

/// Nulls before and after, one bar below the other.
pub(in crate::quality) fn nulls(before: Option<&ColumnSummary>, after: Option<&ColumnSummary>) -> Markup {
    let bar = |summary: Option<&ColumnSummary>, class: &str| {
        html! {
            div.meter {
                @if let Some(s) = summary { i class=(class) style={ "width:" (percent(s.nulls, s.count)) "%" } {} }
            }
        }
    };
    let text = |summary: Option<&ColumnSummary>| summary.map_or_else(|| "–".to_owned(), |s| share(s.nulls, s.count));
    let (was, is) = (text(before), text(after));
    html! {
        span.figures {
            @match (before, after) {
                (Some(_), Some(_)) if was != is => { (was) " → " (is) }
                (None, _) => { (is) }
                _ => { (was) }
            }
        }
        (bar(before, "before")) (bar(after, "after"))
    }
}

/// Frequent values before and after: the union of both lists, by their count after, then before.
pub(in crate::quality) fn top_values(before: Option<&ColumnSummary>, after: Option<&ColumnSummary>) -> Markup {
    let list = |summary: Option<&ColumnSummary>| summary.map(|s| s.top.clone()).unwrap_or_default();
    let (was, is) = (list(before), list(after));
    let mut shown: Vec<&TopValue> = is.iter().collect();
    shown.extend(was.iter().filter(|old| !is.iter().any(|new| new.value == old.value)));
    if shown.is_empty() {
        return html! {};
    }
    let most = was.iter().chain(&is).map(|top| top.count).max().unwrap_or(1);
    html! {
        h4 { "Most frequent values" }
        div.tops {
            @for top in shown {
                div.top {
                    (shown_value(&value(&top.value)))
                    div.pair {
                        (counted(&was, top, most, before, "before"))
                        (counted(&is, top, most, after, "after"))
                    }
                }
            }
        }
    }
}

/// The bar of a value in one of the two lists; nothing where it is not among that list's first.
fn counted(list: &[TopValue], wanted: &TopValue, most: u64, of: Option<&ColumnSummary>, class: &str) -> Markup {
    html! {
        @if let Some((top, of)) = list.iter().find(|top| top.value == wanted.value).zip(of) {
            div.bar {
                div.meter { i class=(class) style={ "width:" (percent(top.count, most)) "%" } {} }
                span.figures {
                    @if top.at_most > top.count { "≥ " }
                    (count(top.count)) span.mute { " · " (share(top.count, of.count)) }
                }
            }
        }
    }
}

/// A value as code, so that white space is seen; an empty one in words.
pub(in crate::quality) fn shown_value(text: &str) -> Markup {
    html! { @if text.is_empty() { i.mute { "(empty)" } } @else { code.value { (text.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\"")) } } }
}

/// The splits as one bar.
pub(in crate::quality) fn split_bar(splits: &[SplitReport]) -> Markup {
    let all: u64 = splits.iter().map(|split| split.rows).sum();
    html! {
        div.stack {
            @for (i, split) in splits.iter().enumerate().filter(|(_, split)| split.rows > 0) {
                i class={ "k" (i % COLOURS) } style={ "width:" (percent(split.rows, all)) "%" } {}
            }
        }
    }
}

/// A stacked bar for each split: which share of its rows has which label.
pub(in crate::quality) fn balance(label: &LabelReport, splits: &[SplitReport]) -> Markup {
    let values: Vec<&LabelValue> = label.values.iter().chain(&label.others).collect();
    let rows = |value: &LabelValue, split: &str| value.by_split.get(split).copied().unwrap_or(0);
    let mut names: Vec<&str> = splits.iter().map(|split| split.name.as_str()).collect();
    for name in values.iter().flat_map(|value| value.by_split.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    html! {
        div.balance {
            @for name in &names {
                @let all: u64 = values.iter().map(|value| rows(value, name)).sum();
                div.row {
                    b { (name) }
                    div.stack {
                        @for (i, value) in values.iter().enumerate().filter(|(_, value)| rows(value, name) > 0) {
                            i class={ "k" (i % COLOURS) } style={ "width:" (percent(rows(value, name), all)) "%" }
                                title={ (value.value) ": " (count(rows(value, name))) } {}
                        }
                    }
                    span.figures { (count(all)) }
                }
            }
        }
        div.scroll { table {
            thead { tr { th { "value" } @for name in &names { th.num { (name) } } } }
            tbody {
                @for (i, value) in values.iter().enumerate() {
                    tr {
                        td { i class={ "dot k" (i % COLOURS) } {} " " (shown_value(&value.value)) }
                        @for name in &names {
                            @let all: u64 = values.iter().map(|value| rows(value, name)).sum();
                            td.num { (count(rows(value, name))) span.mute { " · " (share(rows(value, name), all)) } }
                        }
                    }
                }
            }
        } }
    }
}
