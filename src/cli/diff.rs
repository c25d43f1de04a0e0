//! `feedline diff`

use clap::Args;

use super::{DatasetArgs, block_on, print};
use crate::dataset::diff::Diff;
use crate::error::{Error, Result};

/// Options of `feedline diff`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline diff out/teahouse          # the latest version against the one before
  feedline diff out/teahouse 3 7")]
pub struct DiffArgs {
    /// The dataset.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// The older version; by default the one before `NEW`.
    #[arg(value_name = "OLD")]
    pub old: Option<u64>,
    /// The newer version; by default the latest.
    #[arg(value_name = "NEW", requires = "old")]
    pub new: Option<u64>,
    /// Print the differences as JSON.
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &DiffArgs) -> Result<u8> {
    let dataset = args.dataset.open()?;
    let diff = block_on(1, async {
        let new = dataset.manifest(args.new).await?;
        let old = match args.old.or(new.parent) {
            Some(old) => dataset.manifest(Some(old)).await?,
            None => return Err(Error::usage("there is only one version").at(dataset.root.display()).hint("run the pipeline again first")),
        };
        Ok(Diff::of(&old, &new))
    })?;
    print(&if args.json { format!("{:#}\n", serde_json::to_value(&diff)?) } else { diff.to_string() })?;
    Ok(0)
}
