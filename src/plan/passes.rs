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
/// it will be at `i`; otherwise at `i`.
fn joint(steps: &[PlanStep], pass: &Pass, i: usize, column: &str) -> Option<usize> {
    let between = &steps[pass.upto..i];
    let there = between.first().is_none_or(|s| s.before.field_with_name(column).is_ok());
    let made = between.iter().any(|s| matches!(&s.step, Step::Columns(c) if c.makes.iter().any(|m| m.name == column)));
    if there && !made {
        return Some(pass.upto);
    }
    can_join(steps, pass, i, column).then_some(i)
}

/// Whether the fit at `i` can be learned in an open pass, once that stands there: its column must not depend on what that pass learns,
/// and the columns of the fits already in it must still be the same at `i`.
fn can_join(steps: &[PlanStep], pass: &Pass, i: usize, column: &str) -> bool {
    let PassKind::Fit(fits) = &pass.kind else { return false };
    let first = fits.first().copied().unwrap_or(i);
    let keys: BTreeSet<&String> = fits.iter().filter_map(|f| fit_of(&steps[*f].step)).map(|f| &f.key).collect();
    let mut needed: BTreeSet<&str> = BTreeSet::from([column]);
    for s in steps[first..i].iter().rev() {
        let Step::Columns(c) = &s.step else { continue };
        let made: Vec<_> = c.makes.iter().filter(|m| needed.contains(m.name.as_str())).collect();
        if !made.is_empty() && c.fits.iter().any(|k| keys.contains(k)) {
            return false;
        }
        for m in made {
            needed.remove(m.name.as_str());
            needed.extend(m.reads.iter().map(String::as_str));
        }
    }
    fits.iter().all(|f| {
        let name = fit_of(&steps[*f].step).map_or("", |fit| fit.column.as_str());
        steps[*f..i].iter().all(|s| match &s.step {
            Step::Columns(c) => !c.makes.iter().any(|m| m.name == name) && c.output.field_with_name(name).is_ok(),
            _ => true,
        })
    })
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

    /// The labels of the fits of each pass that learns.
    fn learned(stages: &[(&str, &dyn Stage)]) -> Vec<Vec<String>> {
        let number = |name| Field::new(name, DataType::Float64, true);
        let schema = Arc::new(Schema::new(vec![number("a"), number("b"), number("id")]));
        let stages: Vec<Lowered<'_>> = stages.iter().map(|(label, stage)| Lowered { label, pointer: "", stage: *stage }).collect();
        let plan = lower(&stages, &schema, &BTreeMap::new(), 0).unwrap();
        let segment = &plan.segments[0];
        let fits = segment.passes.iter().filter_map(|p| if let PassKind::Fit(fits) = &p.kind { Some(fits) } else { None });
        fits.map(|fits| fits.iter().map(|i| segment.steps[*i].label.clone()).collect()).collect()
    }

    #[test]
    fn a_fit_joins_a_pass_that_sees_its_column_as_it_will_be() {
        let split = stage::<Split>(json!({ "by": "hash", "key": "id", "into": { "train": 0.8, "test": 0.2 } }));
        let fill = stage::<Clean>(json!({ "fill_null": { "b": "mean" } }));
        let scale = stage::<Normalize>(json!({ "standard": ["a"] }));
        assert_eq!(learned(&[("split", &split), ("fill", &fill), ("scale", &scale)]), [["fill", "scale"]]);
        // What is scaled here has been filled with what the first pass learns.
        let filled = stage::<Normalize>(json!({ "standard": ["b"] }));
        assert_eq!(learned(&[("split", &split), ("fill", &fill), ("scale", &filled)]), [["fill"], ["scale"]]);
        // Scaled once, a column is another one.
        let again = stage::<Normalize>(json!({ "minmax": ["a"] }));
        assert_eq!(learned(&[("split", &split), ("scale", &scale), ("again", &again)]), [["scale"], ["again"]]);
    }
}
