//! `feedline doctor`

use std::path::Path;

use clap::Args;

use super::{StoresArgs, block_on, print};
use crate::error::{Error, Kind, Result};
use crate::storage::Location;
use crate::storage::doctor::{Check, examine};

/// Options of `feedline doctor`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline doctor s3://bucket/datasets
  feedline doctor hdfs://name/datasets --json
  feedline doctor s3://bucket/raw --read-only      # where you may only read
  feedline doctor s3://bucket/datasets --stores pipeline.yaml

Settings come from the environment (AWS_…, HADOOP_CONF_DIR, HADOOP_USER_NAME, …), or from a spec's `stores`.
What is written is removed again. Exit codes: 0 healthy, 3 something is wrong, 64 not a URI.")]
pub struct DoctorArgs {
    /// The folder to look at: where a dataset shall go, or where data lies.
    #[arg(value_name = "URI")]
    pub uri: String,
    /// How stores are reached.
    #[command(flatten)]
    pub stores: StoresArgs,
    /// Only list: write nothing.
    #[arg(long)]
    pub read_only: bool,
    /// Print what was found as JSON.
    #[arg(long)]
    pub json: bool,
    /// Seconds until a store that does not answer is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub patience: u64,
}

pub(super) fn run(args: &DoctorArgs) -> Result<u8> {
    let mut stores = args.stores.open()?.unwrap_or_default();
    if let Some((scheme, _)) = args.uri.split_once("://") {
        stores.entry(format!("{scheme}://")).or_default();
    }
    for store in stores.values_mut() {
        (store.retry_s, store.timeout_s) = (args.patience, args.patience.max(1));
    }
    let at = Location::open_with(&args.uri, Path::new("."), &stores)?;
    let checks = block_on(2, async { Ok(examine(&at, args.read_only).await) })?;
    let sick = checks.iter().find(|c| !c.ok);
    if args.json {
        print(&format!("{:#}\n", serde_json::json!({ "uri": at.display(), "healthy": sick.is_none(), "checks": checks })))?;
        return Ok(if sick.is_some() { 3 } else { 0 });
    }
    print(&checks.iter().map(line).collect::<String>())?;
    match sick {
        None => print(&format!("{} is healthy\n", at.display())).map(|()| 0),
        Some(check) => {
            let e = Error::new(Kind::Storage, format!("this store fails at `{}`: {}", check.name, check.found));
            Err(check.hint.iter().fold(e.at(at.display()), |e, hint| e.hint(hint.as_str())))
        }
    }
}

fn line(check: &Check) -> String {
    format!("{} {:<20} {:>6} ms  {}\n", if check.ok { "✓" } else { "✗" }, check.name, check.milliseconds, check.found)
}
