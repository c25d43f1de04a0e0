//! A store that fails by plan. What goes wrong follows from a seed, the operation, the path and how often that was asked before, so that a
//! seed brings the same faults back whatever the threads do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a store is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    Get,
    Head,
    Put,
    Begin,
    Part,
    Complete,
    Delete,
    List,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The connection breaks before anything is done.
    Before,
    /// It is done, and the answer is lost.
    After,
    /// No answer ever comes.
    Silent,
    /// Access is denied.
    Denied,
    /// The body comes in small pieces, with pauses.
    Slow,
    /// The body ends early.
    Short,
    /// The connection breaks in mid-body.
    Cut,
    /// The body stops half-way, and nothing more comes.
    Stall,
    /// The listing breaks off half-way.
    Half,
}

impl Op {
    /// What may go wrong for a moment. What costs a time-out is rarer.
    pub fn faults(self) -> &'static [Fault] {
        use Fault::{After, Before, Cut, Half, Short, Silent, Slow, Stall};
        match self {
            Self::Get => &[Before, Before, Slow, Slow, Short, Short, Cut, Cut, Silent, Stall],
            Self::Head | Self::Begin => &[Before],
            Self::Put | Self::Part => &[Before, Before, After, After, Silent],
            Self::Complete | Self::Delete => &[Before, After],
            Self::List => &[Before, Half, Half, Silent],
        }
    }
}

/// Something that goes wrong each time, from the `from`th time on.
#[derive(Debug, Clone, Copy)]
pub struct Broken {
    pub op: Op,
    /// What the path contains.
    pub part: &'static str,
    pub from: u64,
    pub fault: Fault,
}

/// An object that is another one from the `from`th reading on.
#[derive(Debug, Clone)]
pub struct Replaced {
    pub path: Path,
    pub from: u64,
    pub by: Bytes,
}

/// What goes wrong in a run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// Of a hundred requests so many fail for a moment, never more than two of the same in a row.
    pub percent: u64,
    pub broken: Option<Broken>,
    pub replaced: Option<Replaced>,
}

impl Plan {
    fn fault(&self, op: Op, path: &str, times: u64, in_a_row: u64) -> Option<Fault> {
        if let Some(b) = self.broken.filter(|b| b.op == op && path.contains(b.part) && times >= b.from) {
            return Some(b.fault);
        }
        let luck = xxh3_64_with_seed(format!("{op:?} {path} {times}").as_bytes(), self.seed);
        let kinds = op.faults();
        (in_a_row < 2 && luck % 100 < self.percent).then(|| kinds[(luck / 100) as usize % kinds.len()])
    }
}

/// What went wrong so far: operation, path, how often that was asked before.
pub type Record = BTreeMap<(Op, String, u64), Fault>;

#[derive(Debug, Default)]
struct Seen {
    /// How often, and how often in a row without success.
    asked: BTreeMap<(Op, String), (u64, u64)>,
    record: Record,
    replaced: bool,
}

/// The path without the hash in staging, which follows from the times of files on a disk.
fn name(path: &Path) -> String {
    let parts: Vec<_> = path.as_ref().split('/').collect();
    let shown = parts.iter().enumerate().map(|(i, part)| if i > 0 && parts[i - 1] == "staging" { "*" } else { part });
    shown.collect::<Vec<_>>().join("/")
}

/// The wrapper.
#[derive(Debug, Clone)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    plan: Arc<Plan>,
    seen: Arc<Mutex<Seen>>,
    replacing: Arc<tokio::sync::Mutex<()>>,
}

impl Faulty {
    pub fn new(inner: Arc<dyn ObjectStore>, plan: Plan) -> Self {
        Self { inner, plan: Arc::new(plan), seen: Arc::default(), replacing: Arc::default() }
    }

    /// What went wrong.
    pub fn record(&self) -> Record {
        self.seen.lock().unwrap().record.clone()
    }

    /// Whether an object was replaced, once that is done.
    pub async fn replaced(&self) -> bool {
        let _done = self.replacing.lock().await;
        self.seen.lock().unwrap().replaced
    }

    /// Replaces an object, even where whoever reads it gives up meanwhile.
    async fn replace(&self, by: &Replaced) -> Result<()> {
        let (store, by, done) = (self.inner.clone(), by.clone(), self.replacing.clone().lock_owned().await);
        self.seen.lock().unwrap().replaced = true;
        let put = async move {
            let _done = done;
            store.put(&by.path, by.by.into()).await
        };
        tokio::spawn(put).await.unwrap().map(|_| ())
    }

    /// The number of this request among its like, and what goes wrong.
    fn next(&self, op: Op, path: &Path) -> (u64, Option<Fault>) {
        let key = (op, name(path));
        let mut seen = self.seen.lock().unwrap();
        let (times, in_a_row) = seen.asked.get(&key).copied().unwrap_or_default();
        let fault = self.plan.fault(op, &key.1, times, in_a_row);
        if let Some(fault) = fault {
            seen.record.insert((op, key.1.clone(), times), fault);
        }
        seen.asked.insert(key, (times + 1, if fault.is_some() { in_a_row + 1 } else { 0 }));
        (times, fault)
    }

    /// What goes wrong before anything is done, or what will go wrong later.
    async fn begin(&self, op: Op, path: &Path) -> Result<Option<Fault>> {
        let (times, fault) = self.next(op, path);
        if let Some(r) = self.plan.replaced.as_ref().filter(|r| op == Op::Get && r.path == *path && r.from == times) {
            self.replace(r).await?;
        }
        match fault {
            Some(Fault::Before) => Err(reset()),
            Some(Fault::Denied) => Err(Error::PermissionDenied { path: path.to_string(), source: "these keys may not".into() }),
            Some(Fault::Silent) => futures::future::pending().await,
            later => Ok(later),
        }
    }
}

fn reset() -> Error {
    Error::Generic { store: "faulty", source: std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection reset by plan").into() }
}

/// What was done, unless its answer is lost.
fn answered<T>(fault: Option<Fault>, done: Result<T>) -> Result<T> {
    if fault == Some(Fault::After) { Err(reset()) } else { done }
}

/// A body with its fault.
fn mangled(fault: Fault, bytes: Bytes) -> BoxStream<'static, Result<Bytes>> {
    let half = bytes.slice(..bytes.len() / 2);
    match fault {
        Fault::Slow => {
            let piece = bytes.len().div_ceil(3).max(1);
            let pieces = (0..bytes.len()).step_by(piece).map(move |i| bytes.slice(i..(i + piece).min(bytes.len())));
            let later = stream::iter(pieces).then(|piece| tokio::time::sleep(Duration::from_millis(10)).map(|()| Ok(piece)));
            later.boxed()
        }
        Fault::Short => stream::iter([Ok(half)]).boxed(),
        Fault::Cut => stream::iter([Ok(half), Err(reset())]).boxed(),
        Fault::Stall => stream::iter([Ok(half)]).chain(stream::pending()).boxed(),
        _ => stream::iter([Ok(bytes)]).boxed(),
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.begin(Op::Put, path).await?;
        answered(fault, self.inner.put_opts(path, payload, options).await)
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.begin(Op::Begin, path).await?;
        let inner = self.inner.put_multipart_opts(path, options).await?;
        Ok(Box::new(FaultyUpload { inner, store: self.clone(), path: path.clone() }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let op = if options.head { Op::Head } else { Op::Get };
        let fault = self.begin(op, path).await?;
        let got = self.inner.get_opts(path, options).await?;
        let Some(fault) = fault else { return Ok(got) };
        let (meta, range, attributes) = (got.meta.clone(), got.range.clone(), got.attributes.clone());
        let bytes = got.bytes().await?;
        Ok(GetResult { payload: GetResultPayload::Stream(mangled(fault, bytes)), meta, range, attributes })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |path: Path| {
            let store = store.clone();
            async move {
                let fault = store.begin(Op::Delete, &path).await?;
                answered(fault, store.inner.delete(&path).await.map(|()| path))
            }
        };
        paths.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let whole = async move {
            let fault = store.begin(Op::List, &prefix.clone().unwrap_or_default()).await?;
            let mut found: Vec<Result<ObjectMeta>> = store.inner.list(prefix.as_ref()).collect().await;
            if fault == Some(Fault::Half) {
                found.truncate(found.len() / 2);
                found.push(Err(reset()));
            }
            Ok::<_, Error>(stream::iter(found))
        };
        stream::once(whole).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    store: Faulty,
    path: Path,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, store, path) = (self.inner.put_part(data), self.store.clone(), self.path.clone());
        async move {
            let fault = store.begin(Op::Part, &path).await?;
            answered(fault, part.await)
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.store.begin(Op::Complete, &self.path).await?;
        answered(fault, self.inner.complete().await)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
