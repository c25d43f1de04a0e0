//! `feedline validate`

use clap::Args;

use super::{SpecArgs, block_on, print};
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
    /// Print the mistakes as JSON, a list that is empty where there are none.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ValidateArgs) -> Result<u8> {
    let text = args.spec.read()?;
    match args.spec.load(&text) {
        Ok(loaded) => {
            if !args.syntax_only {
                against_sources(&loaded, &text.base)?;
            }
            if args.json {
                print("[]\n")?;
                return Ok(0);
            }
            let labels: Vec<&str> = loaded.stages.iter().map(|s| s.label.as_str()).collect();
            let stages = if labels.is_empty() { "no stages".to_owned() } else { labels.join(", ") };
            print(&format!("{}: no mistakes ({stages})\n", text.name))?;
        }
        Err(errors) if args.json => {
            print(&format!("{:#}\n", errors.to_json()))?;
            return Ok(78);
        }
        Err(errors) => return Err(errors.into()),
    }
    Ok(0)
}

/// The stages against the columns that the sources' footers name.
fn against_sources(loaded: &Loaded, base: &std::path::Path) -> Result<()> {
    let sources = block_on(loaded.pipeline.resources.threads, open_sources(loaded, base, &Vec::new(), None, &Progress::default()))?;
    plan(loaded, &sources).map(|_| ())
}
