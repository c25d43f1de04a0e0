//! `feedline verify`

use clap::Args;

/// Options of `feedline verify`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline verify out/teahouse
  feedline verify out/teahouse --version 3")]
pub struct VerifyArgs {
    /// The dataset's folder.
    #[arg(value_name = "DATASET")]
    pub dataset: String,
    /// The version; by default the latest.
    #[arg(long, value_name = "N")]
    pub version: Option<u64>,
    /// Print what was found as JSON.
    #[arg(long)]
    pub json: bool,
}
