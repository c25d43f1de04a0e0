//! Uploads in parts: none hangs for ever, none is left lying about, and what is lost is made again whole.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use object_store::path::Path;
use object_store::{Error as StoreError, MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::failure::{given_up, is_passing};
use super::steady::Limits;

/// How often a piece of work is done again whose upload failed for a passing reason.
const MORE: u32 = 3;
/// The first wait between them; each further one is twice as long.
const WAIT: Duration = Duration::from_millis(100);

/// Does a piece of work that uploads files, again a few times where a store fails for a passing reason that nobody has tried again: a part of an
/// upload that was lost. The work must make the same files under the same names each time.
pub async fn again<T, F: Future<Output = crate::error::Result<T>>>(what: &str, mut work: impl FnMut() -> F) -> crate::error::Result<T> {
    let mut tries = 0;
    loop {
        match work().await {
            Err(e) if e.is_passing() && tries < MORE => {
                tracing::warn!("{what} failed, doing it again: {e}");
                tokio::time::sleep(WAIT * (1 << tries)).await;
                tries += 1;
            }
            done => return done,
        }
    }
}

/// An upload that fails where it is silent for too long, and is cleared away where it does not come to its end.
#[derive(Debug)]
pub(super) struct Upload {
    inner: Option<Box<dyn MultipartUpload>>,
    path: Path,
    limits: Limits,
}

impl Upload {
    pub(super) fn new(inner: Box<dyn MultipartUpload>, path: Path, limits: Limits) -> Self {
        Self { inner: Some(inner), path, limits }
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let Some(inner) = &mut self.inner else { return async { Err(over()) }.boxed() };
        let limits = self.limits.sending(data.content_length());
        let part = inner.put_part(data);
        async move {
            let begin = Instant::now();
            let sent = limits.in_time(part).await;
            // S3's own client has tried until time was up.
            sent.map_err(|e| if is_passing(&e) && begin.elapsed() > limits.deadline { given_up(e, begin.elapsed()) } else { e })
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let Some(inner) = &mut self.inner else { return Err(over()) };
        let done = self.limits.in_time(inner.complete()).await.map_err(lost)?;
        self.inner = None;
        Ok(done)
    }

    /// Never fails: whoever clears an upload away has a better error to tell.
    async fn abort(&mut self) -> Result<()> {
        if let Some(inner) = self.inner.take() {
            clear(inner, &self.path, self.limits).await;
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (Some(inner), Ok(runtime)) = (self.inner.take(), super::io::handle()) else { return };
        let (path, limits) = (self.path.clone(), self.limits);
        runtime.spawn(async move { clear(inner, &path, limits).await });
    }
}

async fn clear(mut upload: Box<dyn MultipartUpload>, path: &Path, limits: Limits) {
    if let Err(e) = limits.in_time(upload.abort()).await {
        tracing::debug!(%path, "an unfinished upload stays behind for gc: {e}");
    }
}

/// A store that does not know the upload any more may have completed it when an answer was lost; that is settled by making it again.
fn lost(e: StoreError) -> StoreError {
    match e {
        StoreError::NotFound { .. } | StoreError::PermissionDenied { .. } => {
            let text = format!("the store does not know the upload any more: {e}");
            StoreError::Generic { store: "store", source: std::io::Error::new(std::io::ErrorKind::ConnectionAborted, text).into() }
        }
        other => other,
    }
}

fn over() -> StoreError {
    StoreError::Generic { store: "store", source: "the upload is over".into() }
}
