//! HTTP as stores are spoken to: on threads of its own, never waiting for ever, and patient where the server names a time to wait.

use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService, SpawnedReqwestConnector,
};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::spec::stores::StoreSpec;

/// The slowest link for uploads, in bytes a second and request: 64 KiB, of which some dozens run at once.
const SLOWEST: u64 = 64 << 10;

/// How long it may take to send so many bytes.
pub(super) fn sending(bytes: usize) -> Duration {
    Duration::from_secs(bytes as u64 / SLOWEST)
}

/// Makes clients whose requests run on threads of their own.
#[derive(Debug)]
pub struct Connector {
    runtime: Handle,
    /// The longest wait that a server may ask for.
    patience: Duration,
    /// How long a server may say nothing.
    silence: Duration,
}

impl Connector {
    /// With the time limits of a store.
    ///
    /// # Errors
    /// Where the system gives no threads.
    pub fn new(spec: &StoreSpec) -> crate::error::Result<Self> {
        let (patience, silence) = (Duration::from_secs(spec.retry_s), Duration::from_secs(spec.timeout_s));
        Ok(Self { runtime: super::io::handle()?, patience, silence })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = SpawnedReqwestConnector::new(self.runtime.clone()).connect(options)?;
        Ok(HttpClient::new(Patient { inner, patience: self.patience, silence: self.silence }))
    }
}

/// Gives up on silence, not on a long answer that comes; waits as long as a throttling server asks, before the answer is handed to whoever retries.
#[derive(Debug)]
struct Patient {
    inner: HttpClient,
    patience: Duration,
    silence: Duration,
}

#[async_trait]
impl HttpService for Patient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // What is sent cannot be watched on its way.
        let limit = self.silence + sending(request.body().content_length());
        let answer = timeout(limit, self.inner.execute(request)).await.unwrap_or_else(|_| Err(silent(limit)))?;
        if let Some(asked) = retry_after(&answer) {
            tracing::debug!(seconds = asked.as_secs(), status = answer.status().as_u16(), "the store asks to wait");
            tokio::time::sleep(asked.min(self.patience)).await;
        }
        let silence = self.silence;
        Ok(answer.map(|body| watched(body, silence)))
    }
}

/// A body that fails where nothing of it comes for too long.
fn watched(body: HttpResponseBody, silence: Duration) -> HttpResponseBody {
    let frames = stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match timeout(silence, body.frame()).await {
            Ok(frame) => Some((frame?, Some(body))),
            Err(_) => Some((Err(silent(silence)), None)),
        }
    });
    // An empty body is asked again after its end.
    HttpResponseBody::new(StreamBody::new(frames.fuse()))
}

fn silent(silence: Duration) -> HttpError {
    HttpError::new(HttpErrorKind::Timeout, super::steady::silence(silence))
}

/// `Retry-After` in seconds, of answers that say "too much" (RFC 9110, 10.2.3; the form with a date is not used by stores).
fn retry_after(answer: &HttpResponse) -> Option<Duration> {
    if !matches!(answer.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        return None;
    }
    let seconds = answer.headers().get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn a_body_that_falls_silent_fails_and_an_empty_one_ends() {
        let body = watched(Bytes::new().into(), Duration::from_secs(1));
        assert!(body.bytes().await.unwrap().is_empty());
        let slow = stream::iter(0..5).then(|_| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(hyper::body::Frame::data(Bytes::from_static(b"ab")))
        });
        let slow = HttpResponseBody::new(StreamBody::new(slow));
        assert_eq!(watched(slow, Duration::from_secs(10)).bytes().await.unwrap().len(), 10);
        let mute = stream::iter([Ok(hyper::body::Frame::data(Bytes::from_static(b"ab")))]).chain(stream::pending());
        let e = watched(HttpResponseBody::new(StreamBody::new(mute)), Duration::from_millis(100)).bytes().await.unwrap_err();
        assert_eq!((e.kind(), e.to_string()), (HttpErrorKind::Timeout, "HTTP error: no answer within 0.1 s".to_owned()));
    }
}
