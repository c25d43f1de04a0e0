//! The passes of a segment, one after another, each with a checkpoint.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::prelude::{DataFrame, SessionContext};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::accounts::Accounts;
use super::decide::{decide, read_through};
use super::fits::{self, learn};
use super::rows::{Live, RowsTable, View};
use crate::crypt::Vault;
use crate::dataset::manifest::Rows;
use crate::error::{Error, Result};
use crate::plan::{Pass, PassKind, Segment};
use crate::quality::report::Warning;
use crate::sink::shard::{ShardOptions, ShardWriter};
use crate::source::{Found, Source, open_shard};
use crate::spec::pipeline::{SinkSpec, SourceSpec};
use crate::spec::stores::REQUESTS;
use crate::stages::step::{Decide, FitResult, Fits, How, Reshape, Scope, Step};
use crate::storage::{Location, again};

/// Rows of a file in which a reshape's result is kept: a unit each.
const PART_ROWS: u64 = 1 << 20;

/// A segment after its passes.
pub struct Ran {
    /// The segment, with all that was learned and decided.
    pub live: Live,
    /// Its row accounts.
    pub accounts: Accounts,
    /// Its new rows, where it ends in a reshape.
    pub reshaped: Option<Source>,
    /// What its passes found odd.
    pub remarks: Vec<Warning>,
}

/// A finished pass's checkpoint.
#[derive(Default, Serialize, Deserialize)]
struct Done {
    fits: Fits,
    remarks: Vec<Warning>,
}

/// Runs all passes of a segment but its delivery.
pub async fn run(mut live: Live, at: &Location, session: &SessionContext) -> Result<Ran> {
    let segment = live.segment.clone();
    let mut remarks = Vec::new();
    for (number, pass) in segment.passes.iter().enumerate() {
        if matches!(pass.kind, PassKind::Deliver | PassKind::Reshape(_)) && pass.locals.is_empty() {
            break;
        }
        remarks.extend(one(&mut live, number, pass, at, session).await?);
    }
    let accounts = Accounts::of(&live).await?;
    let reshaped = match segment.passes.last() {
        Some(Pass { kind: PassKind::Reshape(step), upto, .. }) => Some(reshape(&live, *step, *upto, at, session).await?),
        _ => None,
    };
    Ok(Ran { live, accounts, reshaped, remarks })
}

/// Runs a pass, or takes up what an earlier run left of it; gives its remarks.
async fn one(live: &mut Live, number: usize, pass: &Pass, at: &Location, session: &SessionContext) -> Result<Vec<Warning>> {
    let (rows_layer, table_layer) = (format!("{number:03}-rows"), format!("{number:03}-table"));
    let checkpoint = at.child(&format!("pass-{number:03}.json"));
    let label = title(&live.segment, pass);
    let done = match checkpoint.read().await? {
        Some(bytes) => {
            tracing::info!(pass = number, "taken up: {label}");
            serde_json::from_slice::<Done>(&live.vault.unseal(&bytes)?)?
        }
        None => {
            tracing::info!(pass = number, "{label}");
            let rows: u64 = live.units_before(pass.upto).map(|u| u64::from(u.rows)).sum();
            live.progress.begin(label.as_str(), rows * readings(&live.segment, pass), 0);
            let view = live.view(pass.upto, (!pass.locals.is_empty()).then_some(rows_layer.as_str()));
            let done = match &pass.kind {
                PassKind::Fit(steps) => learn(&view, steps, session).await.map(|fits| learned(&live.segment, steps, fits)),
                PassKind::Decide(step) => decide(&view, *step, &table_layer, session).await.map(|said| decided(&live.segment, *step, said)),
                PassKind::Settle | PassKind::Reshape(_) | PassKind::Deliver => settle(&view).await.map(|()| Done::default()),
            };
            let done = done.map_err(|e| e.at(format!("pass `{label}`")))?;
            done.remarks.iter().for_each(|r| tracing::warn!(stage = r.about, "{}", r.message));
            checkpoint.write(live.vault.seal(serde_json::to_vec(&done)?)?).await?;
            done
        }
    };
    if !pass.locals.is_empty() {
        live.layers.push((rows_layer, pass.upto));
        live.decided.extend(pass.locals.iter().copied());
    }
    if let PassKind::Decide(step) = pass.kind {
        live.layers.push((table_layer, pass.upto));
        live.decided.insert(step);
    }
    if !done.fits.is_empty() {
        let mut fits = live.fits.as_ref().clone();
        fits.extend(done.fits);
        live.fits = Arc::new(fits);
    }
    Ok(done.remarks)
}

fn decided(segment: &Segment, step: usize, said: Vec<String>) -> Done {
    let about = &segment.steps[step].label;
    let remarks = said.into_iter().map(|message| Warning { about: about.clone(), message });
    Done { fits: Fits::new(), remarks: remarks.collect() }
}

/// What was learned, with a remark on each column that had nothing to learn from.
fn learned(segment: &Segment, steps: &[usize], fits: Fits) -> Done {
    let mut remarks = Vec::new();
    for planned in steps.iter().map(|i| &segment.steps[*i]) {
        let Step::Fit(fit) = &planned.step else { continue };
        if fits.get(&fit.key).is_some_and(FitResult::is_empty) {
            let rows = if fit.on == Scope::Train { "no row of `train`" } else { "no row" };
            let message = format!("{rows} has a value in `{}`, so nothing was learned from it", fit.column);
            let remark = Warning { about: planned.label.clone(), message };
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
        }
    }
    Done { fits, remarks }
}

/// How often a pass reads its rows, as far as that is known beforehand.
fn readings(segment: &Segment, pass: &Pass) -> u64 {
    match &pass.kind {
        PassKind::Fit(steps) => fits::readings(steps.iter().map(|i| &segment.steps[*i].step), !pass.locals.is_empty()),
        PassKind::Decide(step) => match &segment.steps[*step].step {
            Step::Decide(Decide { how: How::Table(decision), .. }) => decision.readings(),
            _ => 1,
        },
        PassKind::Settle | PassKind::Reshape(_) | PassKind::Deliver => 1,
    }
}

/// What a pass does, in words.
pub fn title(segment: &Segment, pass: &Pass) -> String {
    let label = |i: &usize| segment.steps[*i].label.clone();
    match &pass.kind {
        PassKind::Fit(steps) => {
            let mut labels: Vec<String> = steps.iter().map(label).collect();
            labels.dedup();
            format!("learn {}", labels.join(", "))
        }
        PassKind::Decide(step) => format!("decide {}", label(step)),
        PassKind::Settle => {
            let mut labels: Vec<String> = pass.locals.iter().map(label).collect();
            labels.dedup();
            format!("decide {}", labels.join(", "))
        }
        PassKind::Reshape(step) => format!("reshape {}", label(step)),
        PassKind::Deliver => "deliver".to_owned(),
    }
}

/// Makes row decisions by reading all units, each thread its own.
async fn settle(view: &View) -> Result<()> {
    let mut tasks = JoinSet::new();
    for units in view.live.deal(view.upto, view.live.threads) {
        let view = view.clone();
        tasks.spawn(async move { read_through(&view, units).await });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Makes a segment's new rows and keeps them in staging, in files of a unit each.
async fn reshape(live: &Live, step: usize, upto: usize, at: &Location, session: &SessionContext) -> Result<Source> {
    let planned = &live.segment.steps[step];
    let Step::Reshape(Reshape { output, work, .. }) = &planned.step else { return Err(Error::internal("a reshape without its step")) };
    let checkpoint = at.child("reshaped.json");
    let parts: Vec<String> = match checkpoint.read().await? {
        Some(bytes) => serde_json::from_slice(&bytes)?,
        None => {
            let label = format!("reshape {}", planned.label);
            tracing::info!("{label}");
            live.progress.begin(label.as_str(), live.units.iter().map(|u| u64::from(u.rows)).sum(), 0);
            let make = || async {
                let rows = session.read_table(Arc::new(RowsTable::new(live.view(upto, None), true)))?;
                let result = work.reshape(rows, session).await.map_err(|e| e.at(format!("stage `{}`", planned.label)))?;
                keep(result, output, at, &live.vault).await
            };
            let parts = again(&label, make).await?;
            checkpoint.write(serde_json::to_vec(&parts)?).await?;
            parts
        }
    };
    let keys = live.vault.staging_keys();
    let mut shards = Vec::new();
    for path in parts {
        let location = at.child(&path);
        let meta =
            location.head().await?.ok_or_else(|| Error::storage("a staged file vanished").at(location.display()).hint("run again"))?;
        shards.push(open_shard(&Found::own(path, location, meta.size), &keys).await?);
    }
    let spec: SourceSpec = serde_json::from_value(serde_json::json!({ "uri": "", "hive": false }))?;
    let mut source = Source::new(&planned.label, &spec, shards, Vec::new())?;
    source.schema = output.clone();
    Ok(source)
}

async fn keep(result: DataFrame, output: &SchemaRef, at: &Location, vault: &Vault) -> Result<Vec<String>> {
    let sink: SinkSpec = serde_json::from_value(serde_json::json!({ "uri": "", "compression": "lz4" }))?;
    let options = ShardOptions::new(output, &sink)?.encrypted(vault.of_staging()?);
    let mut stream = result.execute_stream().await?;
    let mut parts = Vec::new();
    let mut open: Option<ShardWriter> = None;
    while let Some(batch) = stream.try_next().await? {
        let mut batch = conform(&batch, output)?;
        while batch.num_rows() > 0 {
            let writer = match &mut open {
                Some(writer) => writer,
                none => {
                    parts.push(format!("reshaped-{:06}.parquet", parts.len()));
                    none.insert(ShardWriter::begin(at.child(&parts[parts.len() - 1]), &options)?)
                }
            };
            let now = ((PART_ROWS - writer.rows()) as usize).min(batch.num_rows());
            writer.write(batch.slice(0, now)).await?;
            batch = batch.slice(now, batch.num_rows() - now);
            if writer.rows() == PART_ROWS
                && let Some(full) = open.take()
            {
                full.finish().await?;
            }
        }
    }
    match open {
        Some(writer) => {
            writer.finish().await?;
        }
        // No rows at all: an empty file still tells the columns.
        None if parts.is_empty() => {
            parts.push("reshaped-000000.parquet".to_owned());
            ShardWriter::begin(at.child(&parts[0]), &options)?.finish().await?;
        }
        None => {}
    }
    Ok(parts)
}

/// A batch with exactly the columns and types planned.
fn conform(batch: &arrow::array::RecordBatch, output: &arrow::datatypes::SchemaRef) -> Result<arrow::array::RecordBatch> {
    let columns = output.fields().iter().map(|f| {
        let column = batch.column_by_name(f.name()).ok_or_else(|| Error::internal(format!("the result has no column `{}`", f.name())))?;
        Ok(arrow::compute::cast(column, f.data_type())?)
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(arrow::array::RecordBatch::try_new_with_options(output.clone(), columns, &options)?)
}

/// Enters what a reshape did to the number of rows.
pub fn enter_reshape(segment: &Segment, before: u64, after: u64, rows: &mut Rows) {
    let Some(label) = segment.steps.last().map(|s| s.label.clone()) else { return };
    if after > before {
        *rows.added.entry(label).or_default() += after - before;
    } else if after < before {
        *rows.rejected.entry(label).or_default().entry("not in the result".to_owned()).or_default() += before - after;
    }
}

/// Removes all objects below a location.
pub async fn sweep(at: &Location) -> Result<()> {
    let found = at.list().await?;
    stream::iter(found)
        .map(|meta| async move {
            match at.store.delete(&meta.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(e) => Err(Error::from(e)),
            }
        })
        .buffer_unordered(REQUESTS)
        .try_collect()
        .await
}
