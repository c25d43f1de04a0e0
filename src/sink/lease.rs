//! The lease: one run writes to a dataset at a time.
//!
//! On a disk it is a lock that the system holds, and drops with the process. Elsewhere it is an object that its holder renews; one that was not
//! renewed for [`LASTS`], or whose process on this machine is gone, may be taken over. The lease spares two runs from doing the same work. What keeps
//! a version whole is the commit alone, which creates the manifest where there is none: should two runs both believe that they hold the lease
//! (clocks that disagree by a minute), one of them publishes and the other ends with exit code 75.

use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::{ObjectStore, PutMode, PutOptions, UpdateVersion};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use crate::error::{Error, Kind, Result};
use crate::storage::Location;

/// How long a lease holds without being renewed.
const LASTS: Duration = Duration::from_secs(60);
/// How often it is renewed.
const RENEWED: Duration = Duration::from_secs(15);
/// How long a lease taken over without the store's help is left alone before it counts: another run may do the same.
const SETTLES: Duration = Duration::from_secs(1);
/// Tries to take a lease that changes hands at the same moment.
const TRIES: usize = 3;

/// The right to write to a dataset.
#[derive(Debug)]
pub struct Lease(Held);

#[derive(Debug)]
enum Held {
    Lock { _file: File },
    Object { at: Location, holder: Holder, renewal: JoinHandle<()> },
}

/// Who holds a lease that is an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    id: String,
    /// Tells this process from an earlier one under the same number.
    process: String,
    host: String,
    pid: u32,
    renewed: DateTime<Utc>,
}

impl Lease {
    /// Takes the lease, or fails with exit code 75 where another run holds it.
    pub async fn take(root: &Location) -> Result<Self> {
        match root.local.as_ref().map(|l| l.join("_feedline")) {
            Some(folder) => lock(root, &folder),
            None => object(root).await,
        }
    }

    /// Gives the lease back, so that the next run need not wait. A process that ends without it leaves a lease that runs out.
    pub async fn release(self) {
        if let Held::Object { at, holder, renewal } = &self.0 {
            renewal.abort();
            if matches!(read(at).await, Ok(Some((found, _))) if found.id == holder.id)
                && let Err(e) = at.remove().await
            {
                tracing::warn!("could not give the lease back, it runs out within a minute: {e}");
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Held::Object { renewal, .. } = self {
            renewal.abort();
        }
    }
}

fn lock(root: &Location, folder: &Path) -> Result<Lease> {
    let failed = |e: std::io::Error| {
        let e = match Error::from(e) {
            e if e.kind() == Kind::Storage => Error::storage(format!("cannot write to the sink: {}", e.message())),
            other => other,
        };
        e.at(folder.display().to_string()).hint("check that the sink's folder can be written to")
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let file = File::options().create(true).truncate(false).write(true).open(folder.join("lease")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Lease(Held::Lock { _file: file })),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::new(Kind::Lease, "another run is writing to this dataset")
            .at(root.display())
            .hint("wait for it to end, then run again")),
        Err(std::fs::TryLockError::Error(e)) => Err(failed(e)),
    }
}

async fn object(root: &Location) -> Result<Lease> {
    let at = root.child("_feedline/lease");
    let host = whoami::fallible::hostname().unwrap_or_else(|_| "unknown".to_owned());
    let pid = std::process::id();
    let id = name(&host, pid);
    let holder = || Holder { id: id.clone(), process: process(&host, pid).to_owned(), host: host.clone(), pid, renewed: Utc::now() };
    for _ in 0..TRIES {
        if at.create(serde_json::to_vec(&holder())?).await? {
            return Ok(held(at, holder()));
        }
        // Gone in between: its holder gave it back.
        let Some((found, version)) = read(&at).await? else { continue };
        if found.id == id {
            return Ok(held(at, holder()));
        }
        if !found.is_over(&holder()) {
            return Err(taken(root, &found));
        }
        tracing::info!(host = found.host, pid = found.pid, "taking over the lease of a run that ended");
        if replace(&at, &holder(), version).await? {
            return Ok(held(at, holder()));
        }
    }
    Err(Error::new(Kind::Lease, "other runs take the lease on this dataset at the same moment").at(root.display()).hint("run again"))
}

/// A name that nothing else has: machine, process, moment, and a number.
fn name(host: &str, pid: u32) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    hex::encode(&Sha256::digest(format!("{host} {pid} {:?} {number}", std::time::SystemTime::now()))[..16])
}

fn process(host: &str, pid: u32) -> &'static str {
    static PROCESS: OnceLock<String> = OnceLock::new();
    PROCESS.get_or_init(|| name(host, pid))
}

impl Holder {
    fn is_over(&self, asking: &Self) -> bool {
        if self.process == asking.process {
            return false;
        }
        // On this machine the system knows. A lease under our own number is of an earlier process (in a container the number is always 1).
        let system_knows = self.host == asking.host && Path::new("/proc/self").exists();
        let gone = system_knows && (self.pid == asking.pid || !Path::new(&format!("/proc/{}", self.pid)).exists());
        gone || (asking.renewed - self.renewed).to_std().is_ok_and(|age| age > LASTS)
    }
}

fn taken(root: &Location, found: &Holder) -> Error {
    let ends = (LASTS - (Utc::now() - found.renewed).to_std().unwrap_or_default().min(LASTS)).as_secs();
    Error::new(Kind::Lease, format!("another run is writing to this dataset: process {} on {}", found.pid, found.host))
        .at(root.display())
        .hint(format!("wait for it to end, then run again; if it is gone for good, its lease runs out in {ends} s"))
}

/// The lease's holder, and the version of the object. One that cannot be read counts as run out.
async fn read(at: &Location) -> Result<Option<(Holder, UpdateVersion)>> {
    let Some(meta) = at.head().await? else { return Ok(None) };
    let Some(bytes) = at.read().await? else { return Ok(None) };
    let nobody = || Holder { id: String::new(), process: String::new(), host: String::new(), pid: 0, renewed: DateTime::UNIX_EPOCH };
    let holder = serde_json::from_slice(&bytes).unwrap_or_else(|_| nobody());
    Ok(Some((holder, UpdateVersion { e_tag: meta.e_tag, version: meta.version })))
}

/// Puts our name in the place of one whose lease is over; `false` where somebody was quicker.
async fn replace(at: &Location, holder: &Holder, version: UpdateVersion) -> Result<bool> {
    let bytes = serde_json::to_vec(holder)?;
    let options = PutOptions { mode: PutMode::Update(version), ..Default::default() };
    match at.store.put_opts(&at.path, bytes.clone().into(), options).await {
        Ok(_) => return Ok(true),
        Err(
            object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. } | object_store::Error::AlreadyExists { .. },
        ) => return Ok(false),
        Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {}
        Err(e) => return Err(Error::from(e).at(at.display())),
    }
    // A store without conditional updates (HDFS): two who do this at once see after a moment who was last.
    at.remove().await?;
    if !at.create(bytes).await? {
        return Ok(false);
    }
    tokio::time::sleep(SETTLES).await;
    Ok(read(at).await?.is_some_and(|(found, _)| found.id == holder.id))
}

/// A lease that renews itself until it is dropped.
fn held(at: Location, holder: Holder) -> Lease {
    let (to, mut mine) = (at.clone(), holder.clone());
    let renewal = tokio::spawn(async move {
        loop {
            tokio::time::sleep(RENEWED).await;
            let still = matches!(read(&to).await, Ok(Some((found, _))) if found.id == mine.id);
            if !still {
                tracing::warn!("another run has taken over the lease on this dataset; whoever commits first publishes");
                return;
            }
            mine.renewed = Utc::now();
            if let Ok(bytes) = serde_json::to_vec(&mine)
                && let Err(e) = to.write(bytes).await
            {
                tracing::warn!("could not renew the lease: {e}");
            }
        }
    });
    Lease(Held::Object { at, holder, renewal })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;

    fn holder(pid: u32, host: &str, age_s: i64) -> Holder {
        Holder {
            id: "x".into(),
            process: format!("{host} {pid}"),
            host: host.into(),
            pid,
            renewed: Utc::now() - chrono::Duration::seconds(age_s),
        }
    }

    #[tokio::test]
    async fn one_holds_it_and_the_next_is_told_who() {
        let root = Location::of(Arc::new(InMemory::new()), "d");
        // Another machine's, renewed just now.
        root.child("_feedline/lease").write(serde_json::to_vec(&holder(7, "elsewhere", 1)).unwrap()).await.unwrap();
        let e = Lease::take(&root).await.unwrap_err();
        assert_eq!((e.exit_code(), e.message().contains("process 7 on elsewhere")), (75, true));
        root.child("_feedline/lease").write(serde_json::to_vec(&holder(7, "elsewhere", 61)).unwrap()).await.unwrap();
        let lease = Lease::take(&root).await.unwrap();
        lease.release().await;
        assert!(root.child("_feedline/lease").read().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn of_many_who_find_a_dead_lease_one_gets_it() {
        let root = Location::of(Arc::new(InMemory::new()), "d");
        root.child("_feedline/lease").write("not JSON").await.unwrap();
        let at = root.child("_feedline/lease");
        let (_, dead) = read(&at).await.unwrap().unwrap();
        let mut winners = 0;
        for _ in 0..8 {
            winners += usize::from(replace(&at, &holder(1, "h", 0), dead.clone()).await.unwrap());
        }
        assert_eq!(winners, 1);
    }

    #[test]
    fn a_lease_ends_with_its_process_where_that_can_be_seen() {
        let asking = holder(5, "here", 0);
        assert!(!holder(std::process::id(), "elsewhere", 1).is_over(&asking));
        assert!(!holder(std::process::id(), "here", 1).is_over(&asking));
        assert!(!holder(5, "here", 1).is_over(&asking), "the same process holds it");
        let earlier = Holder { process: "earlier".into(), ..holder(5, "here", 1) };
        assert_eq!(earlier.is_over(&asking), cfg!(target_os = "linux"));
        assert_eq!(holder(4_000_000_000, "here", 1).is_over(&asking), cfg!(target_os = "linux"));
    }
}
