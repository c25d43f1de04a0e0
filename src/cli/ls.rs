//! `feedline ls`

use clap::Args;

use super::{DatasetArgs, block_on, print};
use crate::dataset::Manifest;
use crate::error::Result;

/// Options of `feedline ls`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline ls out/teahouse
  feedline ls out/teahouse --json")]
pub struct LsArgs {
    /// The dataset.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// Print the versions as JSON.
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &LsArgs) -> Result<u8> {
    let dataset = args.dataset.open()?;
    let versions = block_on(1, async {
        let mut manifests = Vec::new();
        for version in dataset.versions().await? {
            manifests.push(dataset.manifest(Some(version)).await?);
        }
        Ok(manifests)
    })?;
    if versions.is_empty() {
        block_on(1, dataset.manifest(None))?;
    }
    print(&if args.json { format!("{:#}\n", versions.iter().map(summary).collect::<serde_json::Value>()) } else { table(&versions) })?;
    Ok(0)
}

fn summary(m: &Manifest) -> serde_json::Value {
    serde_json::json!({
        "version": m.version, "hash": m.hash, "name": m.name, "committed": m.run.committed, "rows": m.rows.by_split,
        "shards": m.shards.len(), "bytes": bytes(m),
    })
}

fn bytes(m: &Manifest) -> u64 {
    m.shards.iter().map(|s| s.bytes).sum()
}

fn table(versions: &[Manifest]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(["version", "committed", "hash", "rows", "shards", "size", "splits"]);
    for m in versions {
        let splits: Vec<String> = m.rows.by_split.iter().map(|(name, rows)| format!("{name} {rows}")).collect();
        table.add_row([
            m.version.to_string(),
            m.run.committed.clone(),
            m.hash[..12.min(m.hash.len())].to_owned(),
            m.rows.output.to_string(),
            m.shards.len().to_string(),
            bytesize::ByteSize(bytes(m)).to_string(),
            splits.join(", "),
        ]);
    }
    format!("{}\n", table.trim_fmt())
}
