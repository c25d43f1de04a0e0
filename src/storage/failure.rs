//! What stores say when they fail, in words that a person can act on.

use std::time::Duration;

use hdfs_native::HdfsError;
use object_store::Error as StoreError;

use crate::error::{Error, Kind};

/// Exceptions of a NameNode that pass: it starts, or hands over to another.
const PASSING: &[&str] =
    &["StandbyException", "RetriableException", "SafeModeException", "ObserverRetryOnActiveException", "NotReplicatedYetException"];

/// Whether the same request may succeed a little later.
pub fn is_passing(e: &StoreError) -> bool {
    match e {
        StoreError::Generic { source, .. } => cause_passes(source.as_ref()),
        _ => false,
    }
}

fn cause_passes(cause: &(dyn std::error::Error + 'static)) -> bool {
    let causes = || std::iter::successors(Some(cause), |e| e.source());
    let text = chain(cause);
    if causes().any(|e| e.is::<GivenUp>()) || is_settled(&text) {
        return false;
    }
    if let Some(status) = status(&text) {
        // What is not implemented will not be in a minute.
        return (status >= 500 && status != 501) || matches!(status, 408 | 425 | 429);
    }
    // A library's own error around a known one says nothing.
    let known = causes().find_map(|e| {
        let hdfs = e.downcast_ref().map(hdfs_passes);
        hdfs.or_else(|| e.downcast_ref().map(is_passing)).or_else(|| e.downcast_ref().map(io_passes))
    });
    known.unwrap_or(true)
}

/// A passing failure after which nobody tries again: time is up.
#[derive(Debug)]
struct GivenUp {
    source: Box<dyn std::error::Error + Send + Sync>,
    after: Duration,
}

impl std::fmt::Display for GivenUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (given up after {:.1} s)", chain(self.source.as_ref()), self.after.as_secs_f64())
    }
}

impl std::error::Error for GivenUp {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.source.as_ref())
    }
}

/// Marks a failure as one that was tried again until time was up: it passes no more.
pub(super) fn given_up(e: StoreError, after: Duration) -> StoreError {
    match e {
        StoreError::Generic { store, source } => StoreError::Generic { store, source: GivenUp { source, after }.into() },
        settled => settled,
    }
}

/// The store's own error, where that is what a writer of Parquet carries.
pub(crate) fn stored(e: Box<dyn std::error::Error + Send + Sync>) -> Result<StoreError, Box<dyn std::error::Error + Send + Sync>> {
    let e = match e.downcast::<std::io::Error>() {
        Ok(io) => match io.downcast::<StoreError>() {
            Ok(store) => return Ok(store),
            Err(io) => io.into(),
        },
        Err(e) => e,
    };
    e.downcast::<StoreError>().map(|e| *e)
}

/// Failures without a status that will be the same next time.
fn is_settled(text: &str) -> bool {
    ["169.254.169.254", "redirect without LOCATION", "invalid URL", "InvalidCertificate", "certificate verify failed", "builder error"]
        .iter()
        .any(|sign| text.contains(sign))
}

fn io_passes(e: &std::io::Error) -> bool {
    use std::io::ErrorKind as K;
    !matches!(
        e.kind(),
        K::NotFound | K::PermissionDenied | K::InvalidInput | K::Unsupported | K::StorageFull | K::NotADirectory | K::IsADirectory
    )
}

fn hdfs_passes(e: &HdfsError) -> bool {
    match e {
        HdfsError::IOError(e) => io_passes(e),
        HdfsError::DataTransferError(_) | HdfsError::ChecksumError | HdfsError::BlocksNotFound(_) => true,
        HdfsError::RPCError(class, _) | HdfsError::FatalRPCError(class, _) => PASSING.iter().any(|name| class.ends_with(name)),
        _ => false,
    }
}

/// The status of an HTTP answer that a message tells of.
fn status(text: &str) -> Option<u16> {
    let at = text.find("status code: ")? + "status code: ".len();
    text.get(at..at + 3)?.parse().ok()
}

/// Whether an object is shorter than what was asked for.
pub(crate) fn is_out_of_range(e: &StoreError) -> bool {
    let text = chain(e);
    matches!(e, StoreError::Generic { .. }) && (status(&text) == Some(416) || text.contains("but object was only"))
}

/// The `<Code>` of an S3 error.
fn code(text: &str) -> Option<&str> {
    let begin = text.find("<Code>")? + "<Code>".len();
    text.get(begin..)?.split('<').next()
}

/// A store that throttles: the one failure of this kind that is as good as a lease held by another, and ends with exit code 75.
const SLOWER: &str = "the store asks to slow down";

/// What S3 means by a code, or Azure, which writes its errors in the same form: in words, and what to do.
fn s3_words(code: &str) -> Option<(&'static str, &'static str)> {
    Some(match code {
        "NoSuchBucket" => ("there is no such bucket", "check the bucket's name, and that the endpoint is the right one"),
        "InvalidAccessKeyId" => ("S3 does not know the access key", "check AWS_ACCESS_KEY_ID, or the profile"),
        "SignatureDoesNotMatch" => ("S3 refuses the signature: the secret key is wrong", "check AWS_SECRET_ACCESS_KEY, or the profile"),
        "ExpiredToken" | "TokenRefreshRequired" => {
            ("the session token has expired", "get new keys, for example with `aws sso login`, and run again")
        }
        "InvalidToken" => ("S3 does not know the session token", "check AWS_SESSION_TOKEN: it belongs to one pair of keys"),
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            ("the bucket lies in another region", "set AWS_REGION, or `region` in the spec's `stores`, to the bucket's region")
        }
        "RequestTimeTooSkewed" => ("this machine's clock is wrong", "set the clock; S3 takes requests within 15 minutes"),
        "AccessDenied" | "AllAccessDisabled" => ("S3 denies access", "give these keys the right to list, read and write there"),
        "SlowDown" | "ServiceUnavailable" | "ServerBusy" | "RequestLimitExceeded" | "TooManyRequests" => {
            (SLOWER, "run again later, or lower `requests` in the spec's `stores`")
        }
        "ContainerNotFound" => ("there is no such container", "check the container's name, and that the account is the right one"),
        "AuthenticationFailed" | "AuthorizationFailure" | "AuthorizationPermissionMismatch" => {
            ("Azure denies access", "check the account's key or token (AZURE_…), and its role there: Storage Blob Data Contributor")
        }
        "InternalError" => ("S3 failed inside", "run again later; finished work is kept"),
        "EntityTooLarge" => ("the object is too large for this store", "lower `shard_bytes` in the sink"),
        "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage" => {
            ("the store is full", "free space there, then run again: finished work is kept")
        }
        _ => return None,
    })
}

/// What an answer of S3 that tells of a failure means: in words, and what to do.
pub(super) fn s3_answer(status: u16, body: &str) -> (String, &'static str) {
    match code(body).and_then(s3_words) {
        Some((words, hint)) => (words.to_owned(), hint),
        None => (format!("the server answers {status}"), "run again later"),
    }
}

/// What HDFS means by an exception: in words, and what to do.
fn hdfs_words(class: &str, text: &str) -> Option<(String, &'static str, Kind)> {
    let first = text.lines().next().unwrap_or_default();
    let ends = |name: &str| class.ends_with(name);
    Some(if ends("SafeModeException") || text.contains("SafeModeException") {
        (
            "the NameNode is in safe mode: it takes no changes".to_owned(),
            "wait until it has started, or see `hdfs dfsadmin -safemode get`; then run again",
            Kind::Lease,
        )
    } else if ends("StandbyException") {
        (
            "this NameNode is a standby".to_owned(),
            "name the name service instead (`hdfs://name/…`, with HADOOP_CONF_DIR), or the active NameNode",
            Kind::Lease,
        )
    } else if ends("AccessControlException") {
        (format!("permission denied: {first}"), "give the user access, or set HADOOP_USER_NAME to one who has it", Kind::Storage)
    } else if ends("ParentNotDirectoryException") || text.contains("is not a directory") {
        (format!("a file lies where a folder should be: {first}"), "check the path", Kind::Storage)
    } else if ends("QuotaExceededException") || ends("DSQuotaExceededException") || ends("NSQuotaExceededException") {
        (format!("the quota is used up: {first}"), "free space, or ask for a larger quota; then run again", Kind::Resources)
    } else if ends("FileAlreadyExistsException") {
        (format!("already exists: {first}"), "another run wrote it; run again", Kind::Storage)
    } else {
        return None;
    })
}

/// A text without the stack traces and lists of nodes that Hadoop's errors carry along.
fn short(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("at org.") && !line.trim_start().starts_with("at java"));
    let text = lines.collect::<Vec<_>>().join(" ");
    let end = text.find("[DatanodeInfo").unwrap_or(text.len());
    text[..end].trim_end().to_owned()
}

/// Every text of an error's chain, outermost first.
fn chain(e: &(dyn std::error::Error + 'static)) -> String {
    let mut texts = vec![e.to_string()];
    let mut next = e.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !texts.iter().any(|t| t.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts.join(": ")
}

fn hdfs_cause(e: &StoreError) -> Option<&HdfsError> {
    let mut next = std::error::Error::source(e);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<HdfsError>() {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

/// A failure in a few words, for logs.
pub fn told(e: &StoreError) -> String {
    let text = super::uri::redacted_text(&short(&chain(e)));
    explained(e, &text).unwrap_or_else(|| plain(e, &text)).message().to_owned()
}

impl From<StoreError> for Error {
    fn from(e: StoreError) -> Self {
        let text = super::uri::redacted_text(&short(&chain(&e)));
        if crate::error::is_disk_full(&text) {
            return Error::disk_full(text);
        }
        explained(&e, &text).unwrap_or_else(|| plain(&e, &text)).passing(is_passing(&e)).because(Said(text))
    }
}

/// The chain of a store's error as text, without credentials: what "caused by" shows.
#[derive(Debug)]
struct Said(String);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}

/// The errors whose meaning is known.
fn explained(e: &StoreError, text: &str) -> Option<Error> {
    if let Some((words, hint)) = code(text).and_then(s3_words) {
        let kind = if words == SLOWER { Kind::Lease } else { Kind::Storage };
        return Some(Error::new(kind, words).hint(hint));
    }
    if text.contains("169.254.169.254") {
        return Some(Error::storage("there are no keys for S3, and this machine has no service that gives them").hint(super::s3::NO_KEYS));
    }
    if text.contains("redirect without LOCATION") {
        let (words, hint) = s3_words("PermanentRedirect")?;
        return Some(Error::storage(words).hint(hint));
    }
    if let Some(HdfsError::RPCError(class, said) | HdfsError::FatalRPCError(class, said)) = hdfs_cause(e)
        && let Some((words, hint, kind)) = hdfs_words(class, said)
    {
        return Some(Error::new(kind, words).hint(hint));
    }
    let unreachable =
        ["Connection refused", "error sending request", "dns error", "failed to lookup", "No route to host", "ConnectionRefused"];
    if matches!(e, StoreError::Generic { .. }) && unreachable.iter().any(|sign| text.contains(sign)) {
        return Some(
            Error::storage("the store cannot be reached")
                .hint("check the endpoint and that its server runs, then run again: finished work is kept"),
        );
    }
    None
}

fn plain(e: &StoreError, text: &str) -> Error {
    let (message, hint) = match e {
        StoreError::NotFound { path, .. } => (format!("no such object: {path}"), "check the path in the spec"),
        // The answer to a question about one object has no body that would say more.
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } if text.contains("status code: 40") => (
            "the store denies access".to_owned(),
            "check the keys (AWS_ACCESS_KEY_ID …, or the profile) and what they may do; `feedline doctor` says more",
        ),
        StoreError::PermissionDenied { path, .. } | StoreError::Unauthenticated { path, .. } => {
            (format!("permission denied: {path}"), "give the user who runs Feedline access to it")
        }
        _ if text.contains("Permission denied") => (text.to_owned(), "give the user who runs Feedline access to it"),
        _ if text.contains("Not a directory") => (text.to_owned(), "a file lies where a folder should be: check the path"),
        StoreError::Precondition { path, .. } => {
            (format!("the object changed while it was used: {path}"), "run again once nobody writes there")
        }
        StoreError::AlreadyExists { path, .. } => (format!("already exists: {}", short(path)), "another run wrote it; run again"),
        // Without "Generic S3 error" before it.
        StoreError::Generic { source, .. } => {
            (super::uri::redacted_text(&short(&chain(source.as_ref()))), "run again; finished work is kept")
        }
        _ => (text.to_owned(), "run again; finished work is kept"),
    };
    Error::storage(message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::Generic { store: "S3", source: source.into() }
    }

    #[test]
    fn what_passes_is_told_from_what_stays() {
        let answer = |status: &str| generic(format!("Server returned non-2xx status code: {status}: <x/>"));
        assert!(is_passing(&answer("503 Service Unavailable")) && is_passing(&answer("429 Too Many Requests")));
        assert!(!is_passing(&answer("403 Forbidden")) && !is_passing(&answer("400 Bad Request")) && !is_passing(&answer("501 x")));
        assert!(is_passing(&generic(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "x"))));
        assert!(!is_passing(&generic(std::io::Error::new(std::io::ErrorKind::PermissionDenied, "x"))));
        let rpc = |class: &str| generic(HdfsError::RPCError(format!("org.apache.hadoop.{class}"), "x".into()));
        assert!(is_passing(&rpc("hdfs.server.namenode.SafeModeException")) && !is_passing(&rpc("security.AccessControlException")));
        assert!(!is_passing(&StoreError::NotFound { path: "x".into(), source: "y".into() }));
    }

    #[test]
    fn what_was_tried_until_time_was_up_passes_no_more_and_says_so() {
        let reset = || generic(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset by peer"));
        assert!(Error::from(reset()).is_passing());
        let e = Error::from(given_up(reset(), Duration::from_secs(7)));
        assert!(!e.is_passing() && e.message() == "reset by peer (given up after 7.0 s)", "{e}");
        let shorter = generic("Server returned non-2xx status code: 416 Range Not Satisfiable: <Code>InvalidRange</Code>");
        assert!(is_out_of_range(&shorter) && !is_passing(&shorter) && !is_out_of_range(&reset()));
        // The way through a writer of Parquet and its `io::Error` keeps it what it is.
        let inner: std::io::Error = reset().into();
        let e = Error::from(parquet::errors::ParquetError::from(inner));
        assert!(e.is_passing() && e.kind() == Kind::Storage, "{e:?}");
    }

    #[test]
    fn stores_errors_become_words_with_a_remedy() {
        let told = |e: StoreError| {
            let e = Error::from(e);
            (e.message().to_owned(), e.to_do().unwrap_or_default().to_owned(), e.exit_code())
        };
        let (message, hint, _) = told(generic("status code: 403 Forbidden: <Error><Code>InvalidAccessKeyId</Code></Error>"));
        assert!(message.contains("access key") && hint.contains("AWS_ACCESS_KEY_ID"));
        let safe = HdfsError::RPCError("org.apache.hadoop.hdfs.server.namenode.SafeModeException".into(), "Cannot create".into());
        let (message, _, exit) = told(generic(safe));
        assert!(message.contains("safe mode") && exit == 75);
        let (message, _, _) = told(generic("error sending request for url (http://k:SECRET@h/b?sig=SECRET)"));
        assert!(message.contains("cannot be reached"));
        let e = Error::from(generic("weird: http://k:SECRET@h/b?X-Amz-Signature=SECRET&x=1 end"));
        assert!(!format!("{e} {e:?}").contains("SECRET"), "{e:?}");
    }
}
