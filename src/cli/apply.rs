//! `feedline apply`

use clap::Args;

/// Options of `feedline apply`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline apply out/teahouse 'new/*.parquet' --to out/scored
  feedline apply out/teahouse new/orders.parquet --version 3 --to out/scored

New data goes through the stages with what was learned from the training data: serving sees what training saw.")]
pub struct ApplyArgs {
    /// The dataset whose stages and statistics are used.
    #[arg(value_name = "DATASET")]
    pub dataset: String,
    /// The new data: a file, a folder or a glob.
    #[arg(value_name = "INPUT")]
    pub input: String,
    /// The folder for the result.
    #[arg(long, value_name = "FOLDER")]
    pub to: String,
    /// The dataset's version; by default the latest.
    #[arg(long, value_name = "N")]
    pub version: Option<u64>,
}
