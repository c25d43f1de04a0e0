//! A URI or a path becomes a store and a folder in it. Everything that touches data goes through here; S3 and HDFS join as further schemes.

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::error::{Error, Result};

/// A folder (or a file) in a store.
#[derive(Debug, Clone)]
pub struct Location {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The path in it.
    pub path: Path,
    /// The path on this machine's disk, where the store is the disk.
    pub local: Option<PathBuf>,
}

impl Location {
    /// The location a URI or a path on disk names; relative paths are relative to `base`.
    pub fn open(uri: &str, base: &FsPath) -> Result<Self> {
        if let Some((scheme, rest)) = uri.split_once("://") {
            return match scheme {
                "file" => Self::on_disk(FsPath::new(rest)),
                other => Err(Error::usage(format!("no store speaks `{other}://`")).at(redacted(uri)).hint("use a path on disk or file://")),
            };
        }
        Self::on_disk(&base.join(uri))
    }

    fn on_disk(path: &FsPath) -> Result<Self> {
        let absolute = std::path::absolute(path)?;
        let absolute = normal(&absolute);
        let text = absolute.to_str().ok_or_else(|| Error::usage("a path is not UTF-8").at(absolute.display().to_string()))?;
        let path = Path::from_absolute_path(text).map_err(object_store::Error::from)?;
        Ok(Self { store: Arc::new(LocalFileSystem::new().with_automatic_cleanup(true)), path, local: Some(absolute) })
    }

    /// The location below this one.
    pub fn child(&self, relative: &str) -> Self {
        let path = relative.split('/').filter(|p| !p.is_empty()).fold(self.path.clone(), |p, part| p.join(part));
        Self { store: self.store.clone(), path, local: self.local.as_ref().map(|l| l.join(relative)) }
    }

    /// How the location is shown to people.
    pub fn display(&self) -> String {
        self.local.as_ref().map_or_else(|| self.path.to_string(), |l| l.display().to_string())
    }

    /// The whole object, or `None` where there is none.
    pub async fn read(&self) -> Result<Option<Bytes>> {
        match self.store.get(&self.path).await {
            Ok(got) => Ok(Some(got.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::from(e).at(self.display())),
        }
    }

    /// Writes an object whole: readers see the old one or the new one.
    pub async fn write(&self, bytes: impl Into<PutPayload>) -> Result<()> {
        self.store.put(&self.path, bytes.into()).await.map_err(|e| Error::from(e).at(self.display()))?;
        Ok(())
    }

    /// Writes an object where none is: `false` where one is already there. This is the commit.
    pub async fn create(&self, bytes: impl Into<PutPayload>) -> Result<bool> {
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        match self.store.put_opts(&self.path, bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(e) => Err(Error::from(e).at(self.display())),
        }
    }

    /// Removes an object; one that is not there is fine.
    pub async fn remove(&self) -> Result<()> {
        match self.store.delete(&self.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(Error::from(e).at(self.display())),
        }
    }

    /// All objects below this location, ordered by path.
    pub async fn list(&self) -> Result<Vec<ObjectMeta>> {
        let mut found: Vec<ObjectMeta> =
            self.store.list(Some(&self.path)).try_collect().await.map_err(|e| Error::from(e).at(self.display()))?;
        found.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }

    /// What is known of the object, or `None` where there is none.
    pub async fn head(&self) -> Result<Option<ObjectMeta>> {
        match self.store.head(&self.path).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::from(e).at(self.display())),
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

/// A URI without what may be a secret in it.
pub fn redacted(uri: &str) -> String {
    match url::Url::parse(uri) {
        Ok(mut u) => {
            if !u.username().is_empty() || u.password().is_some() {
                let _ = u.set_username("***");
                let _ = u.set_password(None);
            }
            u.set_query(None);
            u.to_string()
        }
        Err(_) => uri.to_owned(),
    }
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

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(redacted("s3://key:secret@bucket/x?token=1"), "s3://***@bucket/x");
        let e = Location::open("s3://key:secret@bucket/x", FsPath::new("/")).unwrap_err();
        assert!(!e.to_string().contains("secret"), "{e}");
    }
}
