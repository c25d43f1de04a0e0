//! `report.html`: one page that needs nothing else. No script, no font, no picture from elsewhere; light and dark by the reader's own setting; made for a
//! wide screen, a phone and paper. What matters most stands first: the outcome, warnings, rows through the stages, splits and label, columns,
//! and last where it all came from.

mod columns;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::charts;
use super::format::{bytes, count, plural, seconds, share};
use super::leakage::Leakage;
use super::report::{Report, Timing};

const STYLE: &str = include_str!("html/style.css");
/// So many leaking pairs of splits are listed.
const PAIRS: usize = 12;

/// The page. Everything in the report is escaped, names of columns too.
pub fn render(report: &Report) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (report.pipeline) @if let Some(version) = report.version { " v" (version) } " · Feedline report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(report))
                main {
                    (tiles(report))
                    (warnings(report))
                    (section("rows", "Rows through the stages", charts::flow(report)))
                    (splits(report))
                    (label(report))
                    (leakage(report))
                    (columns::section(report))
                    (sources(report))
                    (fits(report))
                    (provenance(report))
                }
            }
        }
    };
    page.into_string()
}

fn section(id: &str, title: &str, body: Markup) -> Markup {
    html! { section id=(id) { h2 { (title) } (body) } }
}

fn head(report: &Report) -> Markup {
    html! {
        header {
            p.mute { "Feedline data report" }
            h1 { (report.pipeline) @if let Some(version) = report.version { " " span.version { "version " (version) } } }
            @if let Some(description) = &report.description { p { (description) } }
            p.lead { (outcome(report)) }
        }
    }
}

/// The report in a sentence.
fn outcome(report: &Report) -> String {
    let rows = &report.rows;
    if rows.input == 0 {
        return "No rows came in.".to_owned();
    }
    let rejecting = report.stages.iter().filter(|stage| stage.rejected_rows() > 0).count() as u64;
    let mut changes = Vec::new();
    if rows.rejected > 0 {
        changes.push(format!("{} rejected by {}", count(rows.rejected), plural(rejecting, "stage")));
    }
    if rows.added > 0 {
        changes.push(format!("{} added", count(rows.added)));
    }
    let how = if changes.is_empty() { String::new() } else { format!(": {}", changes.join(", ")) };
    format!("{} in, {} delivered{how}.", plural(rows.input, "row"), count(rows.output))
}

fn tiles(report: &Report) -> Markup {
    let rows = &report.rows;
    let before = report.columns.iter().filter(|c| c.before.is_some()).count();
    let after = report.columns.iter().filter(|c| c.after.is_some()).count();
    let bad: usize = report.sources.iter().map(|source| source.bad_shards.len()).sum();
    let tile = |name: &str, figure: String, note: String, class: &str| {
        html! {
            div class={ "tile " (class) } { span.mute { (name) } b { (figure) } span.mute { (note) } }
        }
    };
    let found = report.warnings.len() as u64;
    html! {
        div.tiles {
            (tile("rows in", count(rows.input), report.sources.first().map_or(String::new(), |s| format!("{}, {}", plural(s.shards, "shard"), bytes(s.bytes))), ""))
            (tile("rejected", count(rows.rejected), share(rows.rejected, rows.input + rows.added), if rows.rejected > 0 { "bad" } else { "" }))
            @if rows.added > 0 { (tile("added", count(rows.added), "by stages".to_owned(), "good")) }
            (tile("delivered", count(rows.output), report.splits.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", "), ""))
            @if after > 0 { (tile("columns", after.to_string(), if before == after { "as many as came in".to_owned() } else { format!("{before} came in") }, "")) }
            @if bad > 0 { (tile("bad shards", bad.to_string(), "left out".to_owned(), "bad")) }
            (tile("to look at", count(found), if found == 0 { "nothing odd was found".to_owned() } else { "see below".to_owned() }, if found > 0 { "warn" } else { "good" }))
        }
    }
}

fn warnings(report: &Report) -> Markup {
    html! {
        @if !report.warnings.is_empty() {
            section.warnings id="warnings" {
                h2 { "To look at" }
                ul { @for warning in &report.warnings { li { b { (warning.about) } " " span { (warning.message) } } } }
            }
        }
    }
}

fn splits(report: &Report) -> Markup {
    if report.splits.len() < 2 {
        return html! {};
    }
    let body = html! {
        (charts::split_bar(&report.splits))
        div.legend {
            @for (i, split) in report.splits.iter().enumerate() {
                span { i class={ "dot k" (i % charts::COLOURS) } {} " " b { (split.name) } " " (count(split.rows)) span.mute { " · " (share(split.rows, report.rows.output)) } }
            }
        }
    };
    section("splits", "Splits", body)
}

fn label(report: &Report) -> Markup {
    match &report.label {
        Some(label) => section("label", &format!("Label balance: {}", label.column), charts::balance(label, &report.splits)),
        None => html! {},
    }
}

fn leakage(report: &Report) -> Markup {
    if report.leakage.is_empty() {
        return html! {};
    }
    section("leakage", "Leakage between splits", html! { @for key in &report.leakage { (leakage_of(key)) } })
}

fn leakage_of(key: &Leakage) -> Markup {
    html! {
        @if key.leaked == 0 {
            p { span.ok { "✓" } " None of " (count(key.distinct)) " values of " code { (key.keys.join(", ")) } " occurs in more than one split." }
        } @else {
            p {
                span.no { "✗" } " " b { (count(key.leaked)) } " of " (count(key.distinct)) " values of " code { (key.keys.join(", ")) }
                " (" (share(key.leaked, key.distinct)) ") occur in more than one split, in " (plural(key.rows, "row")) "."
            }
            div.scroll { table {
                thead { tr { th { "between" } th { "and" } th.num { "shared values" } } }
                tbody { @for pair in key.pairs.iter().take(PAIRS) { tr { td { (pair.a) } td { (pair.b) } td.num { (count(pair.leaked)) } } } }
            } }
            @if !key.examples.is_empty() {
                p.mute {
                    "For example "
                    @for (i, example) in key.examples.iter().enumerate() {
                        @if i > 0 { "; " }
                        @for (j, part) in example.key.iter().enumerate() { @if j > 0 { ", " } (charts::shown_value(part)) }
                        " in " (example.splits.join(", "))
                    }
                    "."
                }
            }
        }
    }
}

fn sources(report: &Report) -> Markup {
    if report.sources.is_empty() {
        return html! {};
    }
    let body = html! {
        div.scroll { table {
            thead { tr { th { "source" } th { "where" } th.num { "shards" } th.num { "rows" } th.num { "size" } th.num { "columns" } } }
            tbody {
                @for s in &report.sources {
                    tr {
                        td { b { (s.name) } } td { code.uri { (s.uri) } }
                        td.num { (count(s.shards)) } td.num { (count(s.rows)) } td.num { (bytes(s.bytes)) } td.num { (count(s.columns)) }
                    }
                }
            }
        } }
        @for s in report.sources.iter().filter(|s| !s.bad_shards.is_empty()) {
            h4 { "Shards of " (s.name) " that could not be read" }
            ul { @for bad in &s.bad_shards { li { code.uri { (bad.path) } ": " (bad.reason) span.mute { " (" (bad.action) ")" } } } }
        }
    };
    section("sources", "What was read", body)
}

fn fits(report: &Report) -> Markup {
    if report.fits.is_empty() {
        return html! {};
    }
    let body = html! { div.scroll { table {
        thead { tr { th { "statistic" } th { "learned" } } }
        tbody { @for (key, text) in &report.fits { tr { td { code { (key) } } td { (text) } } } }
    } } };
    section("fits", "What the stages learned", body)
}

fn provenance(report: &Report) -> Markup {
    let line = |name: &str, text: Option<&str>| html! { @if let Some(text) = text { dt { (name) } dd { code.uri { (text) } } } };
    let body = html! {
        dl {
            (line("version hash", report.hash.as_deref()))
            (line("spec hash", report.spec_hash.as_deref()))
            (line("seed", Some(&report.seed.to_string())))
            (line("feedline", Some(&report.feedline)))
            (line("started", report.started.as_deref()))
            (line("finished", report.finished.as_deref()))
            (line("profiled", report.profile.as_deref()))
        }
        @if !report.timings.is_empty() { (timings(&report.timings)) }
        p.mute { "rows in + added = delivered + rejected: " (count(report.rows.input)) " + " (count(report.rows.added)) " = " (count(report.rows.output)) " + " (count(report.rows.rejected)) }
    };
    section("provenance", "Where it came from", body)
}

fn timings(timings: &[Timing]) -> Markup {
    let longest = timings.iter().map(|t| t.seconds).fold(0.0, f64::max);
    html! {
        h4 { "Time by pass" }
        div.tops {
            @for timing in timings {
                div.top {
                    span { (timing.pass) }
                    div.pair { div.bar {
                        div.meter { i.after style={ "width:" (format!("{:.1}", if longest > 0.0 { 100.0 * timing.seconds / longest } else { 0.0 })) "%" } {} }
                        span.figures { (seconds(timing.seconds)) }
                    } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
