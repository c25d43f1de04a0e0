//! The report of a run: its result model filled from the manifest, the profiles and the shards just written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{cast, ident, lit};
use datafusion::prelude::{DataFrame, SessionContext};
use futures::TryStreamExt;
use indexmap::IndexMap;
use tokio::task::JoinSet;

use super::rows::{Live, RowsTable};
use super::run::idle;
use crate::crypt::Vault;
use crate::dataset::Manifest;
use crate::error::Result;
use crate::progress::Progress;
use crate::quality::html;
use crate::quality::leakage::{Leakage, leakage};
use crate::quality::profile::{TableProfile, TableSummary};
use crate::quality::report::{
    BadShard, FORMAT, LabelReport, LabelValue, Report, RowCounts, SourceReport, SplitReport, StageReport, Timing, Warning,
};
use crate::quality::withheld;
use crate::sink::deliver::Sampler;
use crate::source::{Found, Source, Sources, open_shard};
use crate::spec::Loaded;
use crate::spec::pipeline::{Profile, SourceSpec};
use crate::stages::step::{FitResult, SPLIT};
use crate::storage::Location;

/// Labels shown by value; the rest are put together.
const LABELS: usize = 20;

/// What the rows that come in look like: each thread profiles units of its own, and the units are merged in order.
pub async fn profile_input(live: &Live, profile: Profile) -> Result<Option<TableProfile>> {
    if profile == Profile::Off {
        return Ok(None);
    }
    let view = live.view(0, None);
    let schema = live.segment.input.clone();
    let mut tasks = JoinSet::new();
    for units in live.deal(0, live.threads) {
        let (view, schema) = (view.clone(), schema.clone());
        tasks.spawn(async move {
            let mut profiles = Vec::new();
            for unit in units {
                let mut rows = view.read(vec![unit], schema.clone())?;
                let (mut sampler, mut table) = (Sampler::new(profile), TableProfile::new(&schema));
                while let Some((_, batch)) = rows.next().await? {
                    sampler.pick(&batch).iter().try_for_each(|part| table.update(part))?;
                }
                profiles.push((unit, table));
            }
            Ok::<_, crate::error::Error>(profiles)
        });
    }
    let mut by_unit = BTreeMap::new();
    while let Some(done) = tasks.join_next().await {
        by_unit.extend(done??);
    }
    let mut whole = TableProfile::new(&live.segment.input);
    by_unit.values().try_for_each(|table| whole.merge(table))?;
    Ok(Some(whole))
}

/// What a report is built from.
pub struct Findings<'a> {
    /// The spec.
    pub loaded: &'a Loaded,
    /// The version about to be published.
    pub manifest: &'a Manifest,
    /// What was read.
    pub sources: &'a Sources,
    /// What came in.
    pub before: Option<TableSummary>,
    /// What goes out.
    pub after: Option<TableSummary>,
    /// What passes found odd.
    pub remarks: Vec<Warning>,
    /// The dataset.
    pub root: &'a Location,
    /// The run's session.
    pub session: &'a SessionContext,
    /// How long each phase took.
    pub progress: &'a Progress,
    /// What may be shown of which column.
    pub vault: &'a Vault,
    /// Fits that looked at columns that may not be shown, with those columns.
    pub learned_from: BTreeMap<String, String>,
}

/// Builds the report of a version whose shards are written.
pub async fn build(f: &Findings<'_>) -> Result<Report> {
    let m = f.manifest;
    let shows = |column: &str| f.vault.shows(column);
    let spec = &f.loaded.pipeline.report;
    let label = spec.label.clone().or_else(|| f.loaded.pipeline.feed.as_ref().and_then(|feed| feed.label.clone()));
    let known = |name: &String| m.schema.iter().any(|c| c.name == *name);
    let label = match label.filter(known) {
        Some(column) if shows(&column) => Some(balance(f, &column).await?),
        Some(column) => Some(withheld::label(balance(f, &column).await?)),
        None => None,
    };
    let keys: Vec<String> = spec.leakage_keys.iter().filter(|k| known(k)).cloned().collect();
    let leaks = if keys.is_empty() || m.splits.len() < 2 { Vec::new() } else { vec![leaked(f, &keys).await?] };
    let leaks = if keys.iter().all(|key| shows(key)) { leaks } else { leaks.into_iter().map(withheld::leakage).collect() };
    let summary = |table: &Option<TableSummary>| table.clone().map(|table| withheld::summary(table, shows));
    let mut report = Report {
        format: FORMAT.to_owned(),
        pipeline: m.name.clone(),
        description: f.loaded.pipeline.description.clone(),
        version: Some(m.version),
        hash: Some(m.hash.clone()),
        spec_hash: Some(m.spec_hash.clone()),
        seed: m.seed,
        feedline: m.run.feedline.clone(),
        started: Some(m.run.started.clone()),
        finished: Some(m.run.committed.clone()),
        sources: sources(f),
        rows: RowCounts {
            input: m.rows.input,
            added: m.rows.added.values().sum(),
            rejected: m.rows.rejected.values().flat_map(IndexMap::values).sum(),
            output: m.rows.output,
        },
        stages: stages(f),
        splits: m.rows.by_split.iter().map(|(name, rows)| split(name, *rows, m.rows.output)).collect(),
        label,
        leakage: leaks,
        columns: Report::columns_of(summary(&f.before).as_ref(), summary(&f.after).as_ref()),
        profile: Some(format!("{:?}", spec.profile).to_lowercase()),
        fits: m.fits.iter().map(|(key, fit)| (key.clone(), words_of(f, key, fit))).collect(),
        timings: f.progress.done(0).iter().map(|p| Timing { pass: p.label.clone(), seconds: p.elapsed.as_secs_f64() }).collect(),
        ..Default::default()
    };
    // The terminal shows the first few: a version without rows comes before everything else, then what stages could not do.
    report.warnings = report.find_warnings();
    let first = report.warnings.iter().take_while(|w| w.about == "rows").count();
    report.warnings.splice(first..first, f.remarks.iter().cloned());
    for source in f.sources.values() {
        let notes = source.notes.iter().map(|note| Warning { about: source.name.clone(), message: note.clone() });
        report.warnings.extend(notes);
    }
    report.warnings.extend(about_encryption(f));
    Ok(report)
}

/// What of encrypted columns lies in the clear.
fn about_encryption(f: &Findings<'_>) -> Vec<Warning> {
    let warning = |about: &str, message: &str| Warning { about: about.to_owned(), message: message.to_owned() };
    let learned: BTreeSet<&String> = f.learned_from.values().collect();
    let opened = f.vault.laid_open().map(|column| warning(column, "encrypted in the source, stored in the clear in the dataset"));
    let learned =
        learned.into_iter().map(|column| warning(column, "encrypted, but what stages learned from it stands in the manifest in the clear"));
    opened.chain(learned).collect()
}

/// Writes a report's files below the dataset.
pub async fn publish(root: &Location, version: u64, report: &Report) -> Result<String> {
    let folder = format!("_feedline/reports/{version:08}");
    root.child(&format!("{folder}/report.json")).write(report.to_json_pretty()?).await?;
    root.child(&format!("{folder}/report.html")).write(html::render(report)).await?;
    Ok(folder)
}

fn split(name: &str, rows: u64, all: u64) -> SplitReport {
    SplitReport { name: name.to_owned(), rows, share: rows as f64 / all.max(1) as f64 }
}

fn sources(f: &Findings<'_>) -> Vec<SourceReport> {
    let of = |s: &Arc<Source>| SourceReport {
        name: s.name.clone(),
        uri: s.uri.clone(),
        shards: s.shards.len() as u64,
        rows: s.rows(),
        bytes: s.bytes(),
        columns: s.schema.fields().len() as u64,
        bad_shards: s.bad.iter().map(|b| BadShard { path: b.path.clone(), reason: b.reason.clone(), action: b.action.clone() }).collect(),
    };
    f.sources.values().map(of).collect()
}

/// The rows' way through the stages, out of the manifest's accounts.
fn stages(f: &Findings<'_>) -> Vec<StageReport> {
    let rows = &f.manifest.rows;
    let before = rows.rejected.keys().chain(rows.added.keys()).filter(|l| l.starts_with("source "));
    let mut labels: Vec<(String, String, String)> = Vec::new();
    for label in before {
        if !labels.iter().any(|(l, _, _)| l == label) {
            labels.push((label.clone(), "source".to_owned(), "lines that could not be read".to_owned()));
        }
    }
    labels.extend(f.loaded.stages.iter().map(|s| (s.label.clone(), s.def.name.to_owned(), s.def.summary.to_owned())));
    let mut now = rows.input;
    let stages = labels.into_iter().map(|(label, name, description)| {
        let added = rows.added.get(&label).copied().unwrap_or(0);
        let rejected = rows.rejected.get(&label).cloned().unwrap_or_default();
        let rows_in = now;
        now = (now + added).saturating_sub(rejected.values().sum());
        StageReport { label, name, description, rows_in, added, rejected, rows_out: now }
    });
    stages.collect()
}

fn words_of(f: &Findings<'_>, key: &str, fit: &FitResult) -> String {
    if f.learned_from.contains_key(key) { withheld::NOTE.to_owned() } else { in_words(fit) }
}

fn in_words(fit: &FitResult) -> String {
    match fit {
        FitResult::Moments(m) => {
            format!(
                "mean {:.6}, standard deviation {:.6}, from {:.6} to {:.6}, {} values",
                m.mean,
                m.variance.sqrt(),
                m.min,
                m.max,
                m.count
            )
        }
        FitResult::Quantiles { count, values } => {
            let values: Vec<String> = values.iter().map(|v| format!("{v:.6}")).collect();
            format!("quantiles {} of {count} values", values.join(", "))
        }
        FitResult::Frequencies { values, .. } => {
            let first: Vec<String> = values.iter().take(3).map(|(v, n)| format!("{v} ({n})")).collect();
            format!("{} values: {}{}", values.len(), first.join(", "), if values.len() > 3 { ", …" } else { "" })
        }
    }
}

/// The rows just written, with the split's name, for some columns.
async fn written(f: &Findings<'_>, columns: &[String]) -> Result<Option<DataFrame>> {
    let spec: SourceSpec = serde_json::from_value(serde_json::json!({ "uri": "", "hive": false }))?;
    let keys = f.vault.shard_keys();
    let mut all: Option<DataFrame> = None;
    for split in &f.manifest.splits {
        let mut shards = Vec::new();
        for shard in f.manifest.shards_of(split) {
            let location = f.root.child(&shard.path);
            let (path, bytes) = (shard.path.clone(), shard.bytes);
            shards.push(open_shard(&Found::own(path, location, bytes), &keys).await?);
        }
        if shards.is_empty() {
            continue;
        }
        let source = Arc::new(Source::new(split, &spec, shards, Vec::new())?);
        let view = idle(&source, &f.loaded.pipeline.resources, f.root.child("_feedline/staging")).view(0, None);
        let df = f.session.read_table(Arc::new(RowsTable::new(view, false)))?;
        let chosen = columns.iter().map(ident).chain([lit(split.as_str()).alias(SPLIT)]);
        let df = df.select(chosen.collect::<Vec<_>>())?;
        all = Some(match all {
            None => df,
            Some(others) => others.union(df)?,
        });
    }
    Ok(all)
}

async fn leaked(f: &Findings<'_>, keys: &[String]) -> Result<Leakage> {
    match written(f, keys).await? {
        Some(df) => leakage(df).await,
        None => Ok(Leakage { keys: keys.to_vec(), ..Default::default() }),
    }
}

/// How often each value of the label occurs in each split.
async fn balance(f: &Findings<'_>, column: &str) -> Result<LabelReport> {
    let mut counted: IndexMap<String, IndexMap<String, u64>> = IndexMap::new();
    if let Some(df) = written(f, &[column.to_owned()]).await? {
        let value = cast(ident(column), DataType::Utf8).alias("value");
        let split = cast(ident(SPLIT), DataType::Utf8).alias("split");
        let df = df.select(vec![value, split])?;
        let df = df.aggregate(vec![ident("value"), ident("split")], vec![count(lit(1_i64)).alias("n")])?;
        let df = df.sort(vec![ident("value").sort(true, true), ident("split").sort(true, true)])?;
        let mut stream = df.execute_stream().await?;
        while let Some(batch) = stream.try_next().await? {
            let (values, splits) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
            let counts = batch.column(2).as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                let value = if values.is_null(row) { "null" } else { values.value(row) };
                let by_split =
                    counted.entry(value.to_owned()).or_insert_with(|| f.manifest.splits.iter().map(|s| (s.clone(), 0)).collect());
                by_split.insert(splits.value(row).to_owned(), counts.value(row) as u64);
            }
        }
    }
    let mut values: Vec<LabelValue> = counted.into_iter().map(|(value, by_split)| LabelValue { value, by_split }).collect();
    let total = |v: &LabelValue| v.by_split.values().sum::<u64>();
    let mut others = None;
    if values.len() > LABELS {
        values.sort_by(|a, b| total(b).cmp(&total(a)).then_with(|| a.value.cmp(&b.value)));
        let mut rest = LabelValue { value: format!("{} others", values.len() - LABELS), by_split: IndexMap::new() };
        for v in values.drain(LABELS..) {
            v.by_split.into_iter().for_each(|(split, n)| *rest.by_split.entry(split).or_default() += n);
        }
        others = Some(rest);
    }
    Ok(LabelReport { column: column.to_owned(), values, others })
}
