//! `feedline validate`

use clap::Args;

use super::{SpecArgs, print};
use crate::error::Result;

/// Options of `feedline validate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedline validate pipeline.yaml
  feedline validate pipeline.yaml --set vars.raw=s3://bucket/raw
  generate-spec | feedline validate - --json")]
pub struct ValidateArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// Print the mistakes as JSON, a list that is empty where there are none.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ValidateArgs) -> Result<u8> {
    let text = args.spec.read()?;
    match args.spec.load(&text) {
        Ok(_) if args.json => print("[]\n")?,
        Ok(loaded) => {
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
