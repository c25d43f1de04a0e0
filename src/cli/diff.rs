//! `feedline diff`

use clap::Args;

/// Options of `feedline diff`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline diff out/teahouse          # the latest version against the one before
  feedline diff out/teahouse 3 7")]
pub struct DiffArgs {
    /// The dataset's folder.
    #[arg(value_name = "DATASET")]
    pub dataset: String,
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
