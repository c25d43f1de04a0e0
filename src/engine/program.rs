//! The steps of a prefix, bound to what the fits learned, as a program over the batches of a unit.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt8Array, UInt32Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type, UInt64Type};
use roaring::RoaringBitmap;

use super::bridge;
use super::verdict::{UnitVerdict, Verdict};
use crate::error::{Error, Result};
use crate::plan::prefix::Prefix;
use crate::plan::{Segment, need};
use crate::stages::step::{ColumnWork, Columns, Decide, Fits, Gives, How, MakeArrays, ROW, RowTest, SPLIT, Scope, Step};

/// Steps to run over batches. The hidden columns `_row` and `_split` travel along where they are there.
pub struct Program {
    ops: Vec<(usize, Op)>,
}

enum Op {
    Make(Make),
    Test(Test),
}

/// Makes columns.
struct Make {
    work: Work,
    /// Fields of the columns made, in the order of the work's results.
    made: Vec<Field>,
    /// Which results of the work are wanted.
    wanted: Vec<usize>,
    /// Visible columns needed afterwards.
    keep: Vec<String>,
    label: String,
}

enum Work {
    Polars(bridge::Program),
    Arrow(Arc<MakeArrays>),
}

/// Makes a row decision.
struct Test {
    test: Box<dyn RowTest>,
    /// The columns that the test was bound to, in that order: a test may know them by their places.
    bound: SchemaRef,
    gives: Gives,
    train_only: Option<u8>,
    keep: Vec<String>,
    label: String,
}

impl Program {
    /// Binds the steps of a prefix.
    pub fn bind(segment: &Segment, prefix: &Prefix, fits: &Fits) -> Result<Self> {
        let ops = prefix.steps.iter().map(|&i| {
            let keep: Vec<String> = prefix.needed[i + 1].iter().cloned().collect();
            let label = &segment.steps[i].label;
            let op = match &segment.steps[i].step {
                Step::Columns(c) => Make::bind(c, &segment.steps[i].before, keep, label, fits).map(Op::Make),
                Step::Decide(d) => Test::bind(d, keep, segment, i, prefix, fits).map(Op::Test),
                other => return Err(Error::internal(format!("{other:?} cannot run inside a pass"))),
            };
            Ok((i, op.map_err(|e| e.at(stage(label)))?))
        });
        Ok(Self { ops: ops.collect::<Result<_>>()? })
    }

    /// Whether row decisions are among the steps.
    pub fn decides(&self) -> bool {
        self.ops.iter().any(|(_, op)| matches!(op, Op::Test(_)))
    }

    /// Runs the steps that concern a unit (those from `enters` on) over one of its batches.
    pub fn run(&self, mut batch: RecordBatch, enters: usize, record: &mut Recorder) -> Result<RecordBatch> {
        for (step, op) in self.ops.iter().filter(|(step, _)| *step >= enters) {
            batch = match op {
                Op::Make(make) => make.run(&batch)?,
                Op::Test(test) => test.run(batch, *step, record)?,
            };
        }
        Ok(batch)
    }
}

impl Make {
    fn bind(columns: &Columns, before: &Schema, keep: Vec<String>, label: &str, fits: &Fits) -> Result<Self> {
        let wanted: Vec<usize> = (0..columns.makes.len()).filter(|k| keep.contains(&columns.makes[*k].name)).collect();
        let fields = columns.makes.iter().map(|m| columns.output.field_with_name(&m.name).cloned());
        let fields: Vec<Field> = fields.collect::<Result<_, _>>()?;
        let made: Vec<Field> = wanted.iter().map(|k| fields[*k].clone()).collect();
        let work = match &columns.work {
            ColumnWork::Arrow(make) => Work::Arrow(make.clone()),
            ColumnWork::Polars(bind) => {
                let exprs = bind(need(fits, &columns.fits)?)?;
                let exprs: Vec<_> = wanted.iter().filter_map(|k| exprs.get(*k).cloned()).collect();
                let program = bridge::Program::new(before, &exprs)?;
                if let Some((field, t)) = made.iter().zip(program.types()).find(|(f, t)| f.data_type() != *t) {
                    let message = format!("column `{}` would come out as {t}, not as {}", field.name(), field.data_type());
                    return Err(Error::internal(message));
                }
                Work::Polars(program)
            }
        };
        Ok(Self { work, made, wanted, keep, label: label.to_owned() })
    }

    fn run(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let made: Vec<ArrayRef> = match &self.work {
            Work::Polars(program) => program.run(batch).map_err(|e| e.at(stage(&self.label)))?,
            Work::Arrow(make) => {
                let all = make(batch).map_err(|e| e.at(stage(&self.label)))?;
                self.wanted.iter().filter_map(|k| all.get(*k).cloned()).collect()
            }
        };
        let mut out = kept(batch, &self.keep, |name| !self.made.iter().any(|f| f.name() == name));
        for (field, array) in self.made.iter().zip(made) {
            if array.data_type() != field.data_type() {
                let message = format!("column `{}` came out as {}, not as {}", field.name(), array.data_type(), field.data_type());
                return Err(Error::internal(message).at(stage(&self.label)));
            }
            out.push((field.clone().with_nullable(true), array));
        }
        assemble(out, batch.num_rows())
    }
}

impl Test {
    fn bind(d: &Decide, keep: Vec<String>, segment: &Segment, i: usize, prefix: &Prefix, fits: &Fits) -> Result<Self> {
        let How::Rows(how) = &d.how else { return Err(Error::internal("a table decision cannot run inside a pass")) };
        let before = &segment.steps[i].before;
        let visible = prefix.needed[i].iter().filter_map(|n| before.field_with_name(n).ok().cloned());
        let mut fields: Vec<Field> = visible.map(|f| f.with_nullable(true)).collect();
        fields.push(row_field());
        let bound = Arc::new(Schema::new(fields));
        let test = how.bind(&bound, need(fits, &d.fits)?)?;
        let train_only = match (d.on, segment.train()) {
            (Scope::Train, Some(train)) if !matches!(d.gives, Gives::Splits(_)) => Some(train),
            _ => None,
        };
        Ok(Self { test, bound, gives: d.gives.clone(), train_only, keep, label: segment.steps[i].label.clone() })
    }

    fn run(&self, batch: RecordBatch, step: usize, record: &mut Recorder) -> Result<RecordBatch> {
        let codes = self.test.codes(&arrange(&batch, &self.bound)?).map_err(|e| e.at(stage(&self.label)))?;
        let rows = batch.column_by_name(ROW).ok_or_else(|| Error::internal("a batch has lost its row identities"))?;
        let rows = rows.as_primitive::<UInt64Type>().values();
        if let Gives::Splits(_) = &self.gives {
            let split: UInt8Array = codes.iter().map(|c| c.map(|c| c as u8)).collect();
            record.splits(step, rows, &split)?;
            let mut columns = kept(&batch, &self.keep, |_| true);
            columns.retain(|(f, _)| f.name() != SPLIT);
            columns.push((split_field(), Arc::new(split)));
            return assemble(columns, batch.num_rows());
        }
        let codes = match self.train_only {
            None => codes,
            Some(train) => {
                let split = batch.column_by_name(SPLIT).ok_or_else(|| Error::internal("a batch has lost its splits"))?;
                let split = split.as_primitive::<UInt8Type>();
                codes.iter().zip(split.values()).map(|(c, s)| c.filter(|_| *s == train)).collect()
            }
        };
        record.rejects(step, rows, &codes);
        let keep = kept(&batch, &self.keep, |_| true);
        let batch = assemble(keep, batch.num_rows())?;
        if codes.null_count() == codes.len() {
            return Ok(batch);
        }
        let stays: BooleanArray = codes.iter().map(|c| Some(c.is_none())).collect();
        Ok(filter_record_batch(&batch, &stays)?)
    }
}

/// How a stage is named as the place of an error.
fn stage(label: &str) -> String {
    format!("stage `{label}`")
}

/// The columns of a batch that are needed further on, and the hidden ones.
fn kept(batch: &RecordBatch, keep: &[String], also: impl Fn(&str) -> bool) -> Vec<(Field, ArrayRef)> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    let needed = |name: &String| name == ROW || name == SPLIT || (keep.contains(name) && also(name));
    columns.filter(|(f, _)| needed(f.name())).map(|(f, a)| (f.as_ref().clone(), a.clone())).collect()
}

fn assemble(columns: Vec<(Field, ArrayRef)>, rows: usize) -> Result<RecordBatch> {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
}

/// The batch with exactly these columns, in this order.
pub fn arrange(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let arrays = schema.fields().iter().map(|f| {
        batch.column_by_name(f.name()).cloned().ok_or_else(|| Error::internal(format!("column `{}` was lost on the way", f.name())))
    });
    let arrays = arrays.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
}

/// The field of the hidden identity column.
pub fn row_field() -> Field {
    Field::new(ROW, DataType::UInt64, false)
}

/// The field of the hidden split column.
pub fn split_field() -> Field {
    Field::new(SPLIT, DataType::UInt8, false)
}

/// Collects what row decisions say about one unit.
pub struct Recorder {
    rows: u32,
    entries: BTreeMap<usize, Verdict>,
}

impl Recorder {
    /// A recorder for a unit with so many rows, for these steps.
    pub fn new(rows: u32, segment: &Segment, locals: &[usize], enters: usize) -> Self {
        let concerned = locals.iter().filter(|i| **i >= enters);
        let empty = |i: &usize| match &segment.steps[*i].step {
            Step::Decide(Decide { gives: Gives::Splits(_), .. }) => (*i, Verdict::Splits(vec![0; rows as usize])),
            _ => (*i, Verdict::Rejects(BTreeMap::new())),
        };
        Self { rows, entries: concerned.map(empty).collect() }
    }

    fn rejects(&mut self, step: usize, rows: &[u64], codes: &UInt32Array) {
        let Some(Verdict::Rejects(by_code)) = self.entries.get_mut(&step) else { return };
        for (row, code) in rows.iter().zip(codes.iter()) {
            if let Some(code) = code {
                by_code.entry(code).or_insert_with(RoaringBitmap::new).insert(*row as u32);
            }
        }
    }

    fn splits(&mut self, step: usize, rows: &[u64], codes: &UInt8Array) -> Result<()> {
        if codes.null_count() > 0 {
            return Err(Error::internal("a row got no split"));
        }
        let Some(Verdict::Splits(all)) = self.entries.get_mut(&step) else { return Ok(()) };
        for (row, code) in rows.iter().zip(codes.values()) {
            match all.get_mut(*row as u32 as usize) {
                Some(slot) => *slot = *code,
                None => return Err(Error::internal(format!("row {} lies outside its unit of {} rows", *row as u32, self.rows))),
            }
        }
        Ok(())
    }

    /// What was decided.
    pub fn finish(self) -> UnitVerdict {
        UnitVerdict { entries: self.entries.into_iter().map(|(i, v)| (i as u32, v)).collect() }
    }
}
