//! Applying a version to new data: its column stages, with what they learned. No row is decided on: every row that comes in goes out.

use std::path::Path;
use std::sync::Arc;

use super::rows::Live;
use super::run::{fill_sides, idle, main_source, open_sources, plan};
use super::session;
use crate::dataset::Manifest;
use crate::error::{Error, Result};
use crate::plan::Segment;
use crate::progress::Progress;
use crate::sink::shard::{ShardOptions, ShardWriter};
use crate::source::{Source, types};
use crate::spec::Loaded;
use crate::stages::step::{ROW, SPLIT, Step};
use crate::storage::Location;

/// What applying did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Rows.
    pub rows: u64,
    /// Columns of the training data that the new data lacks; they were taken as null.
    pub missing: Vec<String>,
    /// The files written.
    pub files: Vec<String>,
}

/// Applies a version to the main source of `loaded` (the version's own spec, its first source pointed at the new data).
pub async fn apply(loaded: &Loaded, base: &Path, manifest: &Manifest, to: &Location) -> Result<Applied> {
    let mut sources = open_sources(loaded, base, &Vec::new(), Some(to), &Progress::default()).await?;
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
    let staging = to.child("_feedline/staging");
    fill_sides(&sources, &sides, loaded, &session, &staging).await?;
    let steps = segment.steps.iter().filter(|s| matches!(s.step, Step::Columns(_))).cloned().collect();
    let columns = Segment { steps, passes: Vec::new(), splits: Vec::new(), input: segment.input.clone() };
    let idle = idle(&main, &loaded.pipeline.resources, staging.clone());
    let live = Live { segment: Arc::new(columns), fits: Arc::new(manifest.fits.clone()), ..idle };
    let (rows, files) = write(&live, &plan.output, loaded, to).await?;
    super::passes::sweep(&staging).await?;
    Ok(Applied { rows, missing, files })
}

/// One file for each unit, in order.
async fn write(live: &Live, output: &arrow::datatypes::SchemaRef, loaded: &Loaded, to: &Location) -> Result<(u64, Vec<String>)> {
    let view = live.view(live.segment.steps.len(), None);
    let options = ShardOptions::new(output, &loaded.pipeline.sink)?;
    let (mut total, mut files) = (0, Vec::new());
    for unit in live.units.iter() {
        let path = format!("part-{:05}.parquet", unit.id);
        let mut writer = ShardWriter::begin(to.child(&path), &options)?;
        let mut rows = view.read(vec![unit.id], output.clone())?;
        while let Some((_, batch)) = rows.next().await? {
            writer.write(batch).await?;
        }
        total += writer.finish().await?.rows;
        files.push(path);
    }
    debug_assert!(output.field_with_name(ROW).is_err() && output.field_with_name(SPLIT).is_err());
    Ok((total, files))
}
