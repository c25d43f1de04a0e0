//! A plan in words: stages with their engines and schemas, passes with the columns they read, units, fits, crossings.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{Pass, PassKind, Plan, PlanStep, Segment};
use crate::engine::passes::title;
use crate::plan::prefix::Prefix;
use crate::source::Sources;
use crate::stages::step::{ColumnWork, Columns, Decide, Gives, How, Step};

/// What `feedline plan` prints.
pub fn explain(plan: &Plan, sources: &Sources) -> String {
    let mut out = String::new();
    for (i, source) in sources.values().enumerate() {
        let role = if i == 0 { "flows" } else { "side" };
        let units = source.units(0, 0).len();
        let _ = writeln!(
            out,
            "source {} ({role}): {} shards, {units} units, {} rows, {}",
            source.name,
            source.shards.len(),
            source.rows(),
            bytesize::ByteSize(source.bytes()),
        );
        for bad in &source.bad {
            let _ = writeln!(out, "  left out ({}): {}: {}", bad.action, bad.path, bad.reason);
        }
        for note in &source.notes {
            let _ = writeln!(out, "  note: {note}");
        }
    }
    for (number, segment) in plan.segments.iter().enumerate() {
        let _ = writeln!(out, "\nsegment {number}\n  columns in: {}", columns(&segment.input));
        steps(&mut out, segment);
        passes(&mut out, segment);
    }
    let splits = if plan.splits.is_empty() { "all".to_owned() } else { plan.splits.join(", ") };
    let _ = writeln!(out, "\nout\n  splits: {splits}\n  columns: {}", columns(&plan.output));
    out
}

fn columns(schema: &arrow::datatypes::SchemaRef) -> String {
    let named: Vec<String> = schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
    named.join(", ")
}

fn steps(out: &mut String, segment: &Segment) {
    let _ = writeln!(out, "  steps:");
    for (i, s) in segment.steps.iter().enumerate() {
        let _ = writeln!(out, "    {i:>2} {:<14} {:<18} {}", s.label, engine(&s.step), describe(s));
    }
    let crossings = segment.steps.iter().filter(|s| matches!(&s.step, Step::Columns(Columns { work: ColumnWork::Polars(_), .. }))).count();
    let _ = writeln!(out, "  batches cross to Polars and back in {crossings} steps, without a copy");
}

fn engine(step: &Step) -> &'static str {
    match step {
        Step::Columns(Columns { work: ColumnWork::Polars(_), .. }) => "polars",
        Step::Columns(_) => "arrow",
        Step::Decide(Decide { how: How::Rows(_), .. }) => "row by row",
        Step::Decide(_) | Step::Reshape(_) => "datafusion",
        Step::Fit(_) => "fit",
        Step::Append(_) => "source",
    }
}

fn describe(s: &PlanStep) -> String {
    match &s.step {
        Step::Columns(c) => {
            let made: Vec<&str> = c.makes.iter().map(|m| m.name.as_str()).collect();
            let gone: Vec<&str> =
                s.before.fields().iter().map(|f| f.name().as_str()).filter(|n| s.after.field_with_name(n).is_err()).collect();
            match (made.is_empty(), gone.is_empty()) {
                (false, true) => format!("makes {}", made.join(", ")),
                (true, false) => format!("drops {}", gone.join(", ")),
                (false, false) => format!("makes {}; drops {}", made.join(", "), gone.join(", ")),
                (true, true) => "orders columns".to_owned(),
            }
        }
        Step::Decide(d) => {
            let gives = match &d.gives {
                Gives::Rejects(reasons) => format!("rejects: {}", reasons.join(" | ")),
                Gives::Survivors(reason) => format!("rejects: {reason}"),
                Gives::Splits(names) => format!("splits: {}", names.join(", ")),
                Gives::Copies => "copies rows".to_owned(),
            };
            format!("{gives}  (looks at {})", if d.reads.is_empty() { "row identity".to_owned() } else { d.reads.join(", ") })
        }
        Step::Fit(f) => format!("{} from {}", f.key, if f.on == crate::stages::step::Scope::Train { "train" } else { "all rows" }),
        Step::Append(a) => format!("rows of {} come in", a.source),
        Step::Reshape(r) => format!("new rows: {}", columns(&r.output)),
    }
}

fn passes(out: &mut String, segment: &Segment) {
    let _ = writeln!(out, "  passes:");
    for (n, pass) in segment.passes.iter().enumerate() {
        let reads = reads(segment, pass);
        let reads = if reads.is_empty() { "row identity".to_owned() } else { reads.into_iter().collect::<Vec<_>>().join(", ") };
        let _ = writeln!(out, "    {n:>2} {:<28} reads {reads}", title(segment, pass));
    }
}

/// The source's columns that a pass reads.
fn reads(segment: &Segment, pass: &Pass) -> BTreeSet<String> {
    let visible = |schema: &arrow::datatypes::SchemaRef| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    let wanted: Vec<String> = match &pass.kind {
        PassKind::Fit(fits) => {
            fits.iter().filter_map(|i| if let Step::Fit(f) = &segment.steps[*i].step { Some(f.column.clone()) } else { None }).collect()
        }
        PassKind::Decide(i) => match &segment.steps[*i].step {
            Step::Decide(d) => d.reads.clone(),
            _ => Vec::new(),
        },
        PassKind::Settle => Vec::new(),
        PassKind::Reshape(i) => visible(&segment.steps[*i].before),
        PassKind::Deliver => visible(segment.steps.last().map_or(&segment.input, |s| &s.after)),
    };
    Prefix::new(segment, pass.upto, wanted, &pass.locals).needed.swap_remove(0)
}
