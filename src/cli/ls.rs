//! `feedline ls`

use clap::Args;

/// Options of `feedline ls`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline ls out/teahouse
  feedline ls s3://bucket/datasets/teahouse --json")]
pub struct LsArgs {
    /// The dataset's folder.
    #[arg(value_name = "DATASET")]
    pub dataset: String,
    /// Print the versions as JSON.
    #[arg(long)]
    pub json: bool,
}
