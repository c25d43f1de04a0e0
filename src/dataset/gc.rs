//! Removing what no version needs: old versions, orphaned shards, what killed runs left.

use std::collections::BTreeSet;

use chrono::{DateTime, Duration, Utc};
use futures::{StreamExt, stream};
use object_store::ObjectMeta;

use super::{Dataset, Manifest};
use crate::error::Result;
use crate::spec::stores::REQUESTS;

/// What may go.
#[derive(Debug, Clone, Copy, Default)]
pub struct GcOptions {
    /// How many of the latest versions stay; all where this is `None`.
    pub keep: Option<u64>,
    /// Younger objects that no version names stay: they may be a killed run's, which the next run takes up.
    pub older_than_hours: u64,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What went.
#[derive(Debug, Clone, Default)]
pub struct Swept {
    /// Paths below the dataset.
    pub paths: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
}

/// Removes. Manifests go first, so that no manifest ever names a file that is gone. The caller holds the lease. `swept` tells what went, of a sweep that
/// fails half-way too.
///
/// # Errors
/// What the store says to a listing or a removal.
pub async fn gc(dataset: &Dataset, options: &GcOptions, swept: &mut Swept) -> Result<()> {
    let versions = dataset.versions().await?;
    let stay = options.keep.map_or(versions.len(), |keep| keep as usize).min(versions.len());
    let (gone, kept) = versions.split_at(versions.len() - stay);
    let mut named = BTreeSet::new();
    for version in kept {
        named.extend(files(&dataset.manifest(Some(*version)).await?));
    }
    // What only removed versions name goes with them, however young; what no version names may be a killed run's.
    let mut freed = BTreeSet::new();
    for version in gone {
        freed.extend(files(&dataset.manifest(Some(*version)).await?));
    }
    for version in gone {
        let path = Dataset::manifest_path(*version);
        if let Some(meta) = dataset.root.child(&path).head().await? {
            remove(dataset, vec![(path, meta)], options, swept).await?;
        }
    }
    let oldest = Utc::now() - Duration::hours(i64::try_from(options.older_than_hours).unwrap_or(i64::MAX / 3_600_000));
    let mut doomed = Vec::new();
    for folder in ["data", "_feedline"] {
        for meta in dataset.root.child(folder).list().await? {
            let Some(parts) = meta.location.prefix_match(&dataset.root.path) else { continue };
            let path = parts.map(|p| p.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            let bookkeeping = path == "_feedline/lease" || path.starts_with("_feedline/versions/");
            if bookkeeping && !is_unfinished(&path) {
                continue;
            }
            let of_gone = freed.contains(&path) || gone.iter().any(|v| path.contains(&format!("/{v:08}/")));
            let of_kept = named.contains(&path) || kept.iter().any(|v| path.starts_with(&format!("_feedline/reports/{v:08}/")));
            if !of_kept && (of_gone || meta.last_modified <= oldest) {
                doomed.push((path, meta));
            }
        }
    }
    remove(dataset, doomed, options, swept).await?;
    for (path, bytes, changed) in dataset.root.unfinished_files()? {
        if changed <= oldest {
            if !options.dry_run {
                std::fs::remove_file(&path)?;
            }
            swept.bytes += bytes;
            swept.paths.push(path.display().to_string());
        }
    }
    abort_uploads(dataset, oldest, options, swept).await
}

/// Whether a file is one that HDFS was still writing: `.NAME.tmp.N` stands beside the name until it is whole.
pub fn is_unfinished(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.starts_with('.') && name.rsplit_once('.').is_some_and(|(stem, n)| stem.ends_with(".tmp") && n.parse::<u64>().is_ok())
}

/// Uploads that a killed run never finished: no listing of objects shows them, and S3 keeps (and bills) their parts for ever.
async fn abort_uploads(dataset: &Dataset, oldest: DateTime<Utc>, options: &GcOptions, swept: &mut Swept) -> Result<()> {
    let Some(bucket) = dataset.root.bucket() else { return Ok(()) };
    for upload in bucket.unfinished(&dataset.root.path).await.map_err(|e| e.at(dataset.root.display()))? {
        // One whose age is not told may be under way.
        if !DateTime::parse_from_rfc3339(&upload.initiated).is_ok_and(|begun| begun <= oldest) {
            continue;
        }
        if !options.dry_run {
            bucket.abort(&upload).await?;
        }
        swept.paths.push(format!("{} (unfinished upload)", upload.path));
    }
    Ok(())
}

/// Removes many objects at once; one that fails does not keep the others.
async fn remove(dataset: &Dataset, doomed: Vec<(String, ObjectMeta)>, options: &GcOptions, swept: &mut Swept) -> Result<()> {
    let removals = doomed.into_iter().map(|(path, meta)| async move {
        if !options.dry_run {
            dataset.root.child(&path).remove().await?;
        }
        Ok((path, meta.size))
    });
    let mut removals = stream::iter(removals).buffered(REQUESTS);
    let mut ended = Ok(());
    while let Some(removed) = removals.next().await {
        match removed {
            Ok((path, bytes)) => {
                swept.bytes += bytes;
                swept.paths.push(path);
            }
            Err(e) => ended = ended.and(Err(e)),
        }
    }
    ended
}

/// The files that a manifest names.
fn files(manifest: &Manifest) -> impl Iterator<Item = String> + '_ {
    manifest.shards.iter().map(|s| s.path.clone()).chain(manifest.quarantine.iter().map(|q| q.path.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_the_making_are_told_by_name() {
        assert!(is_unfinished("data/split=train/.part-1.parquet.tmp.12") && is_unfinished("_feedline/versions/.00000001.json.tmp.1"));
        assert!(!is_unfinished("_feedline/versions/00000001.json") && !is_unfinished("data/.hidden") && !is_unfinished("a.tmp.x"));
    }
}
