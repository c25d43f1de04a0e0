//! A URI or a path becomes a store and a folder in it. Everything that touches data goes through here.
//!
//! ```text
//!  s3://bucket/folder ─ uri ─▶ scheme, authority, path ─┬─▶ s3 │ hdfs │ cloud (gs, az) ─▶ at most N requests ─▶ steady: tries again ─┐
//!  folder, file:///…  ────────────────────────────────── ├─▶ the disk, as it is ────────────────────────────────────────────────────────┼─▶ Location
//!  registered by a program or a test ────────────────────┴─▶ steady ──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! - How a store is reached comes from the spec's `stores` section and the environment; keys come from the environment or a file, never
//!   from a spec, and never show in messages ([`uri`], [`failure`]).
//! - [`Location::create`] is put-if-absent on every store: the commit hangs on it.
//! - What fails for a passing reason is tried again until a deadline ([`steady`]).

mod cloud;
pub mod doctor;
mod failure;
mod hdfs;
mod http;
mod io;
mod profile;
pub mod s3;
pub mod steady;
mod upload;
pub mod uri;

use std::collections::HashMap;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::limit::LimitStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::{Path, PathPart};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::error::{Error, Result};
use crate::spec::stores::{StoreSpec, Stores};
pub(crate) use failure::{is_out_of_range, stored};
use steady::{Limits, Steady};
pub use upload::again;
use uri::{Scheme, Target};
pub use uri::{masked, redacted};

/// A folder (or a file) in a store.
#[derive(Debug, Clone)]
pub struct Location {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The path in it.
    pub path: Path,
    /// The path on this machine's disk, where the store is the disk.
    pub local: Option<PathBuf>,
    /// `scheme://authority`, where the store is not the disk.
    root: Arc<str>,
    /// The bucket, where the store is S3.
    bucket: Option<Arc<s3::Bucket>>,
}

/// A store that is open.
#[derive(Debug, Clone)]
struct Opened {
    store: Arc<dyn ObjectStore>,
    bucket: Option<Arc<s3::Bucket>>,
}

type Table<K> = LazyLock<Mutex<HashMap<K, Opened>>>;
/// Stores that programs and tests brought along, by `scheme://authority`.
static REGISTERED: Table<String> = LazyLock::new(Mutex::default);
/// Stores opened so far, so that a run's sources and sink share connections and the limit of requests.
static OPEN: Table<(String, StoreSpec, PathBuf)> = LazyLock::new(Mutex::default);

fn table<K>(of: &Table<K>) -> MutexGuard<'_, HashMap<K, Opened>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a store known to this process under `scheme://authority`: every URI that begins so is in it. In specs the scheme must be
/// one that they know, such as `memory`.
pub fn register(root: &str, store: Arc<dyn ObjectStore>) {
    register_with(root, store, Limits { deadline: Duration::from_secs(20), silence: Duration::from_secs(30) });
}

/// The same, with the patience that the store is met with.
pub fn register_with(root: &str, store: Arc<dyn ObjectStore>, limits: Limits) {
    let store = Arc::new(Steady::new(store, limits));
    table(&REGISTERED).insert(root.trim_end_matches('/').to_owned(), Opened { store, bucket: None });
}

impl Location {
    /// The location a URI or a path on disk names, with what the environment says; relative paths are relative to `base`.
    pub fn open(uri: &str, base: &FsPath) -> Result<Self> {
        Self::open_with(uri, base, &Stores::new())
    }

    /// The location a URI or a path on disk names, reached as `stores` and the environment say; relative paths are relative to `base`.
    ///
    /// # Errors
    /// `Usage` for what is no URI (see [`uri::parse`]), `Storage` where the store's settings cannot be used. Nothing is asked of a server yet.
    pub fn open_with(uri: &str, base: &FsPath, stores: &Stores) -> Result<Self> {
        if let Some((root, path)) = registered(uri) {
            let Some(opened) = table(&REGISTERED).get(&root).cloned() else { return Err(Error::internal("a registered store vanished")) };
            return Ok(Self {
                store: opened.store,
                path: Path::parse(path).map_err(object_store::Error::from)?,
                local: None,
                root: root.into(),
                bucket: None,
            });
        }
        match uri::parse(uri)? {
            Target::Disk(path) => Self::on_disk(&base.join(path)),
            Target::Store { scheme, authority, path, root } => {
                let opened = open_store(scheme, &authority, &root, base, stores)?;
                Ok(Self { store: opened.store, path, local: None, root: root.into(), bucket: opened.bucket })
            }
        }
    }

    /// A location in a store that is at hand; shown to people as its path alone.
    pub fn of(store: Arc<dyn ObjectStore>, path: impl Into<Path>) -> Self {
        Self { store, path: path.into(), local: None, root: "".into(), bucket: None }
    }

    fn on_disk(path: &FsPath) -> Result<Self> {
        let absolute = std::path::absolute(path)?;
        let absolute = normal(&absolute);
        let text = absolute.to_str().ok_or_else(|| Error::usage("a path is not UTF-8").at(absolute.display().to_string()))?;
        let path = Path::from_absolute_path(text).map_err(object_store::Error::from)?;
        let store = Arc::new(LocalFileSystem::new().with_automatic_cleanup(true));
        Ok(Self { store, path, local: Some(absolute), root: "".into(), bucket: None })
    }

    /// The location below this one.
    pub fn child(&self, relative: &str) -> Self {
        // Names stay as they are: `join` of a text would write `ü` as `%C3%BC`, a name of its own.
        let parts = relative.split('/').filter(|p| !p.is_empty());
        let path = parts.fold(self.path.clone(), |path, part| match PathPart::parse(part) {
            Ok(part) => path.join(part),
            Err(_) => path.join(part),
        });
        Self { path, local: self.local.as_ref().map(|l| l.join(relative)), ..self.clone() }
    }

    /// How the location is shown to people.
    pub fn display(&self) -> String {
        match &self.local {
            Some(local) => local.display().to_string(),
            None if self.root.is_empty() => self.path.to_string(),
            None => format!("{}/{}", self.root, self.path),
        }
    }

    fn failed(&self, e: object_store::Error) -> Error {
        Error::from(e).at(self.display())
    }

    /// The whole object, or `None` where there is none.
    pub async fn read(&self) -> Result<Option<Bytes>> {
        match self.store.get(&self.path).await {
            Ok(got) => Ok(Some(got.bytes().await.map_err(|e| self.failed(e))?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed(e)),
        }
    }

    /// Writes an object whole: readers see the old one or the new one.
    pub async fn write(&self, bytes: impl Into<PutPayload>) -> Result<()> {
        self.store.put(&self.path, bytes.into()).await.map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// Writes an object where none is: `false` where one is already there. This is the commit.
    pub async fn create(&self, bytes: impl Into<PutPayload>) -> Result<bool> {
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        match self.store.put_opts(&self.path, bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(e) => Err(self.failed(e)),
        }
    }

    /// Removes an object; one that is not there is fine.
    pub async fn remove(&self) -> Result<()> {
        match self.store.delete(&self.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failed(e)),
        }
    }

    /// All objects below this location, ordered by path.
    pub async fn list(&self) -> Result<Vec<ObjectMeta>> {
        let mut found: Vec<ObjectMeta> = self.store.list(Some(&self.path)).try_collect().await.map_err(|e| self.failed(e))?;
        found.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }

    /// What is known of the object, or `None` where there is none.
    pub async fn head(&self) -> Result<Option<ObjectMeta>> {
        if self.path.as_ref().is_empty() {
            return Ok(None);
        }
        match self.store.head(&self.path).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed(e)),
        }
    }

    /// Makes an object survive a power cut, on a disk; other stores promise that themselves.
    pub fn sync(&self) -> Result<()> {
        let Some(local) = &self.local else { return Ok(()) };
        std::fs::File::open(local)?.sync_all()?;
        if let Some(folder) = local.parent() {
            std::fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    /// Files below this location that were being written when their process was killed: path, bytes, time of change. On a disk a file is written as
    /// `NAME#N` and renamed when it is whole; no listing shows it. Elsewhere there are none, or a listing shows them.
    pub fn unfinished_files(&self) -> Result<Vec<(PathBuf, u64, DateTime<Utc>)>> {
        let is_part = |name: &str| name.rsplit_once('#').is_some_and(|(_, n)| n.parse::<u64>().is_ok());
        let (mut found, mut folders) = (Vec::new(), Vec::from_iter(self.local.clone()));
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let entry = entry?;
                let about = entry.metadata()?;
                if about.is_dir() {
                    folders.push(entry.path());
                } else if is_part(&entry.file_name().to_string_lossy()) {
                    found.push((entry.path(), about.len(), about.modified()?.into()));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// The bucket, where the store is S3: what only S3 has is asked of it.
    pub fn bucket(&self) -> Option<&s3::Bucket> {
        self.bucket.as_deref()
    }
}

/// Whether a URI is in a store that this process was given by [`register`].
pub fn is_registered(uri: &str) -> bool {
    registered(uri).is_some()
}

/// The registered store that a URI is in, and the path in it.
fn registered(uri: &str) -> Option<(String, String)> {
    let (scheme, rest) = uri.split_once("://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let root = format!("{scheme}://{authority}");
    table(&REGISTERED).contains_key(&root).then(|| (root, path.trim_end_matches('/').to_owned()))
}

/// The options for a URI: those whose prefix fits and is the longest.
fn options_for(root: &str, stores: &Stores) -> StoreSpec {
    let fits = |prefix: &str| root.starts_with(prefix.trim_end_matches('/'));
    stores
        .iter()
        .filter(|(prefix, _)| fits(prefix))
        .max_by_key(|(prefix, _)| prefix.len())
        .map(|(_, spec)| spec.clone())
        .unwrap_or_default()
}

fn open_store(scheme: Scheme, authority: &str, root: &str, base: &FsPath, stores: &Stores) -> Result<Opened> {
    let spec = options_for(root, stores);
    let key = (root.to_owned(), spec.clone(), base.to_owned());
    if let Some(opened) = table(&OPEN).get(&key) {
        return Ok(opened.clone());
    }
    let mut bucket = None;
    let store: Arc<dyn ObjectStore> = match scheme {
        Scheme::S3 => {
            let opened = Arc::new(s3::open(authority, &spec, base)?);
            bucket = Some(opened.clone());
            opened.store.clone()
        }
        Scheme::Hdfs => hdfs::open(authority, &spec, base)?,
        Scheme::Gcs => cloud::gcs(authority, &spec)?,
        Scheme::Azure => cloud::azure(root, &spec)?,
        Scheme::Memory => Arc::new(InMemory::new()),
    };
    let limited = Arc::new(LimitStore::new(store, spec.requests.max(1)));
    let opened = Opened { store: Arc::new(Steady::new(limited, limits(scheme, &spec))), bucket };
    Ok(table(&OPEN).entry(key).or_insert(opened).clone())
}

fn limits(scheme: Scheme, spec: &StoreSpec) -> Limits {
    // Clients that speak HTTP have a time-out for each request and try again themselves; silence is what hangs below that, so it comes later.
    let own = if matches!(scheme, Scheme::Hdfs | Scheme::Memory) { 0 } else { spec.retry_s };
    Limits {
        deadline: Duration::from_secs(spec.retry_s),
        silence: Duration::from_secs(spec.timeout_s.saturating_mul(2).saturating_add(own)),
    }
}

/// `a/./b/../c` as `a/c`, without asking the disk.
fn normal(path: &FsPath) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut out, part| {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn create_succeeds_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = Location::open("a b/ü.json", dir.path()).unwrap();
        assert!(at.create("1").await.unwrap());
        assert!(!at.create("2").await.unwrap());
        assert_eq!(at.read().await.unwrap().unwrap(), "1");
    }

    #[tokio::test]
    async fn a_location_in_memory_is_the_same_for_all_who_open_it() {
        let open = || Location::open("memory://here/a", FsPath::new("/")).unwrap();
        open().child("b c").write("1").await.unwrap();
        assert_eq!(open().child("b c").read().await.unwrap().unwrap(), "1");
        assert_eq!(open().child("b c").display(), "memory://here/a/b c");
    }

    #[test]
    fn the_longest_prefix_counts() {
        let spec = |region: &str| StoreSpec { region: Some(region.into()), ..Default::default() };
        let stores: Stores = [("s3://".to_owned(), spec("a")), ("s3://b".to_owned(), spec("b"))].into_iter().collect();
        assert_eq!(options_for("s3://bucket", &stores).region.as_deref(), Some("b"));
        assert_eq!(options_for("s3://c", &stores).region.as_deref(), Some("a"));
        assert_eq!(options_for("hdfs://c", &stores).region, None);
    }

    #[test]
    fn secrets_are_not_shown() {
        let e = Location::open("s3://key:secret@bucket/x", FsPath::new("/")).unwrap_err();
        assert!(!e.to_string().contains("secret"), "{e}");
    }
}
