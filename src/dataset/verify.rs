//! Hashing a version's files again.

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Dataset, Manifest};
use crate::error::{Error, Result};

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

/// Hashes all shards of a version, and the manifest itself. Reads each file once, as a stream.
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
