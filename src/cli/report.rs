//! `feedline report`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{DatasetArgs, block_on, print};
use crate::error::{Error, Result};
use crate::quality::html;
use crate::quality::report::Report;

/// Options of `feedline report`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline report out/teahouse                                # a few lines
  feedline report out/teahouse --format html --to report.html
  feedline report out/teahouse --version 7 --format json")]
pub struct ReportArgs {
    /// The dataset.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// The version; by default the latest.
    #[arg(long, value_name = "N")]
    pub version: Option<u64>,
    /// The form.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
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
    /// A few lines for a terminal.
    #[default]
    Text,
}

pub(super) fn run(args: &ReportArgs) -> Result<u8> {
    let dataset = args.dataset.open()?;
    let report = block_on(1, async {
        let manifest = dataset.manifest(args.version).await?;
        let at = dataset.root.child(&format!("_feedline/reports/{:08}/report.json", manifest.version));
        let bytes = at.read().await?.ok_or_else(|| Error::input("the version has no report").at(at.display()))?;
        Report::from_json(&String::from_utf8_lossy(&bytes)).map_err(|e| e.at(at.display()))
    })?;
    let text = match args.format {
        ReportFormat::Html => html::render(&report),
        ReportFormat::Json => report.to_json_pretty()?,
        ReportFormat::Text => report.to_string(),
    };
    match &args.to {
        Some(file) => std::fs::write(file, text).map_err(|e| Error::from(e).at(file.display().to_string()))?,
        None => print(&text)?,
    }
    Ok(0)
}
