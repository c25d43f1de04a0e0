//! `feedline quickstart`: a small example to begin with.

mod data;

use std::path::{Path, PathBuf};

use clap::Args;

use super::{SpecArgs, print};
use crate::error::{Error, Result};
use crate::spec::json_schema_text;

/// Options of `feedline quickstart`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedline quickstart
  feedline quickstart /tmp/teahouse
  cd feedline-quickstart && feedline validate pipeline.yaml")]
pub struct QuickstartArgs {
    /// The folder to write: a new one, or an empty one.
    #[arg(default_value = "feedline-quickstart")]
    folder: PathBuf,
    /// Only write it, do not run the pipeline.
    #[arg(long)]
    no_run: bool,
}

/// The example's pipeline.
const PIPELINE: &str = include_str!("quickstart/pipeline.yaml");

pub(super) fn run(args: &QuickstartArgs, quiet: bool) -> Result<u8> {
    write(&args.folder)?;
    let folder = args.folder.display();
    print(&format!("wrote {folder}: the orders of a chain of teahouses, as dirty as real data\n\n"))?;
    if args.no_run {
        return print(&format!("next:\n  feedline run {folder}/pipeline.yaml\n")).map(|()| 0);
    }
    let spec = SpecArgs { path: args.folder.join("pipeline.yaml"), set: Vec::new() };
    let (outcome, dataset) = super::run::execute(&spec, false, quiet)?;
    print(&format!(
        "{}\nnext:\n\
         \x20 open the report in a browser: its path stands above\n\
         \x20 read {folder}/pipeline.yaml: it explains itself; change it and run it again\n\
         \x20 feedline run {folder}/pipeline.yaml\n\
         \x20 feedline feed {dataset}        # batches as a trainer gets them\n\
         \x20 feedline ls {dataset}\n",
        super::run::text(&outcome)
    ))?;
    Ok(0)
}

/// Writes the example. What is there already is never touched.
fn write(folder: &Path) -> Result<()> {
    let at = |e: std::io::Error, path: &Path| Error::from(e).at(path.display().to_string());
    if folder.is_file() || std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::usage("this folder is not empty").at(folder.display().to_string()).hint("give the name of a new one"));
    }
    let orders = folder.join("data/orders");
    std::fs::create_dir_all(&orders).map_err(|e| at(e, &orders))?;
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|e| at(e, &path))
    };
    for shard in 0..data::SHARDS {
        put(&format!("data/orders/part-{shard:05}.parquet"), &data::orders(shard)?)?;
    }
    // an upload that stopped half-way
    let whole = data::orders(data::SHARDS)?;
    let name = format!("data/orders/part-{:05}.parquet", data::SHARDS);
    put(&name, whole.get(..whole.len() / 2).unwrap_or_default())?;
    put("data/customers.parquet", &data::customers()?)?;
    put("pipeline.schema.json", json_schema_text().as_bytes())?;
    put("pipeline.yaml", PIPELINE.as_bytes())
}

#[cfg(test)]
mod tests {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    #[test]
    fn the_example_is_complete_and_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new/example");
        write(&folder).unwrap();
        let rows = |name: &str| {
            let file = std::fs::File::open(folder.join(name)).unwrap();
            ParquetRecordBatchReaderBuilder::try_new(file).map(|b| b.metadata().file_metadata().num_rows())
        };
        for shard in 0..data::SHARDS {
            assert_eq!(rows(&format!("data/orders/part-{shard:05}.parquet")).unwrap(), data::ROWS as i64);
        }
        assert!(rows("data/orders/part-00003.parquet").is_err(), "one shard is broken");
        assert_eq!(rows("data/customers.parquet").unwrap(), data::CUSTOMERS as i64);
        let e = write(&folder).unwrap_err();
        assert_eq!((e.exit_code(), e.message()), (64, "this folder is not empty"));
    }

    #[test]
    fn the_examples_spec_is_right() {
        // Where a stage is not registered (in a build without it), nothing else may be wrong.
        match crate::spec::load(PIPELINE, "pipeline.yaml", &[], &|_| None) {
            Ok(loaded) => assert_eq!(loaded.stages.len(), 6),
            Err(e) => assert!(e.mistakes().all(|m| m.message.starts_with("there is no stage")), "{e}"),
        }
        for stage in ["join", "dedup", "split", "clean", "balance", "normalize"] {
            assert!(PIPELINE.contains(&format!("  - {stage}:")));
        }
    }
}
