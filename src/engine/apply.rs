//! Applying a version to new data: its column stages, with what they learned. No row is decided on: every row that comes in goes out.
//!
//! A store need not know renaming, so files get their final names at once and [`SUCCESS`] says that they are all there: it is removed before
//! anything else and written after everything else. What lies beside no `_SUCCESS` is nobody's result.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::rows::Live;
use super::run::{fill_sides, idle, main_source, open_sources, plan};
use super::session;
use crate::crypt::Vault;
use crate::dataset::Manifest;
use crate::dataset::gc::is_unfinished;
use crate::error::{Error, Result};
use crate::plan::Segment;
use crate::progress::Progress;
use crate::sink::shard::{ShardOptions, ShardWriter, Written};
use crate::source::{Source, types};
use crate::spec::Loaded;
use crate::stages::step::{ROW, SPLIT, Step};
use crate::storage::Location;

/// The name of the file that is written last, by the convention of Hadoop and Spark; here it holds an [`Applied`].
pub const SUCCESS: &str = "_SUCCESS";
/// The `format` of that file.
pub const FORMAT: &str = "feedline-apply/v1";
/// Where text formats are read into while an apply runs.
const STAGING: &str = "_feedline/staging";

/// What applying did: the content of [`SUCCESS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The format of this document: [`FORMAT`].
    pub format: String,
    /// Feedline's version.
    pub feedline: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The dataset version that was applied.
    pub version: u64,
    /// Its hash.
    pub hash: String,
    /// Rows.
    pub rows: u64,
    /// Columns of the training data that the new data lacks; they were taken as null.
    pub missing: Vec<String>,
    /// The files written, in the order of the input's rows.
    pub files: Vec<AppliedFile>,
}

/// A file of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedFile {
    /// Its path below the result's folder.
    pub path: String,
    /// Rows.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, in hex.
    pub sha256: String,
}

/// Applies a version to the main source of `loaded` (the version's own spec, its first source pointed at the new data). The result is encrypted
/// as the version is.
///
/// # Errors
/// `Usage` where `to` holds anything, or with `overwrite` anything but an earlier result; whatever reading and writing bring.
pub async fn apply(loaded: &Loaded, base: &Path, manifest: &Manifest, to: &Location, overwrite: bool) -> Result<Applied> {
    let applied = applied(loaded, base, manifest, to, overwrite).await;
    if loaded.pipeline.sink.encryption.is_some() { applied.map_err(Error::withheld) } else { applied }
}

async fn applied(loaded: &Loaded, base: &Path, manifest: &Manifest, to: &Location, overwrite: bool) -> Result<Applied> {
    let vault = Vault::open(loaded.pipeline.sink.encryption.as_ref(), base)?;
    clear(to, overwrite).await?;
    let mut sources = open_sources(loaded, base, &Vec::new(), Some(to), &vault, &Progress::default()).await?;
    let given = main_source(&sources)?.clone();
    let trained = types::parse(&manifest.input_schema)?;
    let missing = trained.fields().iter().map(|f| f.name()).filter(|n| given.schema.field_with_name(n).is_err()).cloned().collect();
    let main = Arc::new(Source { schema: trained, ..given.as_ref().clone() });
    sources.insert(main.name.clone(), main.clone());
    let (plan, sides) = plan(loaded, &sources)?;
    let [segment] = plan.segments.as_slice() else {
        return Err(Error::usage(
            "this pipeline makes new rows out of many (`sql`, `shuffle` or a large `join`), which cannot be applied to new data",
        )
        .hint("apply a version of a pipeline whose stages change columns or decide on rows"));
    };
    let session = session(&loaded.pipeline.resources)?;
    let staging = to.child(STAGING);
    fill_sides(&sources, &sides, loaded, &session, &staging).await?;
    let steps = segment.steps.iter().filter(|s| matches!(s.step, Step::Columns(_))).cloned().collect();
    let columns = Segment { steps, passes: Vec::new(), splits: Vec::new(), input: segment.input.clone() };
    let idle = idle(&main, &loaded.pipeline.resources, staging.clone());
    let live = Live { segment: Arc::new(columns), fits: Arc::new(manifest.fits.clone()), vault: Arc::new(vault), ..idle };
    let files = write(&live, &plan.output, loaded, to).await?;
    super::passes::sweep(&staging).await?;
    let applied = Applied {
        format: FORMAT.to_owned(),
        feedline: env!("CARGO_PKG_VERSION").to_owned(),
        pipeline: manifest.name.clone(),
        version: manifest.version,
        hash: manifest.hash.clone(),
        rows: files.iter().map(|f| f.rows).sum(),
        missing,
        files,
    };
    let success = to.child(SUCCESS);
    success.write(serde_json::to_vec_pretty(&applied)?).await?;
    success.sync()?;
    Ok(applied)
}

/// Makes room for a result. Only what an apply wrote is ever removed, `_SUCCESS` first.
async fn clear(to: &Location, overwrite: bool) -> Result<()> {
    let found = to.list().await?;
    let name = |meta: &object_store::ObjectMeta| {
        let below: Vec<_> = meta.location.prefix_match(&to.path).into_iter().flatten().map(|p| p.as_ref().to_owned()).collect();
        below.join("/")
    };
    let names: Vec<String> = found.iter().map(name).filter(|n| !n.starts_with(STAGING)).collect();
    if let Some(foreign) = names.iter().find(|n| *n != SUCCESS && !is_part(n)) {
        return Err(Error::usage(format!("the folder for the result holds other files, such as `{foreign}`"))
            .at(to.display())
            .hint("give `--to` a new folder, or an empty one"));
    }
    if !overwrite && !names.is_empty() {
        let whole = names.iter().any(|n| n == SUCCESS);
        let what = if whole { "an earlier result" } else { "what an apply left that did not end: there is no `_SUCCESS`" };
        return Err(Error::usage(format!("the folder for the result holds {what}"))
            .at(to.display())
            .hint("give `--to` a new folder, or replace what is there with `--overwrite`"));
    }
    to.child(SUCCESS).remove().await?;
    for part in names.iter().filter(|n| is_part(n)) {
        to.child(part).remove().await?;
    }
    super::passes::sweep(&to.child(STAGING)).await
}

fn part(number: u32) -> String {
    format!("part-{number:05}.parquet")
}

fn is_part(name: &str) -> bool {
    if is_unfinished(name) {
        return true;
    }
    let number = name.strip_prefix("part-").and_then(|n| n.strip_suffix(".parquet"));
    number.and_then(|n| n.parse().ok()).is_some_and(|n| part(n) == name)
}

/// One file for each unit, in order.
async fn write(live: &Live, output: &arrow::datatypes::SchemaRef, loaded: &Loaded, to: &Location) -> Result<Vec<AppliedFile>> {
    let view = live.view(live.segment.steps.len(), None);
    let options = ShardOptions::new(output, &loaded.pipeline.sink)?.encrypted(live.vault.of_shards(output)?);
    let mut files = Vec::new();
    for unit in live.units.iter() {
        let path = part(unit.id);
        let mut writer = ShardWriter::begin(to.child(&path), &options)?;
        let mut rows = view.read(vec![unit.id], output.clone())?;
        while let Some((_, batch)) = rows.next().await? {
            writer.write(batch).await?;
        }
        let Written { rows, bytes, sha256, .. } = writer.finish().await?;
        files.push(AppliedFile { path, rows, bytes, sha256 });
    }
    debug_assert!(output.field_with_name(ROW).is_err() && output.field_with_name(SPLIT).is_err());
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_files_are_ours_to_remove() {
        assert!(is_part("part-00000.parquet") && is_part("part-123456.parquet") && is_part(&part(7)));
        for name in ["part-0.parquet", "part-x.parquet", "part-00000.csv", "a/part-00000.parquet", "part-00000-c000.snappy.parquet", "+1"] {
            assert!(!is_part(name), "{name}");
        }
    }
}
