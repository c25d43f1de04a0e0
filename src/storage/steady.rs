//! A store that keeps trying: what fails for a passing reason is asked again, until a deadline.
//!
//! ```text
//!  get:     open, again if need be ─▶ body ─▶ cut or short? ask for the rest, of the same object (If-Match)
//!  create:  "already there" after a lost answer? then what is there is compared with what was sent
//!  upload:  parts are not sent twice here: S3's own client does that, and what is lost even so is made again whole (`again`)
//! ```

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::failure::{given_up, is_passing, told};
use super::upload::Upload;
use crate::spec::stores::REQUESTS;

/// The first wait; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How long to go on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the first try on.
    pub deadline: Duration,
    /// Silence within one try after which it counts as failed.
    pub silence: Duration,
}

/// The wrapper.
#[derive(Debug, Clone)]
pub struct Steady {
    inner: Arc<dyn ObjectStore>,
    limits: Limits,
}

impl Steady {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn ObjectStore>, limits: Limits) -> Self {
        Self { inner, limits }
    }

    /// Does something until it succeeds, fails for good, or time is up.
    async fn again<T, F: Future<Output = Result<T>>>(&self, what: &str, path: &Path, mut work: impl FnMut() -> F) -> Result<T> {
        let mut patience = Patience::new(self.limits.deadline);
        loop {
            match self.in_time(work()).await {
                Ok(done) => return Ok(done),
                Err(e) => patience.wait(what, path, e).await?,
            }
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.limits.in_time(work).await
    }

    /// All objects below a prefix; silence is measured from one to the next.
    async fn listed(&self, prefix: Option<&Path>) -> Result<Vec<ObjectMeta>> {
        let (mut found, mut listing) = (Vec::new(), self.inner.list(prefix));
        while let Some(meta) = self.in_time(listing.try_next()).await? {
            found.push(meta);
        }
        Ok(found)
    }

    /// The rest of an object's body, whatever happens to the connection on the way.
    fn body(&self, path: &Path, options: GetOptions, got: GetResult) -> BoxStream<'static, Result<Bytes>> {
        let rest = Rest {
            store: self.clone(),
            path: path.clone(),
            options: GetOptions { if_match: got.meta.e_tag.clone(), if_none_match: None, if_modified_since: None, ..options },
            left: got.range.clone(),
            open: Some(got.into_stream()),
        };
        stream::try_unfold(rest, |mut rest| async move { Ok(rest.next().await?.map(|bytes| (bytes, rest))) }).boxed()
    }

    /// The same store without a second try.
    fn impatient(&self) -> Self {
        Self { inner: self.inner.clone(), limits: Limits { deadline: Duration::ZERO, ..self.limits } }
    }

    /// Whether an object holds exactly these bytes: then a creation whose answer was lost did succeed.
    async fn holds(&self, path: &Path, payload: &PutPayload) -> bool {
        match self.get(path).await {
            Ok(got) if got.meta.size == payload.content_length() as u64 => match got.bytes().await {
                Ok(bytes) => bytes == Bytes::from(payload.clone()),
                Err(_) => false,
            },
            _ => false,
        }
    }
}

impl Limits {
    /// Waits for something as long as silence may last.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.silence, work).await.unwrap_or_else(|_| Err(silent(self.silence)))
    }

    /// The same for sending so many bytes: the client below has its own limit for each request, of which one may wait for another.
    pub(super) fn sending(self, bytes: usize) -> Self {
        Self { silence: self.silence + super::http::sending(bytes) * 2, ..self }
    }
}

fn silent(after: Duration) -> object_store::Error {
    object_store::Error::Generic { store: "store", source: silence(after).into() }
}

/// Nothing was heard for so long.
pub(super) fn silence(after: Duration) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {:.1} s", after.as_secs_f64()))
}

/// How often something was tried, and since when.
struct Patience {
    begin: Instant,
    deadline: Duration,
    tries: u32,
}

impl Patience {
    fn new(deadline: Duration) -> Self {
        Self { begin: Instant::now(), deadline, tries: 0 }
    }

    /// Waits before another try; gives the error back where there is none left.
    async fn wait(&mut self, what: &str, path: &Path, e: object_store::Error) -> Result<()> {
        let pause = FIRST_WAIT.saturating_mul(1 << self.tries.min(10)).min(LONGEST_WAIT);
        self.tries += 1;
        if !is_passing(&e) {
            return Err(e);
        }
        if self.begin.elapsed() + pause > self.deadline {
            return Err(given_up(e, self.begin.elapsed()));
        }
        // The first failure is nothing to speak of; a person who watches a run that stands still wants to know why.
        match self.tries {
            1 | 2 => tracing::debug!(%path, tries = self.tries, "{what} failed, trying again: {}", told(&e)),
            _ => tracing::warn!(%path, tries = self.tries, "{what} failed, trying again: {}", told(&e)),
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// What is still to come of an object.
struct Rest {
    store: Steady,
    path: Path,
    options: GetOptions,
    left: Range<u64>,
    open: Option<BoxStream<'static, Result<Bytes>>>,
}

impl Rest {
    /// The next bytes. Patience begins anew with each: who gets on is not given up, and who reads slowly is not blamed.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut patience = Patience::new(self.store.limits.deadline);
        while !self.left.is_empty() {
            let failed = match self.step().await {
                Ok(Some(bytes)) if bytes.len() as u64 <= self.left.end - self.left.start => {
                    self.left.start += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Ok(Some(_)) => broken_off("the answer is longer than what was asked for"),
                Ok(None) => broken_off("the answer ends early"),
                Err(e) => e,
            };
            self.open = None;
            patience.wait("reading", &self.path, failed).await?;
        }
        Ok(None)
    }

    async fn step(&mut self) -> Result<Option<Bytes>> {
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let options = GetOptions { range: Some(GetRange::Bounded(self.left.clone())), ..self.options.clone() };
                let got = self.store.in_time(self.store.inner.get_opts(&self.path, options)).await?;
                is_same(&self.path, self.options.if_match.as_deref(), &got.meta)?;
                if got.range != self.left {
                    return Err(broken_off("the answer is not the range that was asked for"));
                }
                none.insert(got.into_stream())
            }
        };
        self.store.in_time(async { open.next().await.transpose() }).await
    }
}

/// That an object is the one whose ETag is wanted: not every server knows If-Match. Listings may lack an ETag's quotes, as Azure's do.
///
/// # Errors
/// `Precondition` where it is another one.
pub(crate) fn is_same(path: &Path, wanted: Option<&str>, found: &ObjectMeta) -> Result<()> {
    match (wanted, &found.e_tag) {
        (Some(wanted), Some(found)) if wanted.trim_matches('"') != found.trim_matches('"') => {
            let source = format!("its ETag was {wanted}, now it is {found}").into();
            Err(object_store::Error::Precondition { path: path.to_string(), source })
        }
        _ => Ok(()),
    }
}

fn broken_off(what: &'static str) -> object_store::Error {
    object_store::Error::Generic { store: "store", source: std::io::Error::new(std::io::ErrorKind::UnexpectedEof, what).into() }
}

impl std::fmt::Display for Steady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Steady {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let creates = options.mode == PutMode::Create;
        let sender = Self { limits: self.limits.sending(payload.content_length()), ..self.clone() };
        let put = sender.again("writing", path, || self.inner.put_opts(path, payload.clone(), options.clone())).await;
        match put {
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
                if creates && self.holds(path, &payload).await =>
            {
                Ok(PutResult { e_tag: None, version: None })
            }
            // All answers may have been lost, and no more time be left than for one look.
            Err(object_store::Error::Generic { .. }) if creates && self.impatient().holds(path, &payload).await => {
                Ok(PutResult { e_tag: None, version: None })
            }
            other => other,
        }
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.again("beginning an upload", path, || self.inner.put_multipart_opts(path, options.clone())).await?;
        Ok(Box::new(Upload::new(upload, path.clone(), self.limits)))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let got = self.again("reading", path, || self.inner.get_opts(path, options.clone())).await?;
        if options.head {
            return Ok(got);
        }
        let (meta, range, attributes) = (got.meta.clone(), got.range.clone(), got.attributes.clone());
        Ok(GetResult { payload: GetResultPayload::Stream(self.body(path, options, got)), meta, range, attributes })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |path: Path| {
            let store = store.clone();
            async move {
                match store.again("deleting", &path, || store.inner.delete(&path)).await {
                    // One that is gone already may have been deleted by the try whose answer was lost.
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(path),
                    Err(e) => Err(e),
                }
            }
        };
        paths.map_ok(delete).try_buffered(REQUESTS).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let whole = async move {
            let place = prefix.clone().unwrap_or_default();
            let listing = store.again("listing", &place, || store.listed(prefix.as_ref())).await;
            listing.map(|found| stream::iter(found.into_iter().map(Ok)))
        };
        stream::once(whole).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let place = prefix.cloned().unwrap_or_default();
        self.again("listing", &place, || self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.again("copying", from, || self.inner.copy_opts(from, to, options.clone())).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        // A second try after a lost answer would not find what the first one moved.
        self.inner.rename_opts(from, to, options).await
    }
}
