//! `feedline apply`

use clap::Args;

use super::{DatasetArgs, block_on, print};
use crate::engine::apply::apply;
use crate::error::{Error, Result};
use crate::spec;
use crate::storage::Location;

/// Options of `feedline apply`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline apply out/teahouse 'new/*.parquet' --to out/scored
  feedline apply out/teahouse new/orders.parquet --version 3 --to out/scored --overwrite

New data goes through the stages with what was learned from the training data: serving sees what training saw.

The result is complete once FOLDER holds `_SUCCESS`, which is written last and lists every file with its rows, size and hash. Files beside no
`_SUCCESS` are of an apply that did not end: do not read them.")]
pub struct ApplyArgs {
    /// The dataset.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// The new data: a file, a folder or a glob.
    #[arg(value_name = "INPUT")]
    pub input: String,
    /// The folder for the result: a new or empty one.
    #[arg(long, value_name = "FOLDER")]
    pub to: String,
    /// Replace what an earlier apply, whole or not, left in the folder.
    #[arg(long)]
    pub overwrite: bool,
    /// The dataset's version; by default the latest.
    #[arg(long, value_name = "N")]
    pub version: Option<u64>,
}

pub(super) fn run(args: &ApplyArgs) -> Result<u8> {
    let stores = args.dataset.stores.open()?;
    let dataset = args.dataset.open_with(&stores.clone().unwrap_or_default())?;
    let manifest = block_on(1, dataset.manifest(args.version))?;
    let here = std::env::current_dir()?;
    let main = manifest.run.uris.keys().next().ok_or_else(|| Error::input("the manifest names no source"))?;
    // Paths are text, whatever they would mean in YAML: `*.parquet` is no alias.
    let set = |name: &str, uri: &str| Ok((format!("sources.\"{name}\".uri"), serde_json::to_string(uri)?));
    let mut overrides = vec![set(main, &args.input)?, ("sink.uri".to_owned(), serde_json::to_string(&args.to)?)];
    overrides.extend(manifest.run.uris.iter().skip(1).map(|(name, uri)| set(name, uri)).collect::<Result<Vec<_>>>()?);
    let mut loaded = spec::reload(&manifest.spec, "the manifest's spec", &overrides)?;
    if let Some(stores) = stores {
        loaded.pipeline.stores = stores;
    }
    let to = Location::open_with(&args.to, &here, &loaded.pipeline.stores)?;
    let applied = block_on(loaded.pipeline.resources.threads, apply(&loaded, &here, &manifest, &to, args.overwrite))?;
    if !applied.missing.is_empty() {
        tracing::warn!("taken as null, since the new data lacks them: {}", applied.missing.join(", "));
    }
    print(&format!("{} rows in {} files in {}\n", applied.rows, applied.files.len(), to.display()))?;
    Ok(0)
}
