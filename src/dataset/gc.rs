//! Removing what no version needs: old versions, orphaned shards, what killed runs left.

use std::collections::BTreeSet;

use chrono::{Duration, Utc};
use object_store::ObjectMeta;

use super::{Dataset, Manifest};
use crate::error::Result;

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

/// Removes. Manifests go first, so that no manifest ever names a file that is gone. The caller holds the lease.
pub async fn gc(dataset: &Dataset, options: &GcOptions) -> Result<Swept> {
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
    let mut swept = Swept::default();
    for version in gone {
        let path = Dataset::manifest_path(*version);
        if let Some(meta) = dataset.root.child(&path).head().await? {
            remove(dataset, path, &meta, options, &mut swept).await?;
        }
    }
    let oldest = Utc::now() - Duration::hours(i64::try_from(options.older_than_hours).unwrap_or(i64::MAX / 3_600_000));
    for folder in ["data", "_feedline/staging", "_feedline/quarantine", "_feedline/reports"] {
        for meta in dataset.root.child(folder).list().await? {
            let Some(parts) = meta.location.prefix_match(&dataset.root.path) else { continue };
            let path = parts.map(|p| p.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            let of_gone = freed.contains(&path) || gone.iter().any(|v| path.contains(&format!("/{v:08}/")));
            let of_kept = named.contains(&path) || kept.iter().any(|v| path.starts_with(&format!("_feedline/reports/{v:08}/")));
            if !of_kept && (of_gone || meta.last_modified <= oldest) {
                remove(dataset, path, &meta, options, &mut swept).await?;
            }
        }
    }
    Ok(swept)
}

async fn remove(dataset: &Dataset, path: String, meta: &ObjectMeta, options: &GcOptions, swept: &mut Swept) -> Result<()> {
    if !options.dry_run {
        dataset.root.child(&path).remove().await?;
    }
    swept.bytes += meta.size;
    swept.paths.push(path);
    Ok(())
}

/// The files that a manifest names.
fn files(manifest: &Manifest) -> impl Iterator<Item = String> + '_ {
    manifest.shards.iter().map(|s| s.path.clone()).chain(manifest.quarantine.iter().map(|q| q.path.clone()))
}
