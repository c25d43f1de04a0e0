//! `feedline test`

use std::path::PathBuf;

use clap::Args;

use super::SpecArgs;

/// Options of `feedline test`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline test pipeline.yaml
  feedline test pipeline.yaml --only 'late orders' --junit report.xml")]
pub struct TestArgs {
    /// The spec, whose `tests` are run.
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Run only the cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Also write the results as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}
