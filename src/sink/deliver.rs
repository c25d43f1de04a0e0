//! The delivery pass: all columns once, unit by unit in row order, into shards.
//!
//! ```text
//!  group of units ─ read, apply verdicts, column steps ─▶ batches ═▶ one writer a split ─▶ shards of so many rows
//! ```
//!
//! A **group** is a run of neighbouring units that fill about a shard; groups are delivered at the same time, each by a reader and a
//! writer. Groups and shards are cut by footers and verdicts alone, so every machine cuts the same ones.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch, StringArray, UInt8Array, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type};
use datafusion::common::runtime::SpawnedTask;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::shard::{ShardOptions, ShardWriter};
use crate::dataset::manifest::{QuarantineShard, Shard, hash_json};
use crate::engine::accounts::Accounts;
use crate::engine::opener::{Opened, Opener};
use crate::engine::program::{Program, Recorder, arrange, split_field};
use crate::engine::rows::{Live, identify, located, note_damage};
use crate::engine::verdict::UnitState;
use crate::error::{Error, Result};
use crate::plan::prefix::Prefix;
use crate::quality::profile::TableProfile;
use crate::source::{Unit, UnitReader};
use crate::spec::pipeline::{Profile, SinkSpec};
use crate::stages::step::SPLIT;
use crate::storage::{Location, again};

/// Batches under way between a group's reader and its writer.
const IN_FLIGHT: usize = 4;
/// A shard's rows are a multiple of this.
const SHARD_STEP: u64 = 8192;

/// What a delivery needs beside the segment.
pub struct Delivery {
    /// The last segment.
    pub live: Live,
    /// Visible columns of the result.
    pub output: SchemaRef,
    /// The splits' names; one, `all`, where the pipeline does not split.
    pub splits: Vec<String>,
    /// The dataset.
    pub root: Location,
    /// Where records of delivered groups lie.
    pub staging: Location,
    /// The sink's options.
    pub sink: SinkSpec,
    /// What the shards' names are hashed from, beside their units: spec and inputs.
    pub seal: String,
    /// The folder of rejected rows below the root, where they are kept.
    pub quarantine: Option<String>,
    /// How much is profiled.
    pub profile: Profile,
}

/// What was delivered for one group: its checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Delivered {
    /// Its shards, by split, then in order.
    pub shards: Vec<Shard>,
    /// Its rejected rows, where they are kept.
    pub quarantine: Vec<QuarantineShard>,
    /// What its rows look like, where that is asked for. It lies beside the record, in a denser form.
    #[serde(skip)]
    pub profile: Option<TableProfile>,
}

/// Everything a group's tasks share.
struct Job {
    d: Delivery,
    prefix: Arc<Prefix>,
    program: Program,
    options: ShardOptions,
    rejected: Option<ShardOptions>,
    shard_rows: u64,
    row_schema: SchemaRef,
}

/// Delivers all units; groups that an earlier run finished are taken as they are.
pub async fn deliver(d: Delivery, accounts: &Accounts) -> Result<Vec<Delivered>> {
    let upto = d.live.segment.steps.len();
    let names = d.output.fields().iter().map(|f| f.name().clone());
    let prefix = Prefix::new(&d.live.segment, upto, names, &[]);
    let program = Program::bind(&d.live.segment, &prefix, &d.live.fits)?;
    let options = ShardOptions::new(&d.output, &d.sink)?.encrypted(d.live.vault.of_shards(&d.output)?);
    let rejected = d.quarantine.as_ref().map(|_| rejected_options(&d.live, &d.sink)).transpose()?;
    let mut fields: Vec<Field> = d.output.fields().iter().map(|f| f.as_ref().clone()).collect();
    if !d.live.segment.splits.is_empty() {
        fields.push(split_field());
    }
    let (shard_rows, groups) = cut(&d, accounts);
    let threads = d.live.threads;
    let job =
        Arc::new(Job { d, prefix: Arc::new(prefix), program, options, rejected, shard_rows, row_schema: Arc::new(Schema::new(fields)) });
    let work = groups.into_iter().enumerate().map(|(number, units)| {
        let job = job.clone();
        // One that fails ends the others: nobody writes on when the run is over.
        async move {
            let task = SpawnedTask::spawn(async move { again("delivery", || job.clone().group(units.clone())).await });
            Ok::<_, Error>((number, task.join().await??))
        }
    });
    // Whoever is done takes the next group: a slow one holds nobody up.
    let mut done: Vec<(usize, Delivered)> = stream::iter(work).buffer_unordered(threads.max(1)).try_collect().await?;
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, delivered)| delivered).collect())
}

/// Rows of a shard, and the groups of units, so that a group's rows fill about a shard.
fn cut(d: &Delivery, accounts: &Accounts) -> (u64, Vec<Vec<u32>>) {
    let units = &d.live.units;
    let (bytes, rows) = units.iter().fold((0, 0), |(b, r), u| (b + u.bytes(), r + u64::from(u.rows)));
    let row_bytes = (bytes as f64 / rows.max(1) as f64).max(1.0);
    let fill = (d.sink.shard_bytes.as_u64() as f64 / row_bytes).max(1.0) as u64;
    let shard_rows = fill.div_ceil(SHARD_STEP).max(1) * SHARD_STEP;
    let (mut groups, mut group, mut held) = (Vec::new(), Vec::new(), 0);
    for unit in units.iter() {
        let left = accounts.left(unit.id);
        if !group.is_empty() && held + left > shard_rows {
            groups.push(std::mem::take(&mut group));
            held = 0;
        }
        group.push(unit.id);
        held += left;
    }
    if !group.is_empty() {
        groups.push(group);
    }
    (shard_rows, groups)
}

impl Job {
    async fn group(self: Arc<Self>, units: Vec<u32>) -> Result<Delivered> {
        let keys: Vec<String> = units.iter().map(|u| self.d.live.units[*u as usize].key()).collect();
        let seal = hash_json(&serde_json::json!([self.d.seal, keys]));
        let record = self.d.staging.child(&format!("{}.json", &seal[..16]));
        if let Some(done) = self.taken_up(&record, &seal).await? {
            let rows = units.iter().map(|u| u64::from(self.d.live.units[*u as usize].rows)).sum();
            self.d.live.progress.add(rows, 0);
            return Ok(done);
        }
        let (send, receive) = mpsc::channel(IN_FLIGHT);
        let reader = SpawnedTask::spawn(self.clone().read(units, seal.clone(), send));
        let written = self.write(&seal, receive).await;
        // The reader's error is the cause where both fail: its end closes the channel.
        let quarantine = reader.join().await??;
        let (shards, profile) = written?;
        if let Some(profile) = &profile {
            self.profile_of(&seal).write(self.d.live.vault.seal(postcard::to_stdvec(profile)?)?).await?;
        }
        let delivered = Delivered { shards, quarantine, profile };
        record.write(serde_json::to_vec(&delivered)?).await?;
        Ok(delivered)
    }

    fn profile_of(&self, seal: &str) -> Location {
        self.d.staging.child(&format!("{}.profile", &seal[..16]))
    }

    /// A group's record of an earlier run, if all its files are still there.
    async fn taken_up(&self, record: &Location, seal: &str) -> Result<Option<Delivered>> {
        let Some(bytes) = record.read().await? else { return Ok(None) };
        let Ok(mut done) = serde_json::from_slice::<Delivered>(&bytes) else { return Ok(None) };
        if self.d.profile != Profile::Off {
            let Some(bytes) = self.profile_of(seal).read().await? else { return Ok(None) };
            done.profile = Some(postcard::from_bytes(&self.d.live.vault.unseal(&bytes)?)?);
        }
        for (path, size) in done.shards.iter().map(|s| (&s.path, Some(s.bytes))).chain(done.quarantine.iter().map(|q| (&q.path, None))) {
            match self.d.root.child(path).head().await? {
                Some(meta) if size.is_none_or(|s| s == meta.size) => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(done))
    }

    async fn read(self: Arc<Self>, units: Vec<u32>, seal: String, send: mpsc::Sender<RecordBatch>) -> Result<Vec<QuarantineShard>> {
        let mut quarantine = match (&self.d.quarantine, &self.rejected) {
            (Some(folder), Some(options)) => Some(Quarantine::new(&self.d.root, folder, options, &seal)),
            _ => None,
        };
        let mut units = Opener::new(self.d.live.clone(), self.prefix.clone(), units, true);
        while let Some(Opened { unit, state, reader }) = units.next().await? {
            if let Some(q) = &mut quarantine {
                q.keep(&self.d.live, &unit, &state).await?;
            }
            let Some(mut reader) = reader else {
                self.d.live.progress.add(u64::from(unit.rows), 0);
                continue;
            };
            let mut nothing = Recorder::new(0, &self.d.live.segment, &[], 0);
            while let Some((first, batch)) = reader.next().await.inspect_err(|e| note_damage(&self.d.live, &unit, e))? {
                self.d.live.progress.add(batch.num_rows() as u64, batch.get_array_memory_size() as u64);
                let batch = identify(batch, &unit, first, &state, true)?;
                let batch = self.program.run(batch, unit.enters, &mut nothing).map_err(|e| located(&unit, e))?;
                if send.send(arrange(&batch, &self.row_schema)?).await.is_err() {
                    return Ok(Vec::new());
                }
            }
        }
        match quarantine {
            Some(q) => q.finish().await,
            None => Ok(Vec::new()),
        }
    }

    async fn write(&self, seal: &str, mut batches: mpsc::Receiver<RecordBatch>) -> Result<(Vec<Shard>, Option<TableProfile>)> {
        let mut profile = (self.d.profile != Profile::Off).then(|| TableProfile::new(&self.d.output));
        let mut sampler = Sampler::new(self.d.profile);
        let mut splits: Vec<SplitWriter> = self.d.splits.iter().map(|name| SplitWriter::new(name)).collect();
        while let Some(batch) = batches.recv().await {
            if let Some(profile) = &mut profile {
                sampler.pick(&batch).iter().try_for_each(|part| profile.update(part))?;
            }
            let (rows, codes) = without_splits(batch)?;
            for (code, split) in splits.iter_mut().enumerate() {
                let mask = codes
                    .as_ref()
                    .map(|c| BooleanArray::new(BooleanBuffer::collect_bool(c.len(), |i| usize::from(c.value(i)) == code), None));
                split.write(self, seal, &rows, mask).await?;
            }
        }
        // All at once, so that one waits for the disk while the next is encoded.
        try_join_all(splits.iter_mut().map(|split| split.roll(self))).await?;
        Ok((splits.into_iter().flat_map(|split| split.done).collect(), profile))
    }
}

/// Rows of every block of sixteen that a sampled profile looks at.
const SAMPLED: usize = 8192;

/// Picks the rows that are profiled: all, or the first block of every sixteen, counted from the beginning wherever batches are cut.
pub struct Sampler {
    profile: Profile,
    seen: usize,
}

impl Sampler {
    /// A sampler at the beginning.
    pub fn new(profile: Profile) -> Self {
        Self { profile, seen: 0 }
    }

    /// The parts of the next batch that are picked.
    pub fn pick(&mut self, batch: &RecordBatch) -> Vec<RecordBatch> {
        let (begin, end) = (self.seen, self.seen + batch.num_rows());
        self.seen = end;
        match self.profile {
            Profile::Off => Vec::new(),
            Profile::Full => vec![batch.clone()],
            Profile::Sample => {
                let period = SAMPLED * 16;
                let blocks = (begin / period..=end / period).map(|k| (k * period, k * period + SAMPLED));
                let parts = blocks.map(|(from, to)| (from.max(begin), to.min(end))).filter(|(from, to)| from < to);
                parts.map(|(from, to)| batch.slice(from - begin, to - from)).collect()
            }
        }
    }
}

/// A batch without the hidden column of splits, and that column where there is one.
fn without_splits(batch: RecordBatch) -> Result<(RecordBatch, Option<UInt8Array>)> {
    let Ok(at) = batch.schema().index_of(SPLIT) else { return Ok((batch, None)) };
    let codes = batch.column(at).as_primitive::<UInt8Type>().clone();
    Ok((batch.project(&(0..at).collect::<Vec<_>>())?, Some(codes)))
}

/// The shards of one split in a group.
struct SplitWriter {
    name: String,
    open: Option<(String, ShardWriter)>,
    done: Vec<Shard>,
}

impl SplitWriter {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), open: None, done: Vec::new() }
    }

    /// The shard that is open, and how many rows it still takes.
    fn shard(&mut self, job: &Job, seal: &str) -> Result<(&mut ShardWriter, usize)> {
        let (_, writer) = match &mut self.open {
            Some(open) => open,
            none => none.insert(begin(job, seal, &self.name, self.done.len())?),
        };
        let room = (job.shard_rows - writer.rows()) as usize;
        Ok((writer, room))
    }

    /// Adds the rows of a batch for which the mask is true; without one, all.
    async fn write(&mut self, job: &Job, seal: &str, batch: &RecordBatch, mask: Option<BooleanArray>) -> Result<()> {
        // A mask of all rows would only cost a copy.
        let mask = mask.filter(|m| m.true_count() < m.len());
        let count = mask.as_ref().map_or(batch.num_rows(), BooleanArray::true_count);
        if count == 0 {
            return Ok(());
        }
        let (writer, room) = self.shard(job, seal)?;
        let mut rest = match mask {
            Some(mask) if count < room => return writer.write_where(batch.clone(), &mask).await,
            Some(mask) => filter_record_batch(batch, &mask)?,
            None => batch.clone(),
        };
        while rest.num_rows() > 0 {
            let (writer, room) = self.shard(job, seal)?;
            let now = room.min(rest.num_rows());
            writer.write(rest.slice(0, now)).await?;
            rest = rest.slice(now, rest.num_rows() - now);
            if now == room {
                self.roll(job).await?;
            }
        }
        Ok(())
    }

    async fn roll(&mut self, job: &Job) -> Result<()> {
        let Some((path, writer)) = self.open.take() else { return Ok(()) };
        let w = writer.finish().await?;
        tracing::debug!(path, rows = w.rows, bytes = w.bytes, "shard written");
        debug_assert!(w.rows <= job.shard_rows);
        let min_max = w.min_max.into_iter().filter(|(column, _)| job.d.live.vault.shows(column)).collect();
        self.done.push(Shard {
            path,
            split: self.name.clone(),
            rows: w.rows,
            bytes: w.bytes,
            sha256: w.sha256,
            rows_sha256: w.rows_sha256,
            row_groups: w.row_groups,
            min_max,
        });
        Ok(())
    }
}

fn begin(job: &Job, seal: &str, split: &str, number: usize) -> Result<(String, ShardWriter)> {
    let id = hash_json(&serde_json::json!([seal, split, number]));
    let path = format!("data/split={split}/part-{}.parquet", &id[..20]);
    let writer = ShardWriter::begin(job.d.root.child(&path), &job.options)?;
    Ok((path, writer))
}

/// Columns of the quarantine: stage, reason, shard and row, then the source's columns as they were.
fn rejected_schema(live: &Live) -> SchemaRef {
    let mut fields = vec![
        Field::new("_stage", DataType::Utf8, false),
        Field::new("_reason", DataType::Utf8, false),
        Field::new("_shard", DataType::Utf8, false),
        Field::new("_shard_row", DataType::UInt64, false),
    ];
    fields.extend(live.segment.input.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)));
    Arc::new(Schema::new(fields))
}

fn rejected_options(live: &Live, sink: &SinkSpec) -> Result<ShardOptions> {
    let schema = rejected_schema(live);
    Ok(ShardOptions::new(&schema, sink)?.encrypted(live.vault.of_rejected(&schema)?))
}

/// Keeps the rejected rows of a segment that is not delivered itself, because its rows go through a reshape.
pub async fn keep_rejected(live: &Live, root: &Location, folder: &str, sink: &SinkSpec, seal: &str) -> Result<Vec<QuarantineShard>> {
    let options = rejected_options(live, sink)?;
    let keys: Vec<String> = live.units.iter().map(Unit::key).collect();
    let seal = hash_json(&serde_json::json!([seal, "reshaped", keys]));
    let keep = || async {
        let mut quarantine = Quarantine::new(root, folder, &options, &seal);
        for unit in live.units.iter() {
            quarantine.keep(live, unit, &live.state(unit.id).await?).await?;
        }
        quarantine.finish().await
    };
    again("keeping rejected rows", keep).await
}

/// Keeps a group's rejected rows.
struct Quarantine {
    path: String,
    at: Location,
    options: ShardOptions,
    writer: Option<ShardWriter>,
}

impl Quarantine {
    fn new(root: &Location, folder: &str, options: &ShardOptions, seal: &str) -> Self {
        let path = format!("{folder}/rows-{}.parquet", &seal[..16]);
        Self { at: root.child(&path), path, options: options.clone(), writer: None }
    }

    async fn keep(&mut self, live: &Live, unit: &Unit, state: &UnitState) -> Result<()> {
        if state.rejects.is_empty() {
            return Ok(());
        }
        let mut who: Vec<Option<(u32, u32)>> = vec![None; unit.rows as usize];
        for (step, code, rows) in &state.rejects {
            rows.iter().for_each(|r| who[r as usize] = Some((*step, *code)));
        }
        let fields: Vec<Field> = live.segment.input.fields().iter().map(|f| f.as_ref().clone()).collect();
        let mut reader = UnitReader::open(unit, fields, live.batch_rows)?;
        let before = unit.shard_row(0);
        while let Some((first, batch)) = reader.next().await? {
            let span = &who[first as usize..first as usize + batch.num_rows()];
            let rows: UInt32Array = span.iter().enumerate().filter_map(|(i, w)| w.map(|_| i as u32)).collect();
            if rows.is_empty() {
                continue;
            }
            let picked = arrow::compute::take_record_batch(&batch, &rows)?;
            let reasons: Vec<(u32, u32)> = span.iter().flatten().copied().collect();
            let numbers = rows.values().iter().map(|r| before + u64::from(first) + u64::from(*r));
            let batch = self.annotate(live, unit, &reasons, numbers.collect(), &picked)?;
            let writer = match &mut self.writer {
                Some(writer) => writer,
                none => none.insert(ShardWriter::begin(self.at.clone(), &self.options)?),
            };
            writer.write(batch).await?;
        }
        Ok(())
    }

    fn annotate(&self, live: &Live, unit: &Unit, reasons: &[(u32, u32)], rows: Vec<u64>, picked: &RecordBatch) -> Result<RecordBatch> {
        let stages: StringArray = reasons.iter().map(|(step, _)| Some(live.segment.steps[*step as usize].label.as_str())).collect();
        let words: StringArray =
            reasons.iter().map(|(step, code)| Some(crate::engine::accounts::reason(&live.segment, *step, *code))).collect();
        let shards: StringArray = reasons.iter().map(|_| Some(unit.shard.path.as_str())).collect();
        let numbers = arrow::array::UInt64Array::from(rows);
        let mut columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(stages), Arc::new(words), Arc::new(shards), Arc::new(numbers)];
        columns.extend(picked.columns().iter().cloned());
        RecordBatch::try_new(self.options.schema().clone(), columns).map_err(Error::from)
    }

    async fn finish(self) -> Result<Vec<QuarantineShard>> {
        let Some(writer) = self.writer else { return Ok(Vec::new()) };
        let w = writer.finish().await?;
        Ok(vec![QuarantineShard { path: self.path, rows: w.rows, sha256: w.sha256 }])
    }
}
