//! `feedline test`

use clap::Args;

use super::spec_args::{Opened, SpecText};
use super::{SpecArgs, block_on, print};
use crate::dataset::Manifest;
use crate::engine::run::{RunOptions, run as run_pipeline};
use crate::error::{Error, Kind, Result};
use crate::spec::pipeline::TestSpec;

/// Options of `feedline test`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  feedline test pipeline.yaml
  feedline test pipeline.yaml --only 'late orders'")]
pub struct TestArgs {
    /// The spec, whose `tests` are run.
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Run only the cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
}

pub(super) fn run(args: &TestArgs) -> Result<u8> {
    let text = args.spec.read()?;
    let Opened { loaded, .. } = args.spec.open()?;
    let cases = loaded.pipeline.tests.iter().filter(|t| args.only.as_ref().is_none_or(|only| t.name.contains(only)));
    let cases: Vec<&TestSpec> = cases.collect();
    if cases.is_empty() {
        return Err(Error::usage("the spec has no such case").at(text.name).hint("write cases under `tests:`"));
    }
    let mut failed = 0;
    for case in &cases {
        let faults = one(args, &text, case)?;
        print(&format!("{} {}\n", if faults.is_empty() { "ok    " } else { "FAILED" }, case.name))?;
        faults.iter().try_for_each(|fault| print(&format!("         {fault}\n")))?;
        failed += usize::from(!faults.is_empty());
    }
    print(&format!("{} passed, {failed} failed\n", cases.len() - failed))?;
    match failed {
        0 => Ok(0),
        n => Err(Error::new(Kind::Quality, format!("{n} of {} cases failed", cases.len())).at(text.name)),
    }
}

/// Runs the pipeline over a case's rows, in a folder of its own; gives what is not as expected.
fn one(args: &TestArgs, text: &SpecText, case: &TestSpec) -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let mut overrides = args.spec.set.clone();
    for (source, rows) in &case.given {
        let file = folder.path().join(format!("{source}.jsonl"));
        let lines: Vec<String> = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        std::fs::write(&file, lines.join("\n"))?;
        overrides.push((format!("sources.{source}.uri"), serde_json::to_string(&file.display().to_string())?));
        overrides.push((format!("sources.{source}.format"), "jsonl".to_owned()));
    }
    overrides.push(("sink.uri".to_owned(), serde_json::to_string(&folder.path().join("out").display().to_string())?));
    let mut loaded = crate::spec::load(&text.text, &text.name, &overrides, &|name| std::env::var(name).ok())?;
    // A case is made of rows that the spec itself shows: it needs no key.
    loaded.pipeline.sink.encryption = None;
    loaded.pipeline.sources.values_mut().for_each(|source| source.decryption = None);
    let options = RunOptions::default();
    let outcome = block_on(loaded.pipeline.resources.threads, run_pipeline(&loaded, &text.base, &options))?;
    let output = match &case.expect.output {
        Some(_) => rows(&folder.path().join("out"), &outcome.manifest)?,
        None => Vec::new(),
    };
    Ok(faults(case, &outcome.manifest, &output))
}

/// All rows of a version, split by split, as JSON.
fn rows(out: &std::path::Path, manifest: &Manifest) -> Result<Vec<serde_json::Map<String, serde_json::Value>>> {
    let mut writer = arrow::json::ArrayWriter::new(Vec::new());
    for shard in &manifest.shards {
        let file = std::fs::File::open(out.join(&shard.path))?;
        for batch in parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
            writer.write(&batch?)?;
        }
    }
    writer.finish()?;
    let bytes = writer.into_inner();
    Ok(if bytes.is_empty() { Vec::new() } else { serde_json::from_slice(&bytes)? })
}

fn faults(case: &TestSpec, m: &Manifest, output: &[serde_json::Map<String, serde_json::Value>]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |what: String, expected: u64, got: u64| {
        if expected != got {
            faults.push(format!("{what}: {expected} expected, {got} came"));
        }
    };
    if let Some(rows) = case.expect.rows {
        check("rows".to_owned(), rows, m.rows.output);
    }
    for (split, rows) in &case.expect.splits {
        check(format!("rows of split {split}"), *rows, m.rows.by_split.get(split).copied().unwrap_or(0));
    }
    for (stage, rows) in &case.expect.rejected {
        check(format!("rejected by {stage}"), *rows, m.rows.rejected.get(stage).map_or(0, |r| r.values().sum()));
    }
    if let Some(expected) = &case.expect.output {
        check("rows of output".to_owned(), expected.len() as u64, output.len() as u64);
        for (i, (expected, got)) in expected.iter().zip(output).enumerate() {
            for (column, value) in expected {
                let got = got.get(column).unwrap_or(&serde_json::Value::Null);
                if !alike(value, got) {
                    faults.push(format!("row {i}, column {column}: {value} expected, {got} came"));
                }
            }
        }
    }
    faults
}

/// Equal, but for the form of a number: 1 and 1.0, and the last bits of a fraction.
fn alike(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
        _ => a == b,
    }
}
