//! `feedline verify`

use clap::Args;

use super::{DatasetArgs, block_on, print};
use crate::dataset::verify::{verify, verify_rows};
use crate::error::{Error, Kind, Result};

/// Options of `feedline verify`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline verify out/teahouse
  feedline verify out/teahouse --version 3
  feedline verify out/teahouse --rows         # an encrypted version, with its keys")]
pub struct VerifyArgs {
    /// The dataset.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// The version; by default the latest.
    #[arg(long, value_name = "N")]
    pub version: Option<u64>,
    /// Hash the rows of an encrypted version too: needs its keys.
    #[arg(long)]
    pub rows: bool,
    /// Print what was found as JSON.
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &VerifyArgs) -> Result<u8> {
    let dataset = args.dataset.open()?;
    let (manifest, faults) = block_on(2, async {
        let manifest = dataset.manifest(args.version).await?;
        let mut faults = verify(&dataset, &manifest).await?;
        if args.rows {
            faults.extend(verify_rows(&dataset, &manifest).await?);
        }
        Ok((manifest, faults))
    })?;
    if args.json {
        print(&format!("{:#}\n", serde_json::json!({ "version": manifest.version, "shards": manifest.shards.len(), "faults": faults })))?;
        return Ok(u8::from(!faults.is_empty()));
    }
    if faults.is_empty() {
        let bytes = bytesize::ByteSize(manifest.shards.iter().map(|s| s.bytes).sum());
        print(&format!("version {}: {} shards, {bytes}, all as the manifest says\n", manifest.version, manifest.shards.len()))?;
        return Ok(0);
    }
    for fault in &faults {
        print(&format!("{}: {}\n", fault.path, fault.what))?;
    }
    Err(Error::new(Kind::Quality, format!("{} of {} files are not as the manifest says", faults.len(), manifest.shards.len()))
        .at(dataset.root.display())
        .hint("run the pipeline again with --force: shards are written anew under the same names"))
}
