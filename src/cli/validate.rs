//! `feedline validate`

use clap::Args;

use super::{SpecArgs, block_on, print};
use crate::crypt::{self, Vault};
use crate::engine::run::{open_sources, plan};
use crate::error::Result;
use crate::progress::Progress;
use crate::spec::Loaded;

/// Options of `feedline validate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedline validate pipeline.yaml
  feedline validate pipeline.yaml --set vars.raw=/data/raw
  generate-spec | feedline validate - --json")]
pub struct ValidateArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// Check the text alone: do not look at the sources' columns.
    #[arg(long)]
    syntax_only: bool,
    /// Print the mistakes as JSON, a list that is empty where there are none; an object with `error` where the check itself fails.
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &ValidateArgs) -> Result<u8> {
    match check(args) {
        Ok(_) if args.json => print("[]\n").map(|()| 0),
        Ok(found) => print(&found).map(|()| 0),
        // Mistakes are this command's result. Anything else (a source that cannot be read) is an error as everywhere.
        Err(e) => match e.mistakes().filter(|_| args.json) {
            Some(mistakes) => print(&format!("{mistakes:#}\n")).map(|()| e.exit_code()),
            None => Err(e),
        },
    }
}

/// Every mistake as one error, or a line that there is none.
fn check(args: &ValidateArgs) -> Result<String> {
    let text = args.spec.read()?;
    let loaded = args.spec.load(&text)?;
    if !args.syntax_only {
        against_sources(&loaded, &text.base)?;
    }
    let labels: Vec<&str> = loaded.stages.iter().map(|s| s.label.as_str()).collect();
    let stages = if labels.is_empty() { "no stages".to_owned() } else { labels.join(", ") };
    Ok(format!("{}: no mistakes ({stages})\n", text.name))
}

/// The stages against the columns that the sources' footers name.
fn against_sources(loaded: &Loaded, base: &std::path::Path) -> Result<()> {
    crypt::check(loaded, base)?;
    let sources = block_on(
        loaded.pipeline.resources.threads,
        open_sources(loaded, base, &Vec::new(), None, &Vault::default(), &Progress::default()),
    )?;
    plan(loaded, &sources).map(|_| ())
}
