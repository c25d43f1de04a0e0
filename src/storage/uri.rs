//! A URI taken apart. No I/O: the spec's checks use it too.

use object_store::path::Path;

use crate::error::{Error, Result, nearest};

/// The kinds of stores that Feedline speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Amazon S3 and all that speak its protocol (`s3`, `s3a`).
    S3,
    /// The Hadoop file system (`hdfs`).
    Hdfs,
    /// Google Cloud Storage (`gs`).
    Gcs,
    /// Azure Blob Storage (`az`, `abfs`, `abfss`).
    Azure,
    /// The memory of this process, for tests and examples (`memory`).
    Memory,
}

/// Every scheme a URI may begin with.
const SCHEMES: &[(&str, Option<Scheme>)] = &[
    ("file", None),
    ("s3", Some(Scheme::S3)),
    ("s3a", Some(Scheme::S3)),
    ("hdfs", Some(Scheme::Hdfs)),
    ("gs", Some(Scheme::Gcs)),
    ("az", Some(Scheme::Azure)),
    ("abfs", Some(Scheme::Azure)),
    ("abfss", Some(Scheme::Azure)),
    ("memory", Some(Scheme::Memory)),
];

/// Where a URI points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A path on this machine's disk, absolute or relative.
    Disk(String),
    /// A path in a store.
    Store {
        /// The kind of store.
        scheme: Scheme,
        /// Bucket, container, or NameNode and port; empty for Hadoop's default file system.
        authority: String,
        /// The path in it.
        path: Path,
        /// `scheme://authority`, as written.
        root: String,
    },
}

/// Takes a URI apart. Names in it are taken as they are: `%20` is three characters, a space is a space.
///
/// # Errors
/// `Usage` for an unknown scheme, a missing bucket, credentials or a query in the URI. Credentials are never repeated in the message.
pub fn parse(uri: &str) -> Result<Target> {
    let Some((name, rest)) = uri.split_once("://") else { return Ok(Target::Disk(uri.to_owned())) };
    let lower = name.to_ascii_lowercase();
    let Some((_, scheme)) = SCHEMES.iter().find(|(known, _)| *known == lower) else {
        return Err(Error::usage(format!("no store speaks `{name}://`"))
            .at(redacted(uri))
            .hint(nearest(&lower, SCHEMES.iter().map(|(s, _)| *s))));
    };
    let Some(scheme) = scheme else { return Ok(Target::Disk(rest.to_owned())) };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    // Azure's `container@account` is a name, not a user.
    if authority.split_once('@').is_some_and(|(user, _)| *scheme != Scheme::Azure || user.contains(':')) {
        return Err(Error::usage("credentials do not belong into a URI").at(redacted(uri)).hint(credentials_hint(*scheme)));
    }
    if path.contains('?') || authority.contains('?') {
        return Err(Error::usage("a URI of a store has no query")
            .at(redacted(uri))
            .hint("options of a store go into the spec's `stores` section"));
    }
    if authority.is_empty() && *scheme != Scheme::Hdfs {
        return Err(Error::usage(format!("`{lower}://` needs a bucket"))
            .at(redacted(uri))
            .hint(format!("write `{lower}://bucket/folder`")));
    }
    let parts = path.split('/').filter(|p| !p.is_empty());
    if parts.clone().any(|p| p == "." || p == "..") {
        return Err(Error::usage("a path in a store cannot go up").at(redacted(uri)).hint("write the path without `.` and `..`"));
    }
    let path = Path::parse(parts.collect::<Vec<_>>().join("/"))
        .map_err(|e| Error::usage(format!("a path that no store takes: {e}")).at(redacted(uri)).hint("leave out control characters"))?;
    Ok(Target::Store { scheme: *scheme, authority: authority.to_owned(), path, root: format!("{lower}://{authority}") })
}

fn credentials_hint(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or name a file by `credentials_file` in the spec's `stores`"
        }
        Scheme::Hdfs => "set HADOOP_USER_NAME, or use Kerberos",
        Scheme::Gcs => "set GOOGLE_APPLICATION_CREDENTIALS",
        Scheme::Azure => "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        Scheme::Memory => "leave them out",
    }
}

/// A URI without what may be a secret in it: user, password and query.
pub fn redacted(uri: &str) -> String {
    redacted_text(uri)
}

/// A text in which no URI shows user, password or query (which may hold a signature).
pub fn redacted_text(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(ends_uri).unwrap_or(after.len());
        let (uri, next) = after.split_at(end);
        let host = uri.split('/').next().unwrap_or_default();
        let shown = match host.rfind('@') {
            Some(at) => format!("***{}", &uri[at..]),
            None => uri.to_owned(),
        };
        out.push_str(shown.split('?').next().unwrap_or_default());
        rest = next;
    }
    out + rest
}

fn ends_uri(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '}' | ')' | '<' | '>')
}

/// Whether a name is that of a secret: `AWS_SECRET_ACCESS_KEY`, `db_password`, `HF_TOKEN`.
pub fn names_secret(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let words = ["SECRET", "PASSWORD", "PASSWD", "TOKEN", "CREDENTIAL", "CREDENTIALS", "APIKEY"];
    // What ends so names where a secret lies.
    if ["_FILE", "_PATH", "_DIR", "_URI", "_URL"].iter().any(|end| upper.ends_with(end)) {
        return false;
    }
    upper.split(['_', '-', '.']).any(|word| words.contains(&word))
        || ["ACCESS_KEY", "API_KEY", "PRIVATE_KEY", "ACCOUNT_KEY"].iter().any(|sign| upper.contains(sign))
}

/// A spec's text with the user and password of every URI, and the value of every key that names a secret, masked by `*` byte for byte: places in the
/// text stay as they are.
pub fn masked(text: &str) -> String {
    let mut spans = Vec::new();
    for (at, _) in text.match_indices("://") {
        let begin = at + 3;
        let rest = &text[begin..];
        let end = rest.find(|c| ends_uri(c) || c == '/').unwrap_or(rest.len());
        spans.extend(rest[..end].rfind('@').map(|at| begin..begin + at));
    }
    for (at, _) in text.match_indices([':', '=']) {
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let before = text[..at].trim_end_matches(['"', '\'', ' ']);
        let name = before.rsplit(|c| !is_name(c)).next().unwrap_or_default();
        let value = text[at + 1..].trim_start_matches([' ', '"', '\'']);
        let begin = text.len() - value.len();
        let end = begin + value.find(['\n', ',', '}', '"', '\'']).unwrap_or(value.len());
        if names_secret(name) && !value.starts_with(['{', '[']) {
            spans.push(begin..end);
        }
    }
    let mut out = text.to_owned();
    for span in spans {
        out.replace_range(span.clone(), &"*".repeat(span.len()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(uri: &str) -> (Scheme, String, String) {
        match parse(uri).unwrap() {
            Target::Store { scheme, authority, path, .. } => (scheme, authority, path.to_string()),
            disk => panic!("{disk:?}"),
        }
    }

    #[test]
    fn uris_name_store_bucket_and_path() {
        assert_eq!(store("s3://b/a b/ü%20x/"), (Scheme::S3, "b".into(), "a b/ü%20x".into()));
        assert_eq!(store("S3A://b"), (Scheme::S3, "b".into(), String::new()));
        assert_eq!(store("hdfs://nn:8020//x//y"), (Scheme::Hdfs, "nn:8020".into(), "x/y".into()));
        assert_eq!(store("hdfs:///x"), (Scheme::Hdfs, String::new(), "x".into()));
        assert_eq!(store("abfss://c@account.dfs.core.windows.net/x").1, "c@account.dfs.core.windows.net");
        assert_eq!(parse("a/b").unwrap(), Target::Disk("a/b".into()));
        assert_eq!(parse("file:///a").unwrap(), Target::Disk("/a".into()));
    }

    #[test]
    fn what_is_no_uri_of_a_store_is_refused_and_secrets_are_not_repeated() {
        for uri in ["s4://b/x", "s3:///x", "s3://b/../x", "s3://key:HUSH@b/x", "s3://HUSH@b/x", "hdfs://HUSH@nn/x", "s3://b/x?token=HUSH"] {
            let e = parse(uri).unwrap_err();
            let told = format!("{e} {:?}", e.to_do());
            assert!(e.exit_code() == 64 && !told.contains("HUSH"), "{told}");
        }
        assert_eq!(parse("s4://b").unwrap_err().to_do(), Some("did you mean `s3`?"));
    }

    #[test]
    fn names_of_secrets_are_known() {
        assert!(["AWS_SECRET_ACCESS_KEY", "db_password", "HF_TOKEN", "AWS_ACCESS_KEY_ID"].iter().all(|n| names_secret(n)));
        assert!(!["TOKENIZER", "max_tokens", "tokens", "keys", "credentials_file"].iter().any(|n| names_secret(n)));
    }

    #[test]
    fn masks_keep_places() {
        assert_eq!(masked("s: { secret_key: \"abc\", tokens: { a: 1 } }"), "s: { secret_key: \"***\", tokens: { a: 1 } }");
        assert_eq!(masked("stores.s3.session_token=abc"), "stores.s3.session_token=***");
        assert_eq!(redacted("s3://key:secret@bucket/x?token=1"), "s3://***@bucket/x");
        let text = "uri: s3://k:s@b/x # a@b\nb: \"https://u@h\"";
        assert_eq!(masked(text), "uri: s3://***@b/x # a@b\nb: \"https://*@h\"");
        assert_eq!(masked(text).len(), text.len());
        assert_eq!(masked("a?b://ü:é@x"), "a?b://*****@x");
    }
}
