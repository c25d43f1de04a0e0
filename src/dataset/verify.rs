//! Hashing a version's files again.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::manifest::Shard;
use super::{Dataset, Manifest};
use crate::crypt::{FileKeys, RowsHash};
use crate::error::{Error, Kind, Result};
use crate::sink::shard::WRITE_ROWS;
use crate::source::{Found, Source, UnitReader, open_shard};
use crate::spec::pipeline::SourceSpec;

/// Files hashed at once.
const FILES: usize = 4;

/// A file that is not as the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Its path below the dataset.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

/// Hashes all shards of a version, and the manifest itself. Reads each file once, as a stream. Needs no key.
pub async fn verify(dataset: &Dataset, manifest: &Manifest) -> Result<Vec<Fault>> {
    let mut faults = Vec::new();
    if manifest.content_hash()? != manifest.hash {
        let path = Dataset::manifest_path(manifest.version);
        faults.push(Fault { path, what: "the manifest was changed: its hash is another".to_owned() });
    }
    let shards = manifest.shards.iter().map(|s| (s.path.clone(), s.sha256.clone()));
    let files: Vec<_> = shards.chain(manifest.quarantine.iter().map(|q| (q.path.clone(), q.sha256.clone()))).collect();
    let checks = stream::iter(files).map(|(path, expected)| async move {
        let what = match hash(dataset, &path).await? {
            None => "is missing".to_owned(),
            Some(got) if got != expected => {
                format!("has SHA-256 {}…, the manifest says {}…", &got[..12], &expected[..12.min(expected.len())])
            }
            Some(_) => return Ok(None),
        };
        Ok::<_, Error>(Some(Fault { path, what }))
    });
    let found: Vec<Option<Fault>> = checks.buffered(FILES).try_collect().await?;
    faults.extend(found.into_iter().flatten());
    Ok(faults)
}

/// Hashes the rows of an encrypted version's shards again, with the keys that its manifest names. Of a version that is not encrypted the files'
/// own hashes say all.
///
/// # Errors
/// `Key` where a key is missing or another one.
pub async fn verify_rows(dataset: &Dataset, manifest: &Manifest) -> Result<Vec<Fault>> {
    let keys = FileKeys::of_version(manifest);
    let mut faults = Vec::new();
    for shard in &manifest.shards {
        let Some(expected) = &shard.rows_sha256 else { continue };
        let what = match rows_of(dataset, shard, &keys).await {
            Ok(got) if got == *expected => continue,
            Ok(got) => format!("its rows have SHA-256 {}…, the manifest says {}…", &got[..12], &expected[..12.min(expected.len())]),
            Err(e) if e.kind() == Kind::Input => e.message().to_owned(),
            Err(e) => return Err(e),
        };
        faults.push(Fault { path: shard.path.clone(), what });
    }
    Ok(faults)
}

async fn rows_of(dataset: &Dataset, shard: &Shard, keys: &FileKeys) -> Result<String> {
    let location = dataset.root.child(&shard.path);
    let bytes = location.head().await?.ok_or_else(|| Error::input("is missing"))?.size;
    let found = Found::own(shard.path.clone(), location, bytes);
    let spec: SourceSpec = serde_json::from_value(serde_json::json!({ "uri": "", "hive": false }))?;
    let source = Arc::new(Source::new("shard", &spec, vec![open_shard(&found, keys).await?], Vec::new())?);
    let mut hash = RowsHash::new(&source.schema)?;
    for unit in source.units(0, 0) {
        let fields = source.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        let mut reader = UnitReader::open(&unit, fields, WRITE_ROWS)?;
        while let Some((_, batch)) = reader.next().await? {
            hash.update(&batch)?;
        }
    }
    Ok(hash.finish())
}

async fn hash(dataset: &Dataset, path: &str) -> Result<Option<String>> {
    let at = dataset.root.child(path);
    let got = match at.store.get(&at.path).await {
        Ok(got) => got,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(Error::from(e).at(at.display())),
    };
    let mut hash = Sha256::new();
    let mut bytes = got.into_stream();
    while let Some(part) = bytes.try_next().await.map_err(|e| Error::from(e).at(at.display()))? {
        hash.update(&part);
    }
    Ok(Some(hex::encode(hash.finalize())))
}
