//! Decision passes: a table decision's result is scattered into verdicts, one a unit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{UInt32Type, UInt64Type};
use datafusion::logical_expr::{ident, lit};
use datafusion::prelude::{DataFrame, SessionContext};
use futures::{StreamExt, TryStreamExt, stream};
use roaring::RoaringBitmap;
use tokio::task::JoinSet;

use super::rows::{Live, RowsTable, View};
use super::verdict::{UnitState, UnitVerdict, Verdict};
use crate::error::{Error, Result};
use crate::plan::PlanStep;
use crate::spec::stores::REQUESTS;
use crate::stages::step::{CODE, Decide, Gives, How, ROW, Remarks, SPLIT, Scope, Step, TableContext};

/// Makes a table decision and writes its layer; gives the stage's remarks.
pub async fn decide(view: &View, step: usize, layer: &str, session: &SessionContext) -> Result<Vec<String>> {
    let live = &view.live;
    let PlanStep { step: Step::Decide(decision), label, .. } = &live.segment.steps[step] else {
        return Err(Error::internal("a decision pass without a decision"));
    };
    let How::Table(how) = &decision.how else { return Err(Error::internal("a row decision needs no pass")) };
    let train = train_only(live, decision);
    let mut rows = session.read_table(Arc::new(RowsTable::new(view.clone(), true)))?;
    if let Some(train) = train {
        rows = rows.filter(ident(SPLIT).eq(lit(train)))?;
    }
    let columns = decision.reads.iter().map(ident).chain([ident(ROW)]);
    let rows = rows.select(columns.collect::<Vec<_>>())?;
    let remarks = Remarks::default();
    let unit_rows = Arc::new(live.unit_rows());
    let cx = TableContext { session: session.clone(), fits: live.fits.clone(), unit_rows, remarks: remarks.clone() };
    let answer = how.decide(rows, &cx).await?;
    let answer = scatter(live, answer, &decision.gives, label).await?;
    settle_missing(view).await?;
    let units: Vec<u32> = live.units_before(view.upto).map(|u| u.id).collect();
    stream::iter(units)
        .map(|unit| write_verdict(view, step, decision, &answer, train, unit, layer))
        .buffer_unordered(REQUESTS)
        .try_collect::<()>()
        .await?;
    Ok(remarks.take())
}

/// Which rows a decision looks at: those of `train`, or all.
fn train_only(live: &Live, decision: &Decide) -> Option<u8> {
    live.segment.train().filter(|_| decision.on == Scope::Train && !matches!(decision.gives, Gives::Splits(_)))
}

/// A decision's answer, by unit and row.
enum Answer {
    /// The rows that were named: a bit each.
    Named(Vec<Bits>),
    /// One more than each row's code; 0 for rows that were not named.
    Coded(Vec<Vec<u32>>),
}

/// Bits that many threads may set.
struct Bits {
    words: Vec<AtomicU64>,
    len: usize,
}

impl Bits {
    fn new(len: usize) -> Self {
        Self { words: (0..len.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(), len }
    }

    /// Sets a bit; `false` where there is none of that number.
    fn set(&self, at: usize) -> bool {
        if at < self.len {
            self.words[at / 64].fetch_or(1 << (at % 64), Ordering::Relaxed);
        }
        at < self.len
    }

    fn to_buffer(&self) -> BooleanBuffer {
        BooleanBuffer::collect_bool(self.len, |i| self.words[i / 64].load(Ordering::Relaxed) >> (i % 64) & 1 == 1)
    }
}

/// Takes in the answer. Where it only names rows, each of the engine's partitions is read by a task of its own.
async fn scatter(live: &Live, answer: DataFrame, gives: &Gives, label: &str) -> Result<Answer> {
    if !matches!(gives, Gives::Survivors(_)) {
        return coded(live, answer, label).await.map(Answer::Coded);
    }
    let bits: Arc<Vec<Bits>> = Arc::new(live.units.iter().map(|u| Bits::new(u.rows as usize)).collect());
    let mut tasks = JoinSet::new();
    for mut stream in answer.execute_stream_partitioned().await? {
        let (bits, label) = (bits.clone(), label.to_owned());
        tasks.spawn(async move {
            while let Some(batch) = stream.try_next().await? {
                let rows = column(&batch, ROW, &label)?.as_primitive::<UInt64Type>();
                let named = |row: &&u64| bits.get((**row >> 32) as usize).is_some_and(|unit| unit.set(**row as u32 as usize));
                if let Some(row) = rows.values().iter().find(|row| !named(row)) {
                    return Err(no_such_row(*row, &label));
                }
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let bits = Arc::into_inner(bits).ok_or_else(|| Error::internal("a reader of an answer did not end"))?;
    Ok(Answer::Named(bits))
}

async fn coded(live: &Live, answer: DataFrame, label: &str) -> Result<Vec<Vec<u32>>> {
    let mut codes: Vec<Vec<u32>> = live.units.iter().map(|u| vec![0; u.rows as usize]).collect();
    let mut stream = answer.execute_stream().await?;
    while let Some(batch) = stream.try_next().await? {
        let rows = column(&batch, ROW, label)?.as_primitive::<UInt64Type>();
        let given = column(&batch, CODE, label)?.as_primitive::<UInt32Type>();
        for (row, code) in rows.values().iter().zip(given.values()) {
            let slot = codes.get_mut((row >> 32) as usize).and_then(|unit| unit.get_mut(*row as u32 as usize));
            *slot.ok_or_else(|| no_such_row(*row, label))? = code + 1;
        }
    }
    Ok(codes)
}

fn column<'a>(batch: &'a RecordBatch, name: &str, label: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::internal(format!("stage `{label}` gave no column `{name}`")))
}

fn no_such_row(row: u64, label: &str) -> Error {
    Error::internal(format!("stage `{label}` named a row that there is not: {row}"))
}

/// An engine may skip rows that cannot matter to its answer; row decisions on the way are then made here.
async fn settle_missing(view: &View) -> Result<()> {
    let Some(layer) = &view.record else { return Ok(()) };
    let written = view.live.verdicts.units(layer).await?;
    let missing = view.live.units_before(view.upto).map(|u| u.id).filter(|unit| !written.contains(unit));
    read_through(view, missing.collect()).await
}

/// Reads units for the sake of the row decisions alone.
pub async fn read_through(view: &View, units: Vec<u32>) -> Result<()> {
    let nothing = Arc::new(arrow::datatypes::Schema::empty());
    let mut rows = view.read(units, nothing)?;
    while rows.next().await?.is_some() {}
    Ok(())
}

async fn write_verdict(
    view: &View,
    step: usize,
    decision: &Decide,
    answer: &Answer,
    train: Option<u8>,
    unit: u32,
    layer: &str,
) -> Result<()> {
    let live = &view.live;
    let mut state = live.state(unit).await?;
    if let Some(local) = &view.record {
        state.apply(live.verdicts.read(local, unit).await?.unwrap_or_default());
    }
    let verdict = match answer {
        Answer::Named(named) => survivors(&state, &named[unit as usize].to_buffer(), train),
        Answer::Coded(codes) => verdict(&state, &decision.gives, &codes[unit as usize], train)
            .map_err(|row| Error::internal(format!("stage `{}` left out row {row} of unit {unit}", live.segment.steps[step].label)))?,
    };
    live.verdicts.write(layer, unit, &UnitVerdict { entries: vec![(step as u32, verdict)] }).await
}

/// The rows that a decision looks at.
fn concerned(state: &UnitState, train: Option<u8>) -> BooleanBuffer {
    match (train, &state.splits) {
        (Some(train), Some(splits)) => &state.alive & &BooleanBuffer::collect_bool(splits.len(), |row| splits[row] == train),
        _ => state.alive.clone(),
    }
}

/// The verdict of one unit of which the rows that stay were named.
fn survivors(state: &UnitState, named: &BooleanBuffer, train: Option<u8>) -> Verdict {
    let rejected = &concerned(state, train) & &!named;
    let rejected: RoaringBitmap = rejected.set_indices_u32().collect();
    Verdict::Rejects(if rejected.is_empty() { BTreeMap::new() } else { BTreeMap::from([(0, rejected)]) })
}

/// The verdict of one unit out of its codes, or the row that should have had one.
fn verdict(state: &UnitState, gives: &Gives, codes: &[u32], train: Option<u8>) -> Result<Verdict, usize> {
    let concerned = concerned(state, train);
    let rows = concerned.set_indices();
    Ok(match gives {
        Gives::Rejects(_) | Gives::Survivors(_) => {
            let mut rejected: BTreeMap<u32, RoaringBitmap> = BTreeMap::new();
            for (row, code) in rows.filter_map(|row| Some((row, codes[row].checked_sub(1)?))) {
                rejected.entry(code).or_default().insert(row as u32);
            }
            Verdict::Rejects(rejected)
        }
        Gives::Splits(_) => {
            let mut splits = vec![0_u8; codes.len()];
            for row in rows {
                splits[row] = codes[row].checked_sub(1).ok_or(row)? as u8;
            }
            Verdict::Splits(splits)
        }
        // A code is a number of copies; 1 is the rule and is not kept.
        Gives::Copies => Verdict::Copies(rows.filter(|row| codes[*row] > 2).map(|row| (row as u32, codes[row] - 1)).collect()),
    })
}
