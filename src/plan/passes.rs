//! Steps packed into passes: as few readings of the rows as their dependencies allow.

use std::collections::BTreeSet;

use super::lower::is_local;
use super::{Pass, PassKind, PlanStep};
use crate::stages::step::{How, Step};

/// Packs the steps of one segment.
pub(super) fn pack(steps: &[PlanStep]) -> Vec<Pass> {
    let mut passes: Vec<Pass> = Vec::new();
    let mut pending: Vec<usize> = Vec::new();
    // The fit pass that a further fit may still join, while no row has been decided on since.
    let mut open: Option<usize> = None;
    for (i, s) in steps.iter().enumerate() {
        match &s.step {
            Step::Columns(_) => {}
            Step::Append(_) => open = None,
            Step::Decide(d) => {
                open = None;
                match d.how {
                    How::Rows(_) => pending.push(i),
                    How::Table(_) => passes.push(Pass { kind: PassKind::Decide(i), upto: i, locals: std::mem::take(&mut pending) }),
                }
            }
            Step::Fit(fit) => {
                let joined = open.and_then(|at| joint(steps, &passes[at], i, &fit.column).map(|upto| (at, upto)));
                match joined {
                    Some((at, upto)) => {
                        passes[at].upto = upto;
                        if let PassKind::Fit(fits) = &mut passes[at].kind {
                            fits.push(i);
                        }
                    }
                    None => {
                        open = Some(passes.len());
                        passes.push(Pass { kind: PassKind::Fit(vec![i]), upto: i, locals: std::mem::take(&mut pending) });
                    }
                }
            }
            Step::Reshape(_) => {
                passes.push(Pass { kind: PassKind::Reshape(i), upto: i, locals: std::mem::take(&mut pending) });
                return passes;
            }
        }
    }
    if !pending.is_empty() {
        let upto = pending.last().map_or(0, |last| last + 1);
        passes.push(Pass { kind: PassKind::Settle, upto, locals: pending });
    }
    passes.push(Pass { kind: PassKind::Deliver, upto: steps.len(), locals: Vec::new() });
    passes
}

/// The step before which an open pass and the fit at `i` can learn together, if there is one: where the pass stands, if the fit's column is there already as
/// it will be at `i`; otherwise at `i`, if the columns of the fits already in the pass are still the same there. The fit's column must not depend on what
/// that pass learns.
fn joint(steps: &[PlanStep], pass: &Pass, i: usize, column: &str) -> Option<usize> {
    let PassKind::Fit(fits) = &pass.kind else { return None };
    let there = steps[pass.upto].before.field_with_name(column).is_ok();
    let upto = if there && same(&steps[pass.upto..i], column) { pass.upto } else { i };
    let first = fits.first().copied().unwrap_or(upto);
    let learned = || fits.iter().filter_map(|f| fit_of(&steps[*f].step).map(|fit| (*f, fit)));
    let keys = learned().map(|(_, fit)| &fit.key).collect();
    // A fit that joined where the pass stands is behind it, and its column is the same in between.
    let stay = upto == pass.upto || learned().all(|(f, fit)| same(&steps[f..i], &fit.column));
    (stay && !depends(&steps[first..upto], column, &keys)).then_some(upto)
}

/// Whether a column comes through these steps as it was.
fn same(steps: &[PlanStep], column: &str) -> bool {
    steps.iter().all(|s| match &s.step {
        Step::Columns(c) => !c.makes.iter().any(|m| m.name == column) && c.output.field_with_name(column).is_ok(),
        _ => true,
    })
}

/// Whether these steps make a column out of what one of these fits learns.
fn depends(steps: &[PlanStep], column: &str, keys: &BTreeSet<&String>) -> bool {
    let mut needed: BTreeSet<&str> = BTreeSet::from([column]);
    for s in steps.iter().rev() {
        let Step::Columns(c) = &s.step else { continue };
        let made: Vec<_> = c.makes.iter().filter(|m| needed.contains(m.name.as_str())).collect();
        if !made.is_empty() && c.fits.iter().any(|k| keys.contains(k)) {
            return true;
        }
        for m in made {
            needed.remove(m.name.as_str());
            needed.extend(m.reads.iter().map(String::as_str));
        }
    }
    false
}

fn fit_of(step: &Step) -> Option<&crate::stages::step::Fit> {
    if let Step::Fit(fit) = step { Some(fit) } else { None }
}

/// Row decisions below a step that no pass has recorded.
pub fn locals_before(steps: &[PlanStep], upto: usize, decided: &BTreeSet<usize>) -> Vec<usize> {
    (0..upto).filter(|i| is_local(&steps[*i].step) && !decided.contains(i)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use serde_json::json;

    use super::*;
    use crate::plan::{Lowered, lower};
    use crate::stages::column_testing::stage;
    use crate::stages::{Stage, clean::Clean, normalize::Normalize, split::Split};

    fn lowered(stages: &[(&str, &dyn Stage)]) -> Vec<PlanStep> {
        let number = |name| Field::new(name, DataType::Float64, true);
        let schema = Arc::new(Schema::new(vec![number("a"), number("b"), number("c"), number("id")]));
        let stages: Vec<Lowered<'_>> = stages.iter().map(|(label, stage)| Lowered { label, pointer: "", stage: *stage }).collect();
        lower(&stages, &schema, &BTreeMap::new(), 0).unwrap().segments.remove(0).steps
    }

    /// The labels of the fits of each pass that learns.
    fn learned(steps: &[PlanStep]) -> Vec<Vec<String>> {
        let fits = pack(steps).into_iter().filter_map(|p| if let PassKind::Fit(fits) = p.kind { Some(fits) } else { None });
        fits.map(|fits| fits.iter().map(|i| steps[*i].label.clone()).collect()).collect()
    }

    #[test]
    fn a_fit_never_learns_in_the_pass_that_its_column_comes_from() {
        let split = stage::<Split>(json!({ "by": "hash", "key": "id", "into": { "train": 0.8, "test": 0.2 } }));
        let fill = stage::<Clean>(json!({ "fill_null": { "b": "mean" } }));
        let (log, scale) = (stage::<Normalize>(json!({ "log1p": ["a"] })), stage::<Normalize>(json!({ "standard": ["a"] })));
        let other = stage::<Normalize>(json!({ "standard": ["c"] }));
        let mut steps = lowered(&[("split", &split), ("fill", &fill), ("log", &log), ("scale", &scale), ("other", &other)]);
        assert_eq!(learned(&steps), [vec!["fill"], vec!["scale", "other"]]);
        // As of a stage that writes beside its column: the pass has moved below it for `scale`, and `other` wants what it wrote.
        let fill = steps.iter_mut().find(|s| s.label == "fill" && matches!(s.step, Step::Columns(_)));
        let Some(Step::Columns(fill)) = fill.map(|s| &mut s.step) else { panic!("the stage fills nothing") };
        fill.makes[0].name = "c".to_owned();
        assert_eq!(learned(&steps), [vec!["fill", "scale"], vec!["other"]]);
    }

    #[test]
    fn a_fit_joins_a_pass_that_sees_its_column_as_it_will_be() {
        let split = stage::<Split>(json!({ "by": "hash", "key": "id", "into": { "train": 0.8, "test": 0.2 } }));
        let fill = stage::<Clean>(json!({ "fill_null": { "b": "mean" } }));
        let scale = stage::<Normalize>(json!({ "standard": ["a"] }));
        assert_eq!(learned(&lowered(&[("split", &split), ("fill", &fill), ("scale", &scale)])), [["fill", "scale"]]);
        // What is scaled here has been filled with what the first pass learns.
        let filled = stage::<Normalize>(json!({ "standard": ["b"] }));
        assert_eq!(learned(&lowered(&[("split", &split), ("fill", &fill), ("scale", &filled)])), [["fill"], ["scale"]]);
        // Scaled once, a column is another one.
        let again = stage::<Normalize>(json!({ "minmax": ["a"] }));
        assert_eq!(learned(&lowered(&[("split", &split), ("scale", &scale), ("again", &again)])), [["scale"], ["again"]]);
    }
}
