//! Stages to steps, with the columns that flow between them. Every mistake of every stage is found.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::SchemaRef;
use datafusion::prelude::SessionContext;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::passes::pack;
use super::{Plan, PlanStep, Segment};
use crate::error::Mistake;
use crate::stages::step::{Decide, Gives, How, Step};
use crate::stages::{Side, Stage, StageContext};

/// A stage to lower: its label, its place in the spec (`/stages/2/dedup`) and itself.
pub struct Lowered<'a> {
    /// `dedup`, or `dedup#2` for the second of its name.
    pub label: &'a str,
    /// A JSON pointer to its options.
    pub pointer: &'a str,
    /// The stage.
    pub stage: &'a dyn Stage,
}

/// Lowers all stages and packs their steps into passes.
pub fn lower(stages: &[Lowered<'_>], input: &SchemaRef, sides: &BTreeMap<String, Side>, seed: u64) -> Result<Plan, Vec<Mistake>> {
    let session = SessionContext::new();
    let mut mistakes: Vec<Mistake> = Vec::new();
    let mut schema = input.clone();
    let mut splits: Vec<String> = Vec::new();
    let mut copied: Option<&str> = None;
    let mut segments = vec![Vec::<PlanStep>::new()];
    let mut inputs = vec![input.clone()];
    for (index, lowered) in stages.iter().enumerate() {
        let cx = StageContext {
            schema: &schema,
            splits: (!splits.is_empty()).then_some(splits.as_slice()),
            sides,
            label: lowered.label,
            seed: xxh3_64_with_seed(lowered.label.as_bytes(), seed),
            session: &session,
        };
        let steps = match lowered.stage.lower(&cx) {
            Ok(steps) => steps,
            Err(found) => {
                // After a stage that failed, columns may be missing for that reason alone.
                let follows = !mistakes.is_empty();
                let found = found.into_iter().filter(|m| !follows || !m.message.starts_with("no column "));
                mistakes.extend(found.map(|m| m.under(lowered.pointer)));
                continue;
            }
        };
        if let Err(mistake) = in_order(&steps, copied, lowered.label) {
            mistakes.push(mistake.under(lowered.pointer));
        }
        for step in steps {
            let before = schema.clone();
            let mut ends = false;
            match &step {
                Step::Columns(c) => schema = c.output.clone(),
                Step::Decide(Decide { gives: Gives::Splits(names), .. }) => splits.clone_from(names),
                Step::Decide(Decide { gives: Gives::Copies, .. }) => copied = Some(lowered.label),
                Step::Reshape(r) => {
                    schema = r.output.clone();
                    ends = true;
                }
                Step::Decide(_) | Step::Fit(_) | Step::Append(_) => {}
            }
            if let Err(mistake) = unique(&schema) {
                mistakes.push(mistake.under(lowered.pointer));
            }
            let label = lowered.label.to_owned();
            if let Some(segment) = segments.last_mut() {
                segment.push(PlanStep { stage: index, label, step, before, after: schema.clone() });
            }
            if ends {
                if !splits.is_empty() {
                    mistakes.push(
                        Mistake::new(lowered.pointer, format!("`{}` makes new rows, which have no split yet", lowered.label))
                            .help("put the `split` below it"),
                    );
                    splits.clear();
                }
                segments.push(Vec::new());
                inputs.push(schema.clone());
            }
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let segments = segments.into_iter().zip(inputs).map(|(steps, input)| {
        let passes = pack(&steps);
        Segment { input, passes, splits: splits_of(&steps), steps }
    });
    Ok(Plan { segments: segments.collect(), splits, output: schema })
}

fn splits_of(steps: &[PlanStep]) -> Vec<String> {
    let names = steps.iter().find_map(|s| match &s.step {
        Step::Decide(Decide { gives: Gives::Splits(names), .. }) => Some(names.clone()),
        _ => None,
    });
    names.unwrap_or_default()
}

/// Copies of a row share its identity, so nothing that decides on rows can stand below them.
fn in_order(steps: &[Step], copied: Option<&str>, label: &str) -> Result<(), Mistake> {
    let Some(above) = copied else { return Ok(()) };
    let decides = steps.iter().any(|s| !matches!(s, Step::Columns(_) | Step::Fit(_)));
    if !decides {
        return Ok(());
    }
    Err(Mistake::new("", format!("`{label}` decides on rows, but `{above}` above it makes copies of rows"))
        .help(format!("put `{label}` above `{above}`")))
}

fn unique(schema: &SchemaRef) -> Result<(), Mistake> {
    let mut seen = BTreeSet::new();
    match schema.fields().iter().find(|f| !seen.insert(f.name())) {
        None => Ok(()),
        Some(f) => Err(Mistake::new("", format!("two columns would be named `{}`", f.name())).help("rename one of them first")),
    }
}

/// Whether a step decides from each row alone, so that it needs no pass of its own.
pub(super) fn is_local(step: &Step) -> bool {
    matches!(step, Step::Decide(Decide { how: How::Rows(_), .. }))
}
