//! Runs one stage over one batch without an engine, for the unit tests of stages.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::prelude::SessionContext;
use serde::de::DeserializeOwned;

use crate::engine::bridge;
use crate::error::{Mistake, Result};
use crate::stages::step::{ColumnWork, Decide, Fit, FitKind, FitResult, Fits, Gives, How, Moments, ROW, Step};
use crate::stages::{Stage, StageContext};

/// What a stage did to a batch.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The rows that are left, visible columns only.
    pub batch: RecordBatch,
    /// The rejected rows (their number in the batch given) with their reasons, in order of rejection.
    pub rejected: Vec<(u64, String)>,
    /// What was learned.
    pub fits: Fits,
}

/// Reads a stage's options from JSON.
pub fn stage<T: Stage + DeserializeOwned>(options: serde_json::Value) -> T {
    serde_json::from_value(options).unwrap()
}

/// A batch of nullable columns.
pub fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}

/// Lowers a stage below a split with a `train` part.
pub fn lower(stage: &dyn Stage, schema: &SchemaRef) -> Result<Vec<Step>, Vec<Mistake>> {
    lower_below(stage, schema, Some(&["train".to_owned(), "test".to_owned()]))
}

/// Lowers a stage below a split, or above every one.
pub fn lower_below(stage: &dyn Stage, schema: &SchemaRef, splits: Option<&[String]>) -> Result<Vec<Step>, Vec<Mistake>> {
    let sides = BTreeMap::new();
    let session = SessionContext::new();
    stage.lower(&StageContext { schema, splits, sides: &sides, label: "stage", seed: 7, session: &session })
}

/// The mistakes of a stage as `pointer: message; help`.
pub fn mistakes(stage: &dyn Stage, schema: &SchemaRef) -> Vec<String> {
    let found = lower(stage, schema).expect_err("the stage should have mistakes");
    found.into_iter().map(|m| format!("{}: {}; {}", m.at, m.message, m.help.unwrap_or_default())).collect()
}

/// Runs a stage over a batch, where every fit learns from all rows that are left.
pub fn run(stage: &dyn Stage, batch: &RecordBatch) -> Result<Outcome> {
    run_with(stage, batch, &|fit, rows| learn(fit, rows))
}

/// Runs a stage over a batch; `learn` makes each fit from the rows that are left.
pub fn run_with(stage: &dyn Stage, batch: &RecordBatch, learn: &dyn Fn(&Fit, &RecordBatch) -> FitResult) -> Result<Outcome> {
    let steps = lower(stage, batch.schema_ref()).unwrap_or_else(|m| panic!("{m:?}"));
    apply(&steps, batch, learn)
}

/// Applies steps to a batch.
pub fn apply(steps: &[Step], batch: &RecordBatch, learn: &dyn Fn(&Fit, &RecordBatch) -> FitResult) -> Result<Outcome> {
    let mut rows = Rows { visible: batch.clone(), ids: UInt64Array::from_iter_values(0..batch.num_rows() as u64) };
    let mut out = Outcome { batch: batch.clone(), rejected: Vec::new(), fits: Fits::new() };
    for step in steps {
        match step {
            Step::Fit(fit) => {
                assert!(out.fits.insert(fit.key.clone(), learn(fit, &rows.visible)).is_none(), "two fits are named {}", fit.key);
            }
            Step::Columns(columns) => {
                let needed: Fits = columns.fits.iter().map(|k| (k.clone(), out.fits[k].clone())).collect();
                // Only what the step says it reads.
                let reads = rows.only(columns.makes.iter().flat_map(|m| m.reads.iter().map(String::as_str)));
                let made = match &columns.work {
                    ColumnWork::Polars(bind) => bridge::evaluate(&reads, &bind(&needed)?)?,
                    ColumnWork::Arrow(make) => make(&reads)?,
                };
                assert_eq!(made.len(), columns.makes.len(), "one array for each column made");
                let arrays = columns.output.fields().iter().map(|f| match columns.makes.iter().position(|m| m.name == *f.name()) {
                    Some(i) => made[i].clone(),
                    None => rows.visible.column_by_name(f.name()).unwrap().clone(),
                });
                // Fails where an array is not of the declared type.
                rows.visible = rebuilt(&columns.output, arrays.collect(), rows.ids.len());
            }
            Step::Decide(decide) => rows.decide(decide, &mut out)?,
            other => panic!("not a step for one batch: {other:?}"),
        }
    }
    out.batch = rows.visible;
    Ok(out)
}

struct Rows {
    visible: RecordBatch,
    ids: UInt64Array,
}

impl Rows {
    fn only<'a>(&self, names: impl Iterator<Item = &'a str>) -> RecordBatch {
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        names.dedup();
        let indices: Vec<usize> = names.iter().map(|n| self.visible.schema().index_of(n).unwrap()).collect();
        self.visible.project(&indices).unwrap()
    }

    fn decide(&mut self, decide: &Decide, out: &mut Outcome) -> Result<()> {
        let (How::Rows(decision), Gives::Rejects(reasons)) = (&decide.how, &decide.gives) else {
            panic!("not a decision by row: {decide:?}")
        };
        let reads = self.only(decide.reads.iter().map(String::as_str));
        let mut fields: Vec<Arc<Field>> = reads.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(ROW, DataType::UInt64, false)));
        let schema = Arc::new(Schema::new(fields));
        let mut columns = reads.columns().to_vec();
        columns.push(Arc::new(self.ids.clone()));
        let needed: Fits = decide.fits.iter().map(|k| (k.clone(), out.fits[k].clone())).collect();
        let codes = decision.bind(&schema, &needed)?.codes(&rebuilt(&schema, columns, self.ids.len()))?;
        assert_eq!(codes.len(), self.ids.len(), "one code for each row");
        let rejected = codes.iter().zip(self.ids.values());
        out.rejected.extend(rejected.filter_map(|(code, id)| code.map(|c| (*id, reasons[c as usize].clone()))));
        let stay: BooleanArray = codes.iter().map(|c| Some(c.is_none())).collect();
        self.visible = arrow::compute::filter_record_batch(&self.visible, &stay).unwrap();
        self.ids = arrow::compute::filter(&self.ids, &stay).unwrap().as_primitive().clone();
        Ok(())
    }
}

fn rebuilt(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    RecordBatch::try_new_with_options(schema.clone(), columns, &arrow::array::RecordBatchOptions::new().with_row_count(Some(rows))).unwrap()
}

/// What a fit learns from all rows of a batch, by the plainest means.
pub fn learn(fit: &Fit, batch: &RecordBatch) -> FitResult {
    let column = batch.column_by_name(&fit.column).unwrap();
    match &fit.kind {
        FitKind::Moments => FitResult::Moments(moments(&numbers(column))),
        FitKind::Quantiles(at) => {
            let mut sorted: Vec<f64> = numbers(column).into_iter().flatten().filter(|v| !v.is_nan()).collect();
            sorted.sort_by(f64::total_cmp);
            FitResult::Quantiles { count: sorted.len() as u64, values: at.iter().map(|q| quantile(&sorted, *q)).collect() }
        }
        FitKind::Frequencies { at_most } => {
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for row in (0..column.len()).filter(|r| column.is_valid(*r)) {
                *counts.entry(arrow::util::display::array_value_to_string(column, row).unwrap()).or_default() += 1;
            }
            assert!(counts.len() <= *at_most, "too many distinct values");
            let nulls = column.logical_null_count() as u64;
            let mut values: Vec<(String, u64)> = counts.into_iter().collect();
            values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            FitResult::Frequencies { nulls, values }
        }
    }
}

fn numbers(column: &ArrayRef) -> Vec<Option<f64>> {
    let numbers = arrow::compute::cast(column, &DataType::Float64).unwrap();
    numbers.as_primitive::<arrow::datatypes::Float64Type>().iter().collect()
}

fn moments(values: &[Option<f64>]) -> Moments {
    let all: Vec<f64> = values.iter().flatten().copied().filter(|v| !v.is_nan()).collect();
    let n = all.len() as f64;
    let mean = if all.is_empty() { 0.0 } else { all[0] + all.iter().map(|v| v - all[0]).sum::<f64>() / n };
    let variance = if all.is_empty() { 0.0 } else { all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n };
    Moments {
        count: all.len() as u64,
        nulls: values.iter().filter(|v| v.is_none()).count() as u64,
        nans: values.iter().flatten().filter(|v| v.is_nan()).count() as u64,
        mean,
        variance,
        min: all.iter().copied().fold(f64::INFINITY, f64::min),
        max: all.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q * last as f64;
    let below = at.floor() as usize;
    sorted[below] + (sorted[(below + 1).min(last)] - sorted[below]) * (at - below as f64)
}
