//! Pipeline and schemas to segments, steps and passes. Reads nothing: footers were read by [`crate::source`].
//!
//! ```text
//!  stages ── lower ──▶ steps ── pack ──▶ passes of a segment: fit │ decide │ settle │ … │ reshape or deliver
//! ```

mod explain;
mod lower;
mod passes;
pub mod prefix;

use arrow::datatypes::SchemaRef;

pub use explain::explain;
pub use lower::{Lowered, lower};
pub use passes::locals_before;

use crate::stages::step::{Fits, Step};

/// A whole run, planned.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Segments in order; all but the last end in a reshape.
    pub segments: Vec<Segment>,
    /// The splits' names; empty where the pipeline does not split.
    pub splits: Vec<String>,
    /// The columns that come out.
    pub output: SchemaRef,
}

/// Steps over one set of units.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The columns that come in.
    pub input: SchemaRef,
    /// The steps.
    pub steps: Vec<PlanStep>,
    /// What is read when, in order. The last one delivers or reshapes.
    pub passes: Vec<Pass>,
    /// The splits' names as known in this segment.
    pub splits: Vec<String>,
}

/// A step with the stage it came from and the columns around it.
#[derive(Debug, Clone)]
pub struct PlanStep {
    /// The stage's place in the spec.
    pub stage: usize,
    /// The stage's label.
    pub label: String,
    /// The step.
    pub step: Step,
    /// Visible columns before it.
    pub before: SchemaRef,
    /// Visible columns after it.
    pub after: SchemaRef,
}

/// One reading of a segment's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// What for.
    pub kind: PassKind,
    /// The rows are read as they are before this step.
    pub upto: usize,
    /// Row decisions that are made and recorded on the way.
    pub locals: Vec<usize>,
}

/// What a pass is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassKind {
    /// To learn these steps' statistics.
    Fit(Vec<usize>),
    /// To decide this step over all rows.
    Decide(usize),
    /// To make and record row decisions that nothing else has read yet.
    Settle,
    /// To make new rows by this step, which ends the segment.
    Reshape(usize),
    /// To write the result.
    Deliver,
}

impl Segment {
    /// Which split is `train`, where there is one.
    pub fn train(&self) -> Option<u8> {
        self.splits.iter().position(|s| s == "train").map(|i| i as u8)
    }

    /// The steps that decide something.
    pub fn decisions(&self) -> impl Iterator<Item = (usize, &PlanStep)> {
        self.steps.iter().enumerate().filter(|(_, s)| matches!(s.step, Step::Decide(_)))
    }
}

/// The fits' results that a step asks for, or an error that names the one missing.
pub fn need<'a>(fits: &'a Fits, keys: &[String]) -> crate::error::Result<&'a Fits> {
    match keys.iter().find(|k| !fits.contains_key(*k)) {
        None => Ok(fits),
        Some(key) => Err(crate::error::Error::internal(format!("the fit `{key}` was not made before it was needed"))),
    }
}
