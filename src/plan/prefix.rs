//! Which columns must be read, and which steps run, so that certain columns are known as they are before a certain step.

use std::collections::BTreeSet;

use super::Segment;
use crate::stages::step::Step;

/// The needed part of a segment's first steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// For every step `i` below `upto`, and for `upto` itself: the visible columns needed before it.
    pub needed: Vec<BTreeSet<String>>,
    /// Column steps with a column that is needed, and row decisions to make, in order.
    pub steps: Vec<usize>,
}

impl Prefix {
    /// Walks back from `upto` with the columns wanted there. `locals` are the row decisions to make on the way.
    pub fn new(segment: &Segment, upto: usize, wanted: impl IntoIterator<Item = String>, locals: &[usize]) -> Self {
        let mut needed = vec![BTreeSet::new(); upto + 1];
        let mut steps = Vec::new();
        needed[upto] = wanted.into_iter().collect();
        for i in (0..upto).rev() {
            let mut before = needed[i + 1].clone();
            match &segment.steps[i].step {
                Step::Columns(c) => {
                    let made: Vec<_> = c.makes.iter().filter(|m| before.contains(&m.name)).collect();
                    if !made.is_empty() {
                        steps.push(i);
                    }
                    for m in &made {
                        before.remove(&m.name);
                    }
                    before.extend(made.iter().flat_map(|m| m.reads.iter().cloned()));
                }
                Step::Decide(d) if locals.contains(&i) => {
                    steps.push(i);
                    before.extend(d.reads.iter().cloned());
                }
                _ => {}
            }
            needed[i] = before;
        }
        steps.reverse();
        Self { needed, steps }
    }
}
