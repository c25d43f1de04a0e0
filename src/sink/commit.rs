//! The commit: what makes a version visible, whole, once.

use chrono::{SecondsFormat, Utc};

use crate::dataset::{Dataset, Manifest};
use crate::error::{Error, Kind, Result};

/// Publishes a version: creates its manifest where there is none of its number.
pub async fn commit(dataset: &Dataset, manifest: &Manifest) -> Result<()> {
    if !manifest.rows.balances() {
        return Err(Error::internal(format!("the rows do not add up: {:?}", manifest.rows)).hint("please report this with your spec"));
    }
    let at = dataset.root.child(&Dataset::manifest_path(manifest.version));
    if !at.create(serde_json::to_vec_pretty(manifest)?).await? {
        return Err(Error::new(Kind::Lease, format!("version {} was published by another run", manifest.version))
            .at(at.display())
            .hint("run again: it will see what that run made"));
    }
    at.sync()
}

/// Now, in UTC.
pub fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}
