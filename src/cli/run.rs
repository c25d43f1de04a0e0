//! `feedline run`

use std::sync::Arc;

use clap::Args;

use super::progress::Bars;
use super::spec_args::Opened;
use super::{SpecArgs, block_on, print};
use crate::engine::run::{Outcome, RunOptions, run as run_pipeline, sink};
use crate::error::Result;
use crate::progress::Progress;

/// Options of `feedline run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline run pipeline.yaml
  feedline run pipeline.yaml --set vars.raw=/data/raw --set resources.memory=4GiB
  feedline --log-format json run pipeline.yaml --json > summary.json

A run that was killed is taken up by running the same again.")]
pub struct RunArgs {
    /// The spec.
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Run even where the newest version was made of the same spec and inputs.
    #[arg(long)]
    pub force: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &RunArgs, quiet: bool) -> Result<u8> {
    let (outcome, _) = execute(&args.spec, args.force, quiet)?;
    print(&if args.json { json(&outcome) } else { text(&outcome) })?;
    Ok(0)
}

/// Runs a spec; gives what it did and where its dataset lies.
pub(super) fn execute(spec: &SpecArgs, force: bool, quiet: bool) -> Result<(Outcome, String)> {
    let Opened { loaded, base } = spec.open()?;
    let progress = Arc::new(Progress::default());
    let options = RunOptions { force, progress: progress.clone() };
    let _bars = Bars::draw(progress, quiet);
    let outcome = block_on(loaded.pipeline.resources.threads, run_pipeline(&loaded, &base, &options))?;
    let dataset = sink(&loaded, &base)?.display();
    Ok((outcome, dataset))
}

/// What a run did, in a few lines.
pub(super) fn text(outcome: &Outcome) -> String {
    let m = &outcome.manifest;
    match &outcome.report {
        Some((report, folder)) => format!("{report}  report     {folder}/report.html\n  version    {} ({})\n", m.version, &m.hash[..12]),
        None => format!("{} version {} already holds this: same spec, same inputs (use --force to run all the same)\n", m.name, m.version),
    }
}

fn json(outcome: &Outcome) -> String {
    let m = &outcome.manifest;
    let summary = serde_json::json!({
        "pipeline": m.name, "version": m.version, "hash": m.hash, "fresh": outcome.fresh, "rows": m.rows,
        "shards": m.shards.len(), "report": outcome.report.as_ref().map(|(_, folder)| folder),
        "warnings": outcome.report.as_ref().map(|(r, _)| r.warnings.clone()).unwrap_or_default(),
    });
    format!("{summary:#}\n")
}
