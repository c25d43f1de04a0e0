//! `feedline run`

use clap::{Args, ValueEnum};

use super::SpecArgs;

/// Options of `feedline run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline run pipeline.yaml
  feedline run pipeline.yaml --set vars.raw=s3://bucket/raw --set resources.memory=4GiB
  feedline --log-format json run pipeline.yaml --json > summary.json

A run that was killed is taken up by running the same again.")]
pub struct RunArgs {
    /// The spec.
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Which findings of the quality checks end the run with exit code 1, without a new version.
    #[arg(long, value_enum, default_value_t = FailOn::Error)]
    pub fail_on: FailOn,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Which findings of the quality checks make a run fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Errors.
    #[default]
    Error,
    /// Errors and warnings.
    Warning,
    /// None: they are reported.
    Never,
}
