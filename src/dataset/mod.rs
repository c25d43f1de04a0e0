//! A dataset on a store: versions, each one manifest. Shared by the sink that writes it, the feed and the report that read it.

pub mod diff;
pub mod gc;
pub mod manifest;
pub mod verify;

use crate::error::{Error, Result, nearest};
use crate::storage::Location;
pub use manifest::Manifest;

/// A dataset's folder.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Where it lies.
    pub root: Location,
}

impl Dataset {
    /// A dataset, which need not exist yet.
    pub fn new(root: Location) -> Self {
        Self { root }
    }

    /// The path of a version's manifest below the root.
    pub fn manifest_path(version: u64) -> String {
        format!("_feedline/versions/{version:08}.json")
    }

    /// The numbers of all versions, oldest first.
    pub async fn versions(&self) -> Result<Vec<u64>> {
        let listed = self.root.child("_feedline/versions").list().await?;
        let mut numbers: Vec<u64> = listed.iter().filter_map(|m| m.location.filename()?.strip_suffix(".json")?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// A version's manifest; the latest where none is named.
    pub async fn manifest(&self, version: Option<u64>) -> Result<Manifest> {
        let versions = self.versions().await?;
        let Some(latest) = versions.last() else {
            return Err(Error::input("no dataset version lies here").at(self.root.display()).hint("run a pipeline into it first"));
        };
        let wanted = version.unwrap_or(*latest);
        if !versions.contains(&wanted) {
            let names: Vec<String> = versions.iter().map(u64::to_string).collect();
            return Err(Error::input(format!("there is no version {wanted}"))
                .at(self.root.display())
                .hint(nearest(&wanted.to_string(), names.iter().map(String::as_str))));
        }
        let at = self.root.child(&Self::manifest_path(wanted));
        let bytes = at.read().await?.ok_or_else(|| Error::storage("a manifest vanished").at(at.display()))?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::input(format!("cannot read the manifest: {e}")).at(at.display()).hint("was it edited by hand?"))
    }
}
