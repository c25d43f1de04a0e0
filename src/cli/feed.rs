//! `feedline feed`

use clap::Args;

use super::{DatasetArgs, block_on, print};
use crate::error::Result;
use crate::feed::{Feed, FeedOptions, drive, spec_of};

/// Options of `feedline feed`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline feed out/teahouse --split train --epochs 3
  feedline feed out/teahouse --batch-rows 4096 --world 8 --rank 0

Reads batches as a trainer would, and says how fast they come.")]
pub struct FeedArgs {
    /// The dataset.
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// The version; by default the latest.
    #[arg(long, value_name = "N")]
    pub version: Option<u64>,
    /// The split; by default `train`, or the only one.
    #[arg(long)]
    pub split: Option<String>,
    /// Stop after so many batches of each epoch.
    #[arg(long, value_name = "N")]
    pub batches: Option<u64>,
    /// Epochs to read.
    #[arg(long, default_value_t = 1)]
    pub epochs: u64,
    /// Rows in a batch; by default as the spec says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub batch_rows: Option<u64>,
    /// The seed of the order; by default the spec's.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Processes that share an epoch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub world: u64,
    /// Which of them this is, from 0.
    #[arg(long, default_value_t = 0)]
    pub rank: u64,
    /// Print the measurements as JSON.
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &FeedArgs) -> Result<u8> {
    let dataset = args.dataset.open()?;
    let manifest = block_on(1, dataset.manifest(args.version))?;
    let mut spec = spec_of(&manifest)?;
    if let Some(rows) = args.batch_rows {
        spec.batch_rows = rows as usize;
    }
    for epoch in 0..args.epochs {
        let options = FeedOptions {
            split: args.split.clone(),
            seed: args.seed,
            epoch,
            rank: args.rank as usize,
            world_size: args.world as usize,
            ..Default::default()
        };
        let mut feed = Feed::open(&dataset.root, &manifest, &spec, options)?;
        let summary = drive(&mut feed, args.batches)?;
        print(&if args.json { format!("{}\n", serde_json::to_value(&summary)?) } else { format!("{summary}\n") })?;
    }
    Ok(0)
}
