//! An S3 server in this process, over a folder: real HTTP and real signatures, with faults by plan in front of it.
//!
//! It runs on threads of its own, so that tests may block; `stop` cuts every connection, `start_again` listens on the same port.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, auth::SimpleAuth};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The only user's keys.
pub const ACCESS_KEY: &str = "feedline";
pub const SECRET_KEY: &str = "feedline-secret";
/// The bucket that is there.
pub const BUCKET: &str = "data";

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What is asked, by method and query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    Get,
    Head,
    Put,
    Delete,
    List,
    Begin,
    Part,
    Complete,
    Other,
}

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HttpFault {
    /// 503 SlowDown with `Retry-After: 1`.
    Throttle,
    /// 400 ExpiredToken, as AWS answers once temporary keys are too old.
    Expired,
    /// 500 before anything is done.
    Before,
    /// Done, then 500.
    After,
    /// The connection is closed without an answer, before anything is done.
    Gone,
    /// Done, then the connection is closed without an answer.
    GoneAfter,
    /// The connection is closed in mid-body.
    Cut,
    /// The body comes in pieces, with pauses.
    Slow,
    /// Nothing comes any more in mid-body, and the connection stays open; the next time all is well.
    Stalled,
}

/// What goes wrong.
#[derive(Debug, Clone, Default)]
pub struct HttpPlan {
    pub seed: u64,
    /// Of a hundred requests so many fail for a moment, never more than two of the same in a row.
    pub percent: u64,
    /// What fails each time: what is asked, and what the path contains.
    pub broken: Option<(Asked, &'static str, HttpFault)>,
    /// A file (below the bucket) whose content is another one from a reading on: of which number, and what it is then.
    pub replaced: Option<(String, u64, Bytes)>,
    /// How long each request waits before it is looked at.
    pub delay: Duration,
    /// The same for one kind of requests.
    pub delay_of: Option<(Asked, Duration)>,
}

impl HttpPlan {
    fn fault(&self, asked: Asked, path: &str, times: u64, in_a_row: u64) -> Option<HttpFault> {
        use HttpFault::{After, Before, Cut, Gone, GoneAfter, Slow, Throttle};
        let meant = |(of, part, fault): &(Asked, &str, HttpFault)| {
            *of == asked && path.contains(part) && (*fault != HttpFault::Stalled || in_a_row == 0)
        };
        if let Some((_, _, fault)) = self.broken.filter(meant) {
            return Some(fault);
        }
        let kinds: &[HttpFault] = match asked {
            Asked::Get | Asked::List => &[Before, Before, Gone, Cut, Cut, Slow, Throttle],
            _ => &[Before, After, After, Gone, GoneAfter, Throttle],
        };
        let luck = xxh3_64_with_seed(format!("{asked:?} {path} {times}").as_bytes(), self.seed);
        (in_a_row < 2 && luck % 100 < self.percent).then(|| kinds[(luck / 100) as usize % kinds.len()])
    }
}

/// How often something was asked: in all, and without success in a row.
type Counts = BTreeMap<(Asked, String), (u64, u64)>;

#[derive(Debug, Default)]
struct State {
    plan: Mutex<HttpPlan>,
    asked: Mutex<Counts>,
    faults: Mutex<BTreeMap<(Asked, HttpFault), u64>>,
}

/// The server.
pub struct S3Server {
    folder: PathBuf,
    runtime: Option<tokio::runtime::Runtime>,
    state: Arc<State>,
    port: u16,
    serving: Option<JoinHandle<()>>,
}

impl S3Server {
    /// Serves the buckets in a folder; [`BUCKET`] is made if need be.
    pub fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder.join(BUCKET)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut server = Self { folder: folder.to_owned(), runtime: Some(runtime), state: Arc::default(), port: 0, serving: None };
        server.start_again();
        server
    }

    /// Listens again, on the port of before.
    pub fn start_again(&mut self) {
        let mut s3 = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&self.folder).unwrap());
        s3.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let front = Front { s3: s3.build(), state: self.state.clone(), bucket: self.folder.join(BUCKET) };
        let runtime = self.runtime.as_ref().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", self.port))).unwrap();
        self.port = listener.local_addr().unwrap().port();
        self.serving = Some(runtime.spawn(serve(listener, front)));
    }

    /// Stops listening, and cuts all connections.
    pub fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = self.runtime.as_ref().unwrap().block_on(serving);
        }
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where an object lies.
    pub fn file(&self, key: &str) -> PathBuf {
        self.folder.join(BUCKET).join(key)
    }

    /// From now on this goes wrong; counts begin anew.
    pub fn plan(&self, plan: HttpPlan) {
        *self.state.plan.lock().unwrap() = plan;
        self.state.asked.lock().unwrap().clear();
        self.state.faults.lock().unwrap().clear();
    }

    /// How often this was asked of keys that contain `part`.
    pub fn count(&self, asked: Asked, part: &str) -> u64 {
        let counts = self.state.asked.lock().unwrap();
        counts.iter().filter(|((a, path), _)| *a == asked && path.contains(part)).map(|(_, (times, _))| times).sum()
    }

    /// How often what went wrong.
    pub fn faults(&self) -> BTreeMap<(Asked, HttpFault), u64> {
        self.state.faults.lock().unwrap().clone()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: TcpListener, front: Front) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((socket, _)) = listener.accept() => {
                let front = front.clone();
                connections.spawn(async move {
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), front).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// What stands in front of the S3 service.
#[derive(Clone)]
struct Front {
    s3: S3Service,
    state: Arc<State>,
    bucket: PathBuf,
}

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Failed;
    type Future = futures::future::BoxFuture<'static, Result<Response<Body>, Failed>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let front = self.clone();
        Box::pin(async move { front.answer(request).await })
    }
}

fn asked(request: &Request<Incoming>) -> Asked {
    let query = request.uri().query().unwrap_or_default();
    match *request.method() {
        Method::GET if query.contains("list-type=") => Asked::List,
        Method::GET => Asked::Get,
        Method::HEAD => Asked::Head,
        Method::PUT if query.contains("partNumber=") => Asked::Part,
        Method::PUT => Asked::Put,
        Method::POST if query.contains("uploads") => Asked::Begin,
        Method::POST if query.contains("uploadId=") => Asked::Complete,
        Method::DELETE if query.is_empty() => Asked::Delete,
        _ => Asked::Other,
    }
}

impl Front {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Failed> {
        let (asked, path) = (asked(&request), request.uri().path().to_owned());
        let (fault, delay) = self.next(asked, &path);
        tokio::time::sleep(delay).await;
        match fault {
            Some(HttpFault::Throttle) => return Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")),
            Some(HttpFault::Expired) => return Ok(refusal(StatusCode::BAD_REQUEST, "ExpiredToken")),
            Some(HttpFault::Before) => return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
            Some(HttpFault::Gone) => return Err("gone by plan".into()),
            _ => {}
        }
        let answer = self.s3.call(request.map(Body::from)).await.map_err(|e| format!("{e:?}"))?;
        match fault {
            Some(HttpFault::After) => Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
            Some(HttpFault::GoneAfter) => Err("gone by plan".into()),
            Some(fault) => mangled(fault, answer).await,
            None => Ok(answer),
        }
    }

    /// Counts a request, replaces what is to be replaced, and says what goes wrong.
    fn next(&self, asked: Asked, path: &str) -> (Option<HttpFault>, Duration) {
        let plan = self.state.plan.lock().unwrap().clone();
        let mut counts = self.state.asked.lock().unwrap();
        let count = counts.entry((asked, path.to_owned())).or_default();
        let (times, in_a_row) = *count;
        let fault = plan.fault(asked, path, times, in_a_row);
        *count = (times + 1, if fault.is_some() { in_a_row + 1 } else { 0 });
        if let Some(fault) = fault {
            *self.state.faults.lock().unwrap().entry((asked, fault)).or_default() += 1;
        }
        if let Some((key, from, by)) = plan.replaced.filter(|(key, from, _)| asked == Asked::Get && path.ends_with(key) && *from == times) {
            assert!(from > 0, "this server's listing has no ETag: what is replaced before the first reading is what is read");
            // At once, as stores do it.
            let beside = self.bucket.with_extension("new");
            std::fs::write(&beside, by).unwrap();
            std::fs::rename(beside, self.bucket.join(key)).unwrap();
        }
        let delay = plan.delay_of.filter(|(of, _)| *of == asked).map_or(plan.delay, |(_, delay)| delay);
        (fault, delay)
    }
}

fn refusal(status: StatusCode, code: &str) -> Response<Body> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>by plan</Message></Error>");
    let answer = Response::builder().status(status).header("content-type", "application/xml");
    let answer = if status == StatusCode::SERVICE_UNAVAILABLE { answer.header("retry-after", "1") } else { answer };
    answer.body(Body::from(body)).unwrap()
}

async fn mangled(fault: HttpFault, answer: Response<Body>) -> Result<Response<Body>, Failed> {
    let (parts, body) = answer.into_parts();
    let bytes = BodyExt::collect(body).await?.to_bytes();
    let frame = |bytes| Ok::<_, Failed>(Frame::data(bytes));
    let half = bytes.slice(..bytes.len() / 2);
    let body = if fault == HttpFault::Cut {
        Body::http_body_unsync(StreamBody::new(stream::iter([frame(half), Err("cut by plan".into())])))
    } else if fault == HttpFault::Stalled {
        Body::http_body_unsync(StreamBody::new(stream::iter([frame(half)]).chain(stream::pending())))
    } else {
        let piece = bytes.len().div_ceil(4).max(1);
        let pieces = (0..bytes.len()).step_by(piece).map(move |i| bytes.slice(i..(i + piece).min(bytes.len())));
        let later = stream::iter(pieces).then(move |piece| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            frame(piece)
        });
        Body::http_body_unsync(StreamBody::new(later))
    };
    Ok(Response::from_parts(parts, body))
}
