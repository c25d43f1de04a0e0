//! Lines of text formats that could not be read go to the quarantine too.

use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use sha2::{Digest, Sha256};

use crate::crypt::Vault;
use crate::dataset::manifest::{Manifest, QuarantineShard};
use crate::error::{Error, Result};
use crate::sink::shard::{ShardOptions, ShardWriter};
use crate::source::{Found, Source, Sources, UnitReader, open_shard};
use crate::spec::pipeline::{SinkSpec, SourceSpec};
use crate::storage::Location;

/// Rows that are copied together.
const ROWS: usize = 1024;
/// The column with a line's text.
const LINE: &str = "_line";

/// Copies the lines of all sources below `folder`, where rejected rows are kept, and names them in the manifest.
pub async fn keep(
    sources: &Sources,
    vault: &Vault,
    sink: &SinkSpec,
    root: &Location,
    folder: Option<&str>,
    manifest: &mut Manifest,
) -> Result<()> {
    let Some(folder) = folder else { return Ok(()) };
    for shard in sources.values().flat_map(|s| &s.shards) {
        let Some(lines) = &shard.rejected_lines else { continue };
        let path = format!("{folder}/lines-{}.parquet", &shard.fingerprint[..16]);
        let to = root.child(&path);
        let sha256 = if vault.is_locked() { encrypted(lines, vault, sink, to).await? } else { copied(lines, to).await? };
        let rows = shard.rejected.iter().map(|(_, n)| n).sum();
        manifest.quarantine.push(QuarantineShard { path, rows, sha256 });
    }
    Ok(())
}

async fn copied(lines: &Location, to: Location) -> Result<String> {
    let bytes = read(lines).await?;
    let sha256 = hex::encode(Sha256::digest(&bytes));
    to.write(bytes).await?;
    Ok(sha256)
}

async fn read(lines: &Location) -> Result<bytes::Bytes> {
    lines.read().await?.ok_or_else(|| Error::storage("a staged file vanished").at(lines.display()).hint("run again"))
}

/// In staging the lines are under another key than rejected rows are.
async fn encrypted(lines: &Location, vault: &Vault, sink: &SinkSpec, to: Location) -> Result<String> {
    let bytes = read(lines).await?.len() as u64;
    let found = Found::own("lines", lines.clone(), bytes);
    let spec: SourceSpec = serde_json::from_value(serde_json::json!({ "uri": "", "hive": false }))?;
    let shard = open_shard(&found, &vault.staging_keys()).await?;
    let source = Arc::new(Source::new("lines", &spec, vec![shard], Vec::new())?);
    let schema = source.schema.clone();
    let options = ShardOptions::new(&schema, sink)?.encrypted(vault.of_rejected(&schema)?);
    let mut writer = ShardWriter::begin(to, &options)?;
    for unit in source.units(0, 0) {
        let fields = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        let mut reader = UnitReader::open(&unit, fields, ROWS)?;
        while let Some((_, batch)) = reader.next().await? {
            let batch = if vault.keeps_lines() { batch } else { without_text(&batch)? };
            writer.write(batch.with_schema(schema.clone())?).await?;
        }
    }
    Ok(writer.finish().await?.sha256)
}

fn without_text(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| match field.name().as_str() {
        LINE => new_null_array(field.data_type(), batch.num_rows()),
        _ => column.clone(),
    });
    Ok(RecordBatch::try_new(schema.clone(), columns.collect())?)
}
