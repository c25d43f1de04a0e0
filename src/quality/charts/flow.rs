//! Rows through the stages: a river from top to bottom, as wide as there are rows; what a stage rejects branches off to the right.

use maud::{Markup, html};

use super::super::format::{count, plural, share};
use super::super::report::{Report, StageReport};
use super::at;

/// The river's full width, in units of which the picture has 100; the rest is for branches.
const RIVER: f64 = 72.0;
/// Height of a stage's picture in units; it stretches with the text beside it.
const HEIGHT: f64 = 60.0;

/// The picture, with a line of text for each stage.
pub(in crate::quality) fn flow(report: &Report) -> Markup {
    let widest = report.stages.iter().flat_map(|stage| [stage.rows_in, stage.rows_out]).max().unwrap_or(0).max(report.rows.input);
    let width = |rows: u64| if widest == 0 { 0.0 } else { RIVER * rows as f64 / widest as f64 };
    let input = report.stages.first().map_or(report.rows.input, |stage| stage.rows_in);
    html! {
        div.flow {
            div.stage.end {
                div.what { b { (report.sources.first().map_or("input", |source| source.name.as_str())) } span.n { (plural(input, "row")) } }
                (band(&straight(width(input)), "", ""))
                div.out {}
            }
            @for stage in &report.stages { (stage_row(stage, report.rows.input, &width)) }
            div.stage.end {
                div.what { b { "delivered" } span.n { (plural(report.rows.output, "row")) } }
                (delivered(report, width(report.rows.output)))
                div.out { span.mute { (share(report.rows.output, report.rows.input)) " of the input" } }
            }
        }
    }
}

fn stage_row(stage: &StageReport, input: u64, width: &impl Fn(u64) -> f64) -> Markup {
    let rejected = stage.rejected_rows();
    let stays = width(stage.rows_in.saturating_sub(rejected));
    let leaves = if rejected > 0 { branch_out(stays, width(stage.rows_in)) } else { String::new() };
    let joins = if stage.added > 0 { branch_in(stays, width(stage.rows_out)) } else { String::new() };
    let mut reasons: Vec<(&String, &u64)> = stage.rejected.iter().filter(|(_, rows)| **rows > 0).collect();
    reasons.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    html! {
        div.stage {
            div.what {
                b { (stage.label) }
                @if !stage.description.is_empty() { span.mute { (stage.description) } }
                span.n { (count(stage.rows_out)) " left" @if input > 0 { span.mute { " · " (share(stage.rows_out, input)) } } }
            }
            (band(&straight(stays), &leaves, &joins))
            div.out {
                @for (reason, rows) in &reasons {
                    div.drop { b { "−" (count(**rows)) } " " (reason) span.mute { " · " (share(**rows, stage.rows_in)) } }
                }
                @if stage.added > 0 { div.add { b { "+" (count(stage.added)) } " added" } }
                @if reasons.is_empty() && stage.added == 0 { span.mute { "every row stays" } }
            }
        }
    }
}

fn band(river: &str, leaves: &str, joins: &str) -> Markup {
    html! {
        div.band { svg viewBox={ "0 0 100 " (HEIGHT) } preserveAspectRatio="none" aria-hidden="true" {
            @if !leaves.is_empty() { path.drop d=(leaves) {} }
            @if !joins.is_empty() { path.add d=(joins) {} }
            path.river d=(river) {}
        } }
    }
}

fn straight(width: f64) -> String {
    format!("M0 0H{}V{HEIGHT}H0Z", at(width))
}

/// From the river's right part at the top, down and out to the right; at least a hair wide, so that few rows are still seen.
fn branch_out(from: f64, to: f64) -> String {
    let to = to.max(from + 0.4);
    let thick = ((to - from) / RIVER * HEIGHT).clamp(1.0, 0.8 * HEIGHT);
    let (top, low) = (0.5 * (HEIGHT - thick), 0.5 * (HEIGHT + thick));
    let (a, b) = (at(from), at(to));
    format!("M{a} 0H{b}C{b} {t} {b} {t} 100 {t}V{l}C{a} {l} {a} {l} {a} 0Z", t = at(top), l = at(low))
}

/// From the right into the river at the bottom.
fn branch_in(from: f64, to: f64) -> String {
    let to = to.max(from + 0.4);
    let thick = ((to - from) / RIVER * HEIGHT).clamp(1.0, 0.8 * HEIGHT);
    let (top, low) = (0.5 * (HEIGHT - thick), 0.5 * (HEIGHT + thick));
    let (a, b) = (at(from), at(to));
    format!("M{a} {HEIGHT}H{b}C{b} {l} {b} {l} 100 {l}V{t}C{a} {t} {a} {t} {a} {HEIGHT}Z", t = at(top), l = at(low))
}

/// The river's mouth: one arm for each split.
fn delivered(report: &Report, width: f64) -> Markup {
    let rows: u64 = report.splits.iter().map(|split| split.rows).sum();
    let mut from = 0.0;
    let arms = report.splits.iter().enumerate().map(|(i, split)| {
        let wide = if rows == 0 { 0.0 } else { width * split.rows as f64 / rows as f64 };
        let arm = (i, from, wide);
        from += wide;
        arm
    });
    let arms: Vec<(usize, f64, f64)> = arms.collect();
    html! {
        div.band { svg viewBox={ "0 0 100 " (HEIGHT) } preserveAspectRatio="none" aria-hidden="true" {
            path.river d=(straight(width)) {}
            @if arms.len() > 1 {
                @for (i, from, wide) in arms {
                    rect class={ "k" (i % super::COLOURS) } x=(at(from)) y=(at(HEIGHT / 2.0)) width=(at(wide)) height=(at(HEIGHT / 2.0)) {}
                }
            }
        } }
    }
}
