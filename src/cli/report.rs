//! `feedline report`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Options of `feedline report`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline report out/teahouse                                # a page in Markdown on stdout
  feedline report out/teahouse --format html --to report.html
  feedline report out/teahouse --version 7 --against 6 --format json")]
pub struct ReportArgs {
    /// The dataset's folder.
    #[arg(value_name = "DATASET")]
    pub dataset: String,
    /// The version; by default the latest.
    #[arg(long, value_name = "N")]
    pub version: Option<u64>,
    /// The version that drift is measured against; by default the one before.
    #[arg(long, value_name = "N")]
    pub against: Option<u64>,
    /// The form.
    #[arg(long, value_enum, default_value_t = ReportFormat::Markdown)]
    pub format: ReportFormat,
    /// The file to write; by default stdout.
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// One self-contained page.
    Html,
    /// Every number.
    Json,
    /// For CI systems.
    Junit,
    /// For terminals and pull requests.
    #[default]
    Markdown,
}
