//! `feedline plan`

use clap::Args;

use super::spec_args::Opened;
use super::{SpecArgs, block_on, print};
use crate::crypt::{self, Vault};
use crate::engine::run::{open_sources, plan};
use crate::error::Result;
use crate::plan::explain;
use crate::progress::Progress;

/// Options of `feedline plan`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline plan pipeline.yaml
  feedline plan pipeline.yaml --set vars.raw=sample/")]
pub struct PlanArgs {
    /// The spec.
    #[command(flatten)]
    pub spec: SpecArgs,
}

pub(super) fn run(args: &PlanArgs) -> Result<u8> {
    let Opened { loaded, base } = args.spec.open()?;
    crypt::check(&loaded, &base)?;
    let sources = block_on(
        loaded.pipeline.resources.threads,
        open_sources(&loaded, &base, &Vec::new(), None, &Vault::default(), &Progress::default()),
    )?;
    let (plan, _) = plan(&loaded, &sources)?;
    print(&explain(&plan, &sources))?;
    Ok(0)
}
