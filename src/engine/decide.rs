//! Decision passes: a table decision's result is scattered into verdicts, one a unit.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{UInt32Type, UInt64Type};
use datafusion::logical_expr::{ident, lit};
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt, stream};
use roaring::RoaringBitmap;

use super::rows::{Live, RowsTable, View};
use super::verdict::{UnitState, UnitVerdict, Verdict};
use crate::error::{Error, Result};
use crate::plan::PlanStep;
use crate::stages::step::{CODE, Decide, Gives, How, ROW, Remarks, SPLIT, Scope, Step, TableContext};

/// Files read or written at once.
const FILES: usize = 16;

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
    let codes = scatter(live, answer, &decision.gives, label).await?;
    settle_missing(view).await?;
    let units: Vec<u32> = live.units_before(view.upto).map(|u| u.id).collect();
    stream::iter(units)
        .map(|unit| write_verdict(view, step, decision, &codes, train, unit, layer))
        .buffer_unordered(FILES)
        .try_collect::<()>()
        .await?;
    Ok(remarks.take())
}

/// Which rows a decision looks at: those of `train`, or all.
fn train_only(live: &Live, decision: &Decide) -> Option<u8> {
    live.segment.train().filter(|_| decision.on == Scope::Train && !matches!(decision.gives, Gives::Splits(_)))
}

/// The answer's codes by unit and row, one more than the code; 0 for rows that the answer does not name.
async fn scatter(live: &Live, answer: datafusion::prelude::DataFrame, gives: &Gives, label: &str) -> Result<Vec<Vec<u32>>> {
    let mut codes: Vec<Vec<u32>> = live.units.iter().map(|u| vec![0; u.rows as usize]).collect();
    let survivors = matches!(gives, Gives::Survivors(_));
    let mut stream = answer.execute_stream().await?;
    while let Some(batch) = stream.try_next().await? {
        let missing = |name: &str| Error::internal(format!("stage `{label}` gave no column `{name}`"));
        let rows = batch.column_by_name(ROW).ok_or_else(|| missing(ROW))?.as_primitive::<UInt64Type>();
        let given = match survivors {
            true => None,
            false => Some(batch.column_by_name(CODE).ok_or_else(|| missing(CODE))?.as_primitive::<UInt32Type>()),
        };
        for (i, row) in rows.values().iter().enumerate() {
            let slot = codes.get_mut((row >> 32) as usize).and_then(|unit| unit.get_mut(*row as u32 as usize));
            let slot = slot.ok_or_else(|| Error::internal(format!("stage `{label}` named a row that there is not: {row}")))?;
            *slot = given.map_or(0, |g| g.value(i)) + 1;
        }
    }
    Ok(codes)
}

/// An engine may skip rows that cannot matter to its answer; row decisions on the way are then made here.
async fn settle_missing(view: &View) -> Result<()> {
    let Some(layer) = &view.record else { return Ok(()) };
    let mut missing = Vec::new();
    for unit in view.live.units_before(view.upto) {
        if view.live.verdicts.read(layer, unit.id).await?.is_none() {
            missing.push(unit.id);
        }
    }
    read_through(view, missing).await
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
    codes: &[Vec<u32>],
    train: Option<u8>,
    unit: u32,
    layer: &str,
) -> Result<()> {
    let live = &view.live;
    let mut state = live.state(unit).await?;
    if let Some(local) = &view.record {
        state.apply(live.verdicts.read(local, unit).await?.unwrap_or_default());
    }
    let verdict = verdict(&state, &decision.gives, &codes[unit as usize], train)
        .map_err(|row| Error::internal(format!("stage `{}` left out row {row} of unit {unit}", live.segment.steps[step].label)))?;
    live.verdicts.write(layer, unit, &UnitVerdict { entries: vec![(step as u32, verdict)] }).await
}

/// The verdict of one unit out of its codes, or the row that should have had one.
fn verdict(state: &UnitState, gives: &Gives, codes: &[u32], train: Option<u8>) -> Result<Verdict, usize> {
    let concerned = |row: &usize| match (train, &state.splits) {
        (Some(train), Some(splits)) => splits[*row] == train,
        _ => true,
    };
    let alive = state.alive.set_indices().filter(concerned);
    Ok(match gives {
        Gives::Rejects(_) | Gives::Survivors(_) => {
            let survivors = matches!(gives, Gives::Survivors(_));
            let mut rejected: BTreeMap<u32, RoaringBitmap> = BTreeMap::new();
            for row in alive.filter(|row| (codes[*row] == 0) == survivors) {
                rejected.entry(codes[row].saturating_sub(1)).or_default().insert(row as u32);
            }
            Verdict::Rejects(rejected)
        }
        Gives::Splits(_) => {
            let mut splits = vec![0_u8; codes.len()];
            for row in alive {
                splits[row] = codes[row].checked_sub(1).ok_or(row)? as u8;
            }
            Verdict::Splits(splits)
        }
        // A code is a number of copies; 1 is the rule and is not kept.
        Gives::Copies => Verdict::Copies(alive.filter(|row| codes[*row] > 2).map(|row| (row as u32, codes[row] - 1)).collect()),
    })
}
