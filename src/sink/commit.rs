//! The lease and the commit: what makes a version visible, whole, once.

use std::fs::File;

use chrono::{SecondsFormat, Utc};

use crate::dataset::{Dataset, Manifest};
use crate::error::{Error, Kind, Result};
use crate::storage::Location;

/// The right to write to a dataset. It ends with the process, however that ends: on a disk it is a lock that the system holds.
#[derive(Debug)]
pub struct Lease {
    _lock: Option<File>,
}

impl Lease {
    /// Takes the lease, or fails with exit code 75 where another run holds it.
    pub fn take(root: &Location) -> Result<Self> {
        let Some(folder) = root.local.as_ref().map(|l| l.join("_feedline")) else { return Ok(Self { _lock: None }) };
        let failed = |e: std::io::Error| {
            let e = match Error::from(e) {
                e if e.kind() == Kind::Storage => Error::storage(format!("cannot write to the sink: {}", e.message())),
                other => other,
            };
            e.at(folder.display().to_string()).hint("check that the sink's folder can be written to")
        };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let file = File::options().create(true).truncate(false).write(true).open(folder.join("lease")).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _lock: Some(file) }),
            Err(std::fs::TryLockError::WouldBlock) => Err(Error::new(Kind::Lease, "another run is writing to this dataset")
                .at(root.display())
                .hint("wait for it to end, then run again")),
            Err(std::fs::TryLockError::Error(e)) => Err(failed(e)),
        }
    }
}

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
