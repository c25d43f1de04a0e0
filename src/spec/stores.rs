//! The spec's `stores` section: how stores are reached. Nothing here changes a byte of the result, and nothing here is a secret.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of stores by the beginning of their URIs, such as `s3://` or `s3://bucket`; the longest that fits counts.
pub type Stores = IndexMap<String, StoreSpec>;

/// How a store is reached. What is not said here comes from the environment (`AWS_…`, `HADOOP_CONF_DIR`, `GOOGLE_…`, `AZURE_…`). Keys and tokens
/// never stand here: they come from the environment or from the file that `credentials_file` names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreSpec {
    /// S3: the server's address, such as `https://minio.example.org:9000`; by default AWS itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// S3: the bucket's region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// S3: whether the bucket stands in the path (`host/bucket`, the default) or in the host's name (`bucket.host`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// Speak plain HTTP where the endpoint does: everything, keys' signatures included, can be read on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_http: Option<bool>,
    /// S3: a file with keys in the form of `~/.aws/credentials`; relative paths start from the spec's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<String>,
    /// S3: the profile in that file, or in `~/.aws/credentials` and `~/.aws/config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// S3: send requests without a signature, for public buckets.
    #[serde(default)]
    pub anonymous: bool,
    /// HDFS: the folder with `core-site.xml` and `hdfs-site.xml`, instead of `HADOOP_CONF_DIR`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hadoop_conf: Option<String>,
    /// Requests in flight at most.
    #[serde(default = "default_requests")]
    #[schemars(range(min = 1, max = 4096))]
    pub requests: usize,
    /// Seconds until a request that goes on failing for a passing reason is given up.
    #[serde(default = "default_retry_s")]
    pub retry_s: u64,
    /// Seconds that the store may be silent within a request.
    #[serde(default = "default_timeout_s")]
    #[schemars(range(min = 1))]
    pub timeout_s: u64,
}

impl Default for StoreSpec {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            path_style: None,
            allow_http: None,
            credentials_file: None,
            profile: None,
            anonymous: false,
            hadoop_conf: None,
            requests: default_requests(),
            retry_s: default_retry_s(),
            timeout_s: default_timeout_s(),
        }
    }
}

/// Requests in flight at most, where nothing else is said; and what those keep under way who have many things to ask.
pub const REQUESTS: usize = 64;

fn default_requests() -> usize {
    REQUESTS
}
fn default_retry_s() -> u64 {
    120
}
fn default_timeout_s() -> u64 {
    30
}
