//! `feedline plan`

use clap::Args;

use super::SpecArgs;

/// Options of `feedline plan`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline plan pipeline.yaml
  feedline plan pipeline.yaml --set vars.raw=sample/ --json")]
pub struct PlanArgs {
    /// The spec.
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Print the plan as JSON.
    #[arg(long)]
    pub json: bool,
}
