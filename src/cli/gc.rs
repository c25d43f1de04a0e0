//! `feedline gc`

use clap::Args;

use super::{DatasetArgs, block_on, print};
use crate::dataset::gc::{GcOptions, Swept, gc};
use crate::error::Result;
use crate::sink::lease::Lease;

/// Options of `feedline gc`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline gc out/teahouse --dry-run      # what would be removed?
  feedline gc out/teahouse --keep 5")]
pub struct GcArgs {
    /// The dataset.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// How many of the latest versions stay; by default all, and only what no version names is removed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub keep: Option<u64>,
    /// Remove only what is at least this many hours old, so that a run under way keeps its work.
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    pub older_than_hours: u64,
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    pub dry_run: bool,
}

pub(super) fn run(args: &GcArgs) -> Result<u8> {
    let dataset = args.dataset.open()?;
    let options = GcOptions { keep: args.keep, older_than_hours: args.older_than_hours, dry_run: args.dry_run };
    let mut swept = Swept::default();
    let ended = block_on(2, async {
        let lease = Lease::take(&dataset.root).await?;
        let ended = gc(&dataset, &options, &mut swept).await;
        lease.release().await;
        ended
    });
    for path in &swept.paths {
        print(&format!("{path}\n"))?;
    }
    if ended.is_ok() || !swept.paths.is_empty() {
        let verb = if args.dry_run { "would remove" } else { "removed" };
        print(&format!("{verb} {} objects, {}\n", swept.paths.len(), bytesize::ByteSize(swept.bytes)))?;
    }
    ended.map(|()| 0)
}
