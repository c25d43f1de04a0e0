//! A whole run: sources, plan, passes, delivery, commit. Each pass leaves a checkpoint; a killed run is taken up where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use datafusion::prelude::SessionContext;
use futures::{StreamExt, stream};
use indexmap::IndexMap;

use super::accounts::Accounts;
use super::lines;
use super::passes::{self, Ran};
use super::report::{self, Findings, profile_input};
use super::rows::{Live, RowsTable};
use super::session;
use super::verdict::Verdicts;
use crate::crypt::{self, FileKeys, Vault, belongs, unknown_columns};
use crate::dataset::manifest::{ColumnInfo, FORMAT, Input, Manifest, Rows, RunInfo, hash_json};
use crate::dataset::{Dataset, manifest};
use crate::error::{Error, Kind, Mistake, Result, nearest};
use crate::plan::{Lowered, Plan, Segment, lower};
use crate::progress::Progress;
use crate::quality::profile::TableProfile;
use crate::quality::report::Report;
use crate::sink::commit::{commit, now};
use crate::sink::deliver::{Delivered, Delivery, deliver, keep_rejected};
use crate::sink::lease::Lease;
use crate::sink::shard::plain;
use crate::source::{Source, Sources, Unit, discover, ingest, settle_bad};
use crate::spec::pipeline::{DecryptionSpec, Format, OnBadShard, Profile, Resources};
use crate::spec::stores::REQUESTS;
use crate::spec::{Loaded, join};
use crate::stages::Side;
use crate::stages::step::{Fits, Step};
use crate::storage::Location;

/// Sides up to this size (uncompressed) are held in memory for lookups; `join` decides by the same number.
pub const LOOKUP_BYTES: u64 = 64 << 20;

/// Footers under way at once: twice what a store takes by default, so that one late answer, which the others wait behind, idles nothing.
const FOOTERS: usize = 2 * REQUESTS;

/// How to run.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Run even where the newest version was made of the same spec and inputs.
    pub force: bool,
    /// What is being done.
    pub progress: Arc<Progress>,
}

/// What a run did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The version, new or (where nothing had changed) the newest.
    pub manifest: Manifest,
    /// Whether it is new.
    pub fresh: bool,
    /// Its report and the folder that holds it, where it is new.
    pub report: Option<(Report, String)>,
}

/// Shards left out because they turned out to be damaged while they were read: source, path, reason.
type LeftOut = Vec<(String, String, String)>;

/// Runs a pipeline and publishes a version. Relative paths in the spec start from `base`.
pub async fn run(loaded: &Loaded, base: &Path, options: &RunOptions) -> Result<Outcome> {
    crypt::check(loaded, base)?;
    let root = sink(loaded, base)?;
    let lease = Lease::take(&root).await?;
    let outcome = attempts(loaded, base, &root, options).await;
    lease.release().await;
    if loaded.pipeline.sink.encryption.is_some() { outcome.map_err(Error::withheld) } else { outcome }
}

/// The dataset's folder that a spec names.
pub fn sink(loaded: &Loaded, base: &Path) -> Result<Location> {
    Location::open_with(&loaded.pipeline.sink.uri, base, &loaded.pipeline.stores).map_err(Error::in_spec)
}

/// Runs until no further shard turns out to be damaged.
async fn attempts(loaded: &Loaded, base: &Path, root: &Location, options: &RunOptions) -> Result<Outcome> {
    let mut left_out = LeftOut::new();
    loop {
        let damaged = Arc::new(Mutex::new(Vec::new()));
        let attempt = attempt(loaded, base, root, options, &left_out, damaged.clone()).await;
        let Err(e) = attempt else { return attempt };
        let found = std::mem::take(&mut *damaged.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let before = left_out.len();
        for (source, path, reason) in found {
            let policy = loaded.pipeline.sources.get(&source).map(|s| s.on_bad_shard).unwrap_or_default();
            if policy != OnBadShard::Fail && !left_out.iter().any(|(s, p, _)| *s == source && *p == path) {
                left_out.push((source, path, reason));
            }
        }
        if left_out.len() == before {
            return Err(e);
        }
    }
}

async fn attempt(
    loaded: &Loaded,
    base: &Path,
    root: &Location,
    options: &RunOptions,
    left_out: &LeftOut,
    damaged: Arc<Mutex<LeftOut>>,
) -> Result<Outcome> {
    let started = now();
    let dataset = Dataset::new(root.clone());
    let vault = Vault::open(loaded.pipeline.sink.encryption.as_ref(), base)?;
    let sources = open_sources(loaded, base, left_out, Some(root), &vault, &options.progress).await?;
    let main = main_source(&sources)?;
    if main.rows() == 0 {
        return Err(Error::input("there are no rows to read").at(format!("source `{}`: {}", main.name, main.uri)).hint("check the shards"));
    }
    let (plan, sides) = plan(loaded, &sources)?;
    let vault = Arc::new(vault.knowing(&plan.output, encrypted_columns(&sources)));
    let inputs: Vec<Input> = sources.values().flat_map(|s| s.inputs()).collect();
    let bad: Vec<_> = sources.values().flat_map(|s| s.bad.clone()).collect();
    let spec_hash = hash_json(&crate::spec::canonical(&loaded.pipeline));
    let latest = latest(&dataset).await?;
    // These sections shape no byte of the data, but readers take them from the manifest: a change of them is a new version too.
    let beside = |m: &Manifest| ["feed", "report", "quarantine"].iter().all(|key| m.spec.get(key) == loaded.resolved.get(key));
    let unchanged = |m: &&Manifest| m.spec_hash == spec_hash && m.inputs == inputs && m.bad_inputs == bad && beside(m);
    if let Some(same) = latest.as_ref().filter(unchanged)
        && !options.force
    {
        return Ok(Outcome { manifest: same.clone(), fresh: false, report: None });
    }
    let stamps: Vec<&String> = sources.values().flat_map(|s| s.shards.iter().map(|s| &s.stamp)).collect();
    let seal = hash_json(&serde_json::json!([spec_hash, inputs, bad]));
    let mut key = serde_json::json!([seal, stamps, env!("CARGO_PKG_VERSION")]);
    key.as_array_mut().into_iter().for_each(|parts| parts.extend(vault.mark().map(Into::into)));
    let staging = root.child(&format!("_feedline/staging/{}", &hash_json(&key)[..20]));
    let version = latest.as_ref().map_or(1, |m| m.version + 1);
    warn_of_clear_text(&sources, &plan, &vault);
    // Encrypted again, the same rows are other bytes: they must not take the place of an older version's.
    let seal = if vault.is_locked() { hash_json(&serde_json::json!([seal, version])) } else { seal };
    let quarantine = loaded.pipeline.quarantine.keep_rows.then(|| format!("_feedline/quarantine/{version:08}"));
    let session = session(&loaded.pipeline.resources)?;
    fill_sides(&sources, &sides, loaded, &session, &staging).await?;

    let mut rows = Rows { input: main.rows() + ingested(main), ..Default::default() };
    rejected_lines(&sources, main, &mut rows);
    let mut fits = Fits::new();
    let mut input = main.clone();
    let mut delivered = Vec::new();
    let mut kept = Vec::new();
    let mut last = Accounts::default();
    let profile = loaded.pipeline.report.profile;
    let mut before = None;
    let mut remarks = Vec::new();
    for (number, segment) in plan.segments.iter().enumerate() {
        let at = staging.child(&format!("segment-{number}"));
        let live = Live {
            segment: Arc::new(segment.clone()),
            units: Arc::new(units(segment, &input, &sources)),
            fits: Arc::new(fits.clone()),
            progress: options.progress.clone(),
            vault: vault.clone(),
            damaged: damaged.clone(),
            ..idle(&input, &loaded.pipeline.resources, at.child("verdicts"))
        };
        if number == 0 && profile != Profile::Off {
            options.progress.begin("profile", main.rows(), 0);
            before = profile_input(&live, profile).await?;
        }
        let Ran { live, accounts, reshaped, remarks: found } = passes::run(live, &at, &session).await?;
        remarks.extend(found);
        accounts.enter(&live, &mut rows);
        fits = live.fits.as_ref().clone();
        match reshaped {
            Some(source) => {
                if let Some(folder) = &quarantine {
                    kept.extend(keep_rejected(&live, root, folder, &loaded.pipeline.sink, &seal).await?);
                }
                passes::enter_reshape(segment, accounts.total(), source.rows(), &mut rows);
                input = Arc::new(source);
            }
            None => {
                let splits = if plan.splits.is_empty() { vec!["all".to_owned()] } else { plan.splits.clone() };
                options.progress.begin("deliver", live.units.iter().map(|u| u64::from(u.rows)).sum(), 0);
                let delivery = Delivery {
                    live,
                    output: plan.output.clone(),
                    splits,
                    root: root.clone(),
                    staging: at.child("delivered"),
                    sink: loaded.pipeline.sink.clone(),
                    seal: seal.clone(),
                    quarantine: quarantine.clone(),
                    profile,
                };
                delivered = deliver(delivery, &accounts).await?;
                last = accounts;
            }
        }
    }
    if last.total() == 0 {
        tracing::warn!("every row was rejected: version {version} will be empty");
    }
    let run = RunInfo {
        feedline: env!("CARGO_PKG_VERSION").to_owned(),
        started,
        committed: String::new(),
        uris: sources.values().map(|s| (s.name.clone(), s.uri.clone())).collect(),
    };
    let after = merged(&delivered);
    let made = Made { version, parent: latest.map(|m| m.version), inputs, bad, spec_hash, fits, rows, delivered, run };
    let mut manifest = manifest_of(loaded, &plan, made, &last)?;
    manifest.quarantine.extend(kept);
    lines::keep(&sources, &vault, &loaded.pipeline.sink, root, quarantine.as_deref(), &mut manifest).await?;
    manifest.run.committed = now();
    manifest.hash = manifest.content_hash()?;
    let after = after.transpose()?.map(|table| table.summary());
    let before = before.map(|table| table.summary());
    options.progress.begin("report", 0, 0);
    let findings = Findings {
        loaded,
        manifest: &manifest,
        sources: &sources,
        before,
        after,
        remarks,
        root,
        session: &session,
        progress: &options.progress,
        vault: &vault,
        learned_from: withheld_fits(&plan, &vault),
    };
    let report = report::build(&findings).await?;
    let folder = report::publish(root, version, &report).await?;
    commit(&dataset, &manifest).await?;
    options.progress.end();
    // The version stands; what is left in staging is only in the way.
    if let Err(e) = passes::sweep(&staging).await {
        tracing::warn!("could not clear staging: {e}");
    }
    Ok(Outcome { manifest, fresh: true, report: Some((report, root.child(&folder).display())) })
}

/// The profiles of all groups together, in their order.
fn merged(delivered: &[Delivered]) -> Option<Result<TableProfile>> {
    let mut tables = delivered.iter().filter_map(|d| d.profile.as_ref());
    let mut whole = tables.next()?.clone();
    Some(tables.try_for_each(|table| whole.merge(table)).map(|()| whole))
}

/// A mistake for each key of a source that no shard has a column for.
fn unknown_keys(source: &Source, keys: &DecryptionSpec) -> Vec<Mistake> {
    let columns = source.shards.iter().flat_map(|s| s.reader.parquet_schema().columns());
    let leaves: BTreeSet<String> = columns.map(|c| c.path().string()).collect();
    let known = |name: &str| leaves.iter().any(|leaf| belongs(name, leaf)) || source.schema.field_with_name(name).is_ok();
    let unknown = keys.column_keys.keys().filter(|name| !known(name));
    let names = || source.schema.fields().iter().map(|f| f.name().as_str());
    let at = |name: &str| join(&format!("/sources/{}/decryption/column_keys", source.name), name);
    unknown.map(|name| Mistake::new(at(name), format!("no shard has a column `{name}`")).help(nearest(name, names()))).collect()
}

/// Columns that some shard holds encrypted.
fn encrypted_columns(sources: &Sources) -> Vec<String> {
    let shards = sources.values().flat_map(|s| &s.shards);
    let columns = shards.flat_map(|s| s.metadata().row_groups()).flat_map(|g| g.columns()).filter(|c| c.crypto_metadata().is_some());
    columns.filter_map(|c| c.column_path().parts().first().cloned()).collect()
}

/// The fits that look at columns whose values may not be shown, with those columns.
fn withheld_fits(plan: &Plan, vault: &Vault) -> BTreeMap<String, String> {
    let steps = plan.segments.iter().flat_map(|s| &s.steps);
    let fits = steps.filter_map(|s| if let Step::Fit(fit) = &s.step { Some(fit) } else { None });
    fits.filter(|fit| !vault.shows(&fit.column)).map(|fit| (fit.key.clone(), fit.column.clone())).collect()
}

/// Says what of encrypted columns will lie in the clear.
fn warn_of_clear_text(sources: &Sources, plan: &Plan, vault: &Vault) {
    let opened: Vec<&str> = vault.laid_open().collect();
    if !opened.is_empty() {
        let first = sources.keys().next().map_or("", String::as_str);
        tracing::warn!(
            source = first,
            "encrypted in the source, stored in the clear by the sink (see `sink.encryption`): {}",
            opened.join(", ")
        );
    }
    let columns: BTreeSet<String> = withheld_fits(plan, vault).into_values().collect();
    if !columns.is_empty() {
        let columns: Vec<String> = columns.into_iter().collect();
        tracing::warn!(
            "statistics of encrypted columns will stand in the manifest in the clear, for `feedline apply`: {}",
            columns.join(", ")
        );
    }
}

/// The source that flows through the stages: the first.
pub fn main_source(sources: &Sources) -> Result<&Arc<Source>> {
    sources.values().next().ok_or_else(|| Error::spec("the spec names no source"))
}

async fn latest(dataset: &Dataset) -> Result<Option<Manifest>> {
    if dataset.versions().await?.is_empty() { Ok(None) } else { dataset.manifest(None).await.map(Some) }
}

/// Finds and opens all shards. With a dataset to stage in, formats without a footer are read into it; without one, their schema is all.
pub async fn open_sources(
    loaded: &Loaded,
    base: &Path,
    left_out: &LeftOut,
    stage_in: Option<&Location>,
    vault: &Vault,
    progress: &Progress,
) -> Result<Sources> {
    let mut sources = Sources::new();
    for (name, spec) in &loaded.pipeline.sources {
        let keys = spec.decryption.as_ref().map_or_else(FileKeys::default, |d| FileKeys::of_source(d, base));
        let found = discover(name, spec, base, &loaded.pipeline.stores).await?;
        progress.begin(format!("open {name}"), 0, 0);
        let (mut shards, mut bad) = (Vec::new(), Vec::new());
        // Footers wait for the store; formats without one are read whole, by a thread each.
        let at_once = if found.iter().all(|f| f.format == Format::Parquet) { FOOTERS } else { loaded.pipeline.resources.threads.max(1) };
        let keys = &keys;
        let opening = found.into_iter().map(|f| async move {
            let known = left_out.iter().find(|(s, p, _)| s == name && *p == f.path);
            let opened = match known {
                Some((_, _, reason)) => Err(Error::input(reason)),
                None => ingest::ingest(&f, spec, stage_in, keys, vault).await,
            };
            (f, opened)
        });
        let opened: Vec<_> = stream::iter(opening).buffered(at_once).collect().await;
        for (f, opened) in opened {
            match opened {
                Ok(shard) => shards.push(shard),
                // What a store cannot give now is not damaged: to leave it out would lose rows over a bad moment.
                Err(e) if e.kind() != Kind::Input => return Err(e.at(f.location.display())),
                Err(e) => bad.push((f.path.clone(), e.at(f.location.display()))),
            }
        }
        let bad = settle_bad(name, spec.on_bad_shard, bad)?;
        if shards.is_empty() {
            return Err(Error::input("none of the shards can be read").at(format!("source `{name}`")).hint("the messages above say why"));
        }
        let mut source = Source::new(name, spec, shards, bad)?;
        if !spec.uri.contains("://") {
            source.uri = base.join(&spec.uri).display().to_string();
        }
        sources.insert(name.clone(), Arc::new(source));
    }
    Ok(sources)
}

/// Plans a loaded spec over opened sources.
pub fn plan(loaded: &Loaded, sources: &Sources) -> Result<(Plan, BTreeMap<String, Side>)> {
    let main = main_source(sources)?;
    let sides = sources.values().skip(1).map(|s| {
        let side = Side { schema: s.schema.clone(), bytes: s.uncompressed_bytes(), table: Arc::default() };
        (s.name.clone(), side)
    });
    let sides: BTreeMap<String, Side> = sides.collect();
    let stages: Vec<Lowered<'_>> =
        loaded.stages.iter().map(|s| Lowered { label: &s.label, pointer: &s.pointer, stage: s.stage.as_ref() }).collect();
    let plan = match lower(&stages, &main.schema, &sides, loaded.pipeline.seed) {
        Ok(plan) => plan,
        Err(mistakes) => return Err(loaded.source.errors(mistakes).into()),
    };
    let mut mistakes = loaded.pipeline.sink.encryption.as_ref().map_or(Ok(Vec::new()), |e| unknown_columns(e, &plan.output))?;
    for source in sources.values() {
        let keys = loaded.pipeline.sources.get(&source.name).and_then(|s| s.decryption.as_ref());
        mistakes.extend(keys.map_or_else(Vec::new, |keys| unknown_keys(source, keys)));
    }
    if mistakes.is_empty() { Ok((plan, sides)) } else { Err(loaded.source.errors(mistakes).into()) }
}

/// Small sides are read into memory for lookups; all of them become tables of the session.
pub async fn fill_sides(
    sources: &Sources,
    sides: &BTreeMap<String, Side>,
    loaded: &Loaded,
    session: &SessionContext,
    staging: &Location,
) -> Result<()> {
    for (name, side) in sides {
        let source = &sources[name];
        let live = idle(source, &loaded.pipeline.resources, staging.clone());
        let view = live.view(0, None);
        if side.bytes <= LOOKUP_BYTES {
            let mut rows = view.read(live.units.iter().map(|u| u.id).collect(), source.schema.clone())?;
            let mut batches = Vec::new();
            while let Some((_, batch)) = rows.next().await? {
                batches.push(batch);
            }
            let _ = side.table.set(batches);
        }
        session.register_table(datafusion::common::TableReference::bare(name.as_str()), Arc::new(RowsTable::new(view, false)))?;
    }
    Ok(())
}

/// The rows of a source as they are, with nothing decided. `staging` is where verdicts would lie.
pub fn idle(source: &Arc<Source>, resources: &Resources, staging: Location) -> Live {
    Live {
        segment: Arc::new(Segment { input: source.schema.clone(), steps: Vec::new(), passes: Vec::new(), splits: Vec::new() }),
        units: Arc::new(source.units(0, 0)),
        fits: Arc::default(),
        layers: Vec::new(),
        decided: BTreeSet::new(),
        verdicts: Verdicts::new(staging),
        batch_rows: resources.batch_rows.max(1),
        threads: resources.threads.max(1),
        progress: Arc::default(),
        vault: Arc::default(),
        damaged: Arc::default(),
    }
}

/// The units of a segment: those of its input, then those that come in at its appends.
fn units(segment: &Segment, input: &Arc<Source>, sources: &Sources) -> Vec<Unit> {
    let mut units = input.units(0, 0);
    for (i, step) in segment.steps.iter().enumerate() {
        if let Step::Append(append) = &step.step
            && let Some(source) = sources.get(&append.source)
        {
            units.extend(source.units(i + 1, units.len() as u32));
        }
    }
    units
}

/// Lines of text formats that could not be read: they came in, and were rejected.
fn ingested(source: &Source) -> u64 {
    source.shards.iter().flat_map(|s| &s.rejected).map(|(_, n)| n).sum()
}

fn rejected_lines(sources: &Sources, main: &Source, rows: &mut Rows) {
    for source in sources.values().filter(|s| ingested(s) > 0) {
        let label = format!("source {}", source.name);
        if source.name != main.name {
            *rows.added.entry(label.clone()).or_default() += ingested(source);
        }
        let by_reason: &mut IndexMap<String, u64> = rows.rejected.entry(label).or_default();
        for (reason, n) in source.shards.iter().flat_map(|s| &s.rejected) {
            *by_reason.entry(reason.clone()).or_default() += n;
        }
    }
}

/// What a manifest is made of.
struct Made {
    version: u64,
    parent: Option<u64>,
    inputs: Vec<Input>,
    bad: Vec<manifest::BadInput>,
    spec_hash: String,
    fits: Fits,
    rows: Rows,
    delivered: Vec<Delivered>,
    run: RunInfo,
}

fn columns(schema: &arrow::datatypes::SchemaRef) -> Vec<ColumnInfo> {
    let info = |f: &Arc<arrow::datatypes::Field>| ColumnInfo {
        name: f.name().clone(),
        data_type: f.data_type().to_string(),
        nullable: f.is_nullable(),
    };
    plain(schema).fields().iter().map(info).collect()
}

fn manifest_of(loaded: &Loaded, plan: &Plan, made: Made, accounts: &Accounts) -> Result<Manifest> {
    let splits = if plan.splits.is_empty() { vec!["all".to_owned()] } else { plan.splits.clone() };
    let mut shards = Vec::new();
    for split in &splits {
        shards.extend(made.delivered.iter().flat_map(|d| d.shards.iter().filter(|s| s.split == *split).cloned()));
    }
    let mut rows = made.rows;
    for split in &splits {
        rows.by_split.insert(split.clone(), shards.iter().filter(|s| s.split == *split).map(|s| s.rows).sum());
    }
    rows.output = shards.iter().map(|s| s.rows).sum();
    if rows.output != accounts.total() {
        return Err(Error::internal(format!("{} rows were decided to stay, {} were written", accounts.total(), rows.output)));
    }
    Ok(Manifest {
        format: FORMAT.to_owned(),
        version: made.version,
        parent: made.parent,
        hash: String::new(),
        name: loaded.pipeline.name.clone(),
        inputs: made.inputs,
        bad_inputs: made.bad,
        spec: loaded.resolved.clone(),
        spec_hash: made.spec_hash,
        seed: loaded.pipeline.seed,
        splits,
        schema: columns(&plan.output),
        input_schema: plan.segments.first().map(|s| columns(&s.input)).unwrap_or_default(),
        fits: made.fits,
        rows,
        shards,
        quarantine: made.delivered.iter().flat_map(|d| d.quarantine.clone()).collect(),
        run: made.run,
    })
}
