//! HTTP as stores are spoken to: on threads of its own, and patient where the server names a time to wait.

use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, SpawnedReqwestConnector};
use tokio::runtime::Handle;

/// Makes clients whose requests run on `runtime` and honour `Retry-After` up to `patience`.
#[derive(Debug)]
pub struct Connector {
    /// Where requests run.
    pub runtime: Handle,
    /// The longest wait that a server may ask for.
    pub patience: Duration,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = SpawnedReqwestConnector::new(self.runtime.clone()).connect(options)?;
        Ok(HttpClient::new(Patient { inner, patience: self.patience }))
    }
}

/// Waits as long as a throttling server asks, before the answer is handed to whoever retries.
#[derive(Debug)]
struct Patient {
    inner: HttpClient,
    patience: Duration,
}

#[async_trait]
impl HttpService for Patient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.inner.execute(request).await?;
        if let Some(asked) = retry_after(&answer) {
            tracing::debug!(seconds = asked.as_secs(), status = answer.status().as_u16(), "the store asks to wait");
            tokio::time::sleep(asked.min(self.patience)).await;
        }
        Ok(answer)
    }
}

/// `Retry-After` in seconds, of answers that say "too much" (RFC 9110, 10.2.3; the form with a date is not used by stores).
fn retry_after(answer: &HttpResponse) -> Option<Duration> {
    if !matches!(answer.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        return None;
    }
    let seconds = answer.headers().get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
