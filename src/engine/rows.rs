//! The rows of a segment as they are before one of its steps: what every pass reads.
//!
//! ```text
//!  unit ─ read needed columns ─▶ + _row, _split ─▶ drop what is rejected ─▶ column steps, row decisions ─▶ batch
//! ```
//!
//! DataFusion sees it as a table ([`RowsTable`]); which columns it asks for decides what is read.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, UInt8Array, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{Stream, stream};
use tokio::task::JoinSet;

use super::opener::{Opened, Opener};
use super::program::{Program, Recorder, arrange, row_field, split_field};
use super::verdict::{UnitState, Verdicts};
use crate::crypt::Vault;
use crate::error::{Error, Result};
use crate::plan::prefix::Prefix;
use crate::plan::{Segment, locals_before};
use crate::progress::Progress;
use crate::source::{Unit, UnitReader};
use crate::stages::step::{Decide, Fits, Gives, ROW, SPLIT, Step};

/// A segment while it runs: its plan, its units and what is known so far.
#[derive(Debug, Clone)]
pub struct Live {
    /// The plan.
    pub segment: Arc<Segment>,
    /// The units, numbered by their place here.
    pub units: Arc<Vec<Unit>>,
    /// What the fits learned so far.
    pub fits: Arc<Fits>,
    /// The layers of verdicts that are complete, in order, each with the step below which it decided.
    pub layers: Vec<(String, usize)>,
    /// The steps decided in those layers.
    pub decided: BTreeSet<usize>,
    /// Where verdicts lie.
    pub verdicts: Verdicts,
    /// Rows in a batch.
    pub batch_rows: usize,
    /// Partitions that DataFusion sees.
    pub threads: usize,
    /// What is being done.
    pub progress: Arc<Progress>,
    /// The keys of what is written.
    pub vault: Arc<Vault>,
    /// Paths of shards that turned out to be damaged while they were read.
    pub damaged: Arc<std::sync::Mutex<Vec<(String, String, String)>>>,
}

impl Live {
    /// The segment's rows before step `upto`.
    pub fn view(&self, upto: usize, record: Option<&str>) -> View {
        View {
            live: self.clone(),
            upto,
            record: record.map(str::to_owned),
            locals: locals_before(&self.segment.steps, upto, &self.decided),
        }
    }

    /// Whether the split is known before a step.
    fn splits_known(&self, upto: usize) -> bool {
        self.segment.steps[..upto].iter().any(|s| matches!(s.step, Step::Decide(Decide { gives: Gives::Splits(_), .. })))
    }

    /// Rows of each unit.
    pub fn unit_rows(&self) -> Vec<u32> {
        self.units.iter().map(|u| u.rows).collect()
    }

    /// What is known of a unit after all complete layers.
    pub async fn state(&self, unit: u32) -> Result<UnitState> {
        let unit = &self.units[unit as usize];
        let concerned = self.layers.iter().filter(|(_, upto)| unit.enters <= *upto).map(|(name, _)| name.as_str());
        self.verdicts.state(unit.id, unit.rows, concerned).await
    }

    /// The units whose rows have come in before a step.
    pub fn units_before(&self, upto: usize) -> impl Iterator<Item = &Unit> {
        self.units.iter().filter(move |u| u.enters <= upto)
    }

    /// The units dealt out to partitions, evenly by rows; which partition reads a unit changes nothing in the result.
    pub fn deal(&self, upto: usize, parts: usize) -> Vec<Vec<u32>> {
        let mut dealt: Vec<(u64, Vec<u32>)> = vec![(0, Vec::new()); parts.max(1)];
        let mut by_size: Vec<&Unit> = self.units_before(upto).collect();
        by_size.sort_by_key(|u| (std::cmp::Reverse(u.rows), u.id));
        for unit in by_size {
            if let Some(least) = dealt.iter_mut().min_by_key(|(rows, _)| *rows) {
                least.0 += u64::from(unit.rows);
                least.1.push(unit.id);
            }
        }
        let sorted = dealt.into_iter().map(|(_, mut units)| {
            units.sort_unstable();
            units
        });
        sorted.collect()
    }
}

/// The rows of a segment before a step, with the row decisions that are still to be made on the way.
#[derive(Debug, Clone)]
pub struct View {
    /// The segment.
    pub live: Live,
    /// The step before which the rows are seen.
    pub upto: usize,
    /// The layer in which row decisions on the way are recorded.
    pub record: Option<String>,
    /// Those row decisions.
    pub locals: Vec<usize>,
}

impl View {
    /// All columns that can be asked for: the visible ones, `_row`, and `_split` where it is known.
    pub fn schema(&self) -> SchemaRef {
        let steps = &self.live.segment.steps;
        let visible = if self.upto == 0 { &self.live.segment.input } else { &steps[self.upto - 1].after };
        let mut fields: Vec<Field> = visible.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        fields.push(row_field());
        if self.live.splits_known(self.upto) {
            fields.push(split_field());
        }
        Arc::new(Schema::new(fields))
    }

    /// Reads the columns asked for, unit by unit; the reading counts in the progress.
    pub fn read(&self, units: Vec<u32>, schema: SchemaRef) -> Result<Rows> {
        let visible = schema.fields().iter().map(|f| f.name().clone()).filter(|n| n != ROW && n != SPLIT);
        let prefix = Prefix::new(&self.live.segment, self.upto, visible, &self.locals);
        let program = Arc::new(Program::bind(&self.live.segment, &prefix, &self.live.fits)?);
        let splits = self.live.splits_known(self.upto);
        self.live.progress.reading(units.iter().map(|u| u64::from(self.live.units[*u as usize].rows)).sum());
        let units = Opener::new(self.live.clone(), Arc::new(prefix), units, false);
        Ok(Rows { view: self.clone(), schema, program, splits, units, open: None, records: JoinSet::new() })
    }
}

/// Verdicts that are being written while the next unit is read.
const RECORDS: usize = 16;

/// A reading of some units.
pub struct Rows {
    view: View,
    schema: SchemaRef,
    program: Arc<Program>,
    splits: bool,
    units: Opener,
    open: Option<OpenUnit>,
    records: JoinSet<Result<()>>,
}

struct OpenUnit {
    unit: Unit,
    reader: UnitReader,
    state: UnitState,
    record: Recorder,
}

impl Rows {
    /// The next batch with its unit, in row order within a unit. A batch may be empty.
    pub async fn next(&mut self) -> Result<Option<(u32, RecordBatch)>> {
        loop {
            if self.open.is_none() {
                let Some(Opened { unit, state, reader: Some(reader) }) = self.units.next().await? else {
                    return self.recorded(0).await.map(|()| None);
                };
                let record = Recorder::new(unit.rows, &self.view.live.segment, &self.view.locals, unit.enters);
                self.open = Some(OpenUnit { unit, reader, state, record });
            }
            let Some(open) = &mut self.open else { return Ok(None) };
            let read = open.reader.next().await.inspect_err(|e| note_damage(&self.view.live, &open.unit, e))?;
            match read {
                Some((first, batch)) => {
                    self.view.live.progress.add(batch.num_rows() as u64, 0);
                    let batch = identify(batch, &open.unit, first, &open.state, self.splits)?;
                    let unit = &open.unit;
                    let batch = self.program.run(batch, unit.enters, &mut open.record).map_err(|e| located(unit, e))?;
                    return Ok(Some((open.unit.id, arrange(&batch, &self.schema)?)));
                }
                None => self.end().await?,
            }
        }
    }

    /// A unit was read whole: its verdict is written.
    async fn end(&mut self) -> Result<()> {
        if let (Some(open), Some(layer)) = (self.open.take(), &self.view.record) {
            let (verdicts, layer) = (self.view.live.verdicts.clone(), layer.clone());
            self.records.spawn(async move { verdicts.write(&layer, open.unit.id, &open.record.finish()).await });
        }
        self.recorded(RECORDS).await
    }

    /// Waits until at most so many verdicts are being written.
    async fn recorded(&mut self, at_most: usize) -> Result<()> {
        while self.records.len() > at_most
            && let Some(done) = self.records.join_next().await
        {
            done??;
        }
        Ok(())
    }

    /// The reading as a stream of batches.
    pub fn into_stream(self) -> impl Stream<Item = Result<RecordBatch, DataFusionError>> + Send {
        stream::try_unfold(self, |mut rows| async move {
            let next = rows.next().await.map_err(DataFusionError::from)?;
            Ok(next.map(|(_, batch)| (batch, rows)))
        })
    }
}

/// Opens a unit for the columns that the prefix needs where the unit comes in.
pub fn open_at(live: &Live, unit: &Unit, prefix: &Prefix) -> Result<UnitReader> {
    let steps = &live.segment.steps;
    let visible = if unit.enters == 0 { &live.segment.input } else { &steps[unit.enters - 1].after };
    let needed = prefix.needed.get(unit.enters);
    let fields = visible.fields().iter().filter(|f| needed.is_some_and(|n| n.contains(f.name()))).map(|f| f.as_ref().clone());
    UnitReader::open(unit, fields.collect(), live.batch_rows)
}

/// An error that a unit's rows led to, with their shard, and the row in it where one is to blame.
pub fn located(unit: &Unit, e: Error) -> Error {
    let shard = format!("`{}` of source `{}`", unit.shard.path, unit.source.name);
    match e.row() {
        Some(row) => e.within(format!("row {} (from 0) of {shard}", unit.shard_row(row as u32))),
        None => e.within(shard),
    }
}

/// Remembers a damaged shard, so that a run may leave it out where the spec says so.
pub fn note_damage(live: &Live, unit: &Unit, e: &Error) {
    if e.kind() == crate::error::Kind::Input {
        let entry = (unit.source.name.clone(), unit.shard.path.clone(), e.message().to_owned());
        live.damaged.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(entry);
    }
}

/// Adds `_row` and `_split`, drops the rows that are rejected, repeats those that are copied.
pub fn identify(batch: RecordBatch, unit: &Unit, first: u32, state: &UnitState, splits: bool) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let (schema, mut arrays, _) = batch.into_parts();
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    let begin = unit.row_id(first);
    arrays.push(Arc::new(UInt64Array::from_iter_values(begin..begin + rows as u64)));
    fields.push(row_field());
    if let (true, Some(codes)) = (splits, &state.splits) {
        arrays.push(Arc::new(UInt8Array::from(codes[first as usize..first as usize + rows].to_vec())));
        fields.push(split_field());
    }
    let mut batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
    let alive = state.alive.slice(first as usize, rows);
    if !state.copies.is_empty() {
        let repeated = (0..rows as u32).filter(|i| alive.value(*i as usize)).flat_map(|i| {
            let copies = state.copies.get(&(first + i)).copied().unwrap_or(1);
            std::iter::repeat_n(i, copies as usize)
        });
        return Ok(arrow::compute::take_record_batch(&batch, &arrow::array::UInt32Array::from_iter_values(repeated))?);
    }
    if alive.count_set_bits() < rows {
        batch = filter_record_batch(&batch, &BooleanArray::new(alive, None))?;
    }
    Ok(batch)
}

/// A view as a table of DataFusion's.
#[derive(Clone)]
pub struct RowsTable {
    view: View,
    schema: SchemaRef,
}

impl RowsTable {
    /// The table of a view; with `hidden` it shows `_row` and `_split` too.
    pub fn new(view: View, hidden: bool) -> Self {
        let all = view.schema();
        let shown = all.fields().iter().filter(|f| hidden || (f.name() != ROW && f.name() != SPLIT)).cloned();
        let schema = Arc::new(Schema::new(shown.collect::<Vec<_>>()));
        Self { view, schema }
    }
}

impl fmt::Debug for RowsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowsTable(before step {})", self.view.upto)
    }
}

#[async_trait]
impl TableProvider for RowsTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        let parts = self.view.live.deal(self.view.upto, self.view.live.threads);
        let partitions = parts
            .into_iter()
            .map(|units| Arc::new(Partition { view: self.view.clone(), schema: schema.clone(), units }) as Arc<dyn PartitionStream>);
        // A reading that records decisions must reach the end of every unit.
        let limit = limit.filter(|_| self.view.record.is_none());
        Ok(Arc::new(StreamingTableExec::try_new(schema.clone(), partitions.collect(), None, None, false, limit)?))
    }
}

struct Partition {
    view: View,
    schema: SchemaRef,
    units: Vec<u32>,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} units before step {}", self.units.len(), self.view.upto)
    }
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        match self.view.read(self.units.clone(), self.schema.clone()) {
            Ok(rows) => Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), Box::pin(rows.into_stream()))),
            Err(e) => Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream::iter([Err(e.into())]))),
        }
    }
}
