//! The threads that talk to remote stores. They are apart from those that compute, so that no request waits for a thread which decodes or
//! compresses, and they live as long as the process, so that a store may be used from several runtimes one after another.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, Result};

/// Threads. They wait nearly all the time; two keep TLS of one request from holding up another.
const THREADS: usize = 2;

/// The runtime for requests.
pub fn handle() -> Result<Handle> {
    static IO: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime =
        IO.get_or_init(|| Builder::new_multi_thread().worker_threads(THREADS).thread_name("feedline-io").enable_all().build().ok());
    runtime
        .as_ref()
        .map(|r| r.handle().clone())
        .ok_or_else(|| Error::internal("the system gives no threads for requests").hint("raise the limit of threads"))
}
