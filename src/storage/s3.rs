//! S3 and what speaks its protocol.
//!
//! Settings come from the spec's `stores`, then the environment (`AWS_…`), then the profile's files. Keys never come from the spec.

use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::{ClientOptions, RetryConfig};
use serde::Deserialize;

use super::failure::s3_answer;
use super::http::Connector;
use super::profile::{Profile, Wanted};
use crate::error::{Error, Result};
use crate::spec::stores::StoreSpec;

/// Without a region anywhere, this one: what AWS's own tools take.
const REGION: &str = "us-east-1";

/// One bucket.
#[derive(Debug)]
pub struct Bucket {
    /// The bucket as a store.
    pub store: Arc<AmazonS3>,
    /// The bucket's address: what a listing of unfinished uploads is asked from.
    address: String,
    region: String,
    client: HttpClient,
    anonymous: bool,
}

/// An upload that was begun and neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The object it was to become.
    pub path: Path,
    /// Its id.
    pub id: String,
    /// When it began, RFC 3339.
    pub initiated: String,
}

/// Opens a bucket. Nothing is asked of the server yet.
pub fn open(bucket: &str, spec: &StoreSpec, base: &FsPath) -> Result<Bucket> {
    let place = format!("s3://{bucket}");
    open_with(bucket, spec, base, &|name| std::env::var(name).ok()).map_err(|e| e.at(place))
}

fn open_with(bucket: &str, spec: &StoreSpec, base: &FsPath, env: &dyn Fn(&str) -> Option<String>) -> Result<Bucket> {
    let mut builder = from_environment(env).with_bucket_name(bucket);
    let file = spec.credentials_file.as_ref().map(|f| base.join(f));
    let profile = Wanted::new(file, spec.profile.as_deref(), env).load()?;
    // A profile that the spec names outweighs the environment's keys; one that merely lies there does not.
    let named = spec.credentials_file.is_some() || spec.profile.is_some();
    let has_keys = |key| builder.get_config_value(&key).is_some_and(|v| !v.is_empty());
    let outside = [
        AmazonS3ConfigKey::AccessKeyId,
        AmazonS3ConfigKey::WebIdentityTokenFile,
        AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
        AmazonS3ConfigKey::ContainerCredentialsFullUri,
    ];
    let from_outside = outside.into_iter().any(has_keys);
    if named || !from_outside {
        builder = with_keys(builder, &profile, named)?;
    }
    if spec.anonymous {
        builder = builder.with_skip_signature(true);
    } else if !from_outside && profile.access_key.is_none() && env("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v == "true") {
        return Err(Error::storage("there are no keys for S3").hint(NO_KEYS));
    }
    let region = spec.region.clone().or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Region)).or(profile.region);
    let region = region.unwrap_or_else(|| REGION.to_owned());
    let endpoint = spec.endpoint.clone();
    let endpoint = endpoint.or_else(|| builder.get_config_value(&AmazonS3ConfigKey::S3Endpoint));
    let endpoint = endpoint.or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint)).or(profile.endpoint);
    let allow_http = spec.allow_http.unwrap_or_else(|| env("AWS_ALLOW_HTTP").is_some_and(|v| v.eq_ignore_ascii_case("true") || v == "1"));
    let virtual_host = spec.path_style == Some(false)
        || spec.path_style.is_none() && env("AWS_VIRTUAL_HOSTED_STYLE_REQUEST").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let address = address(bucket, endpoint.as_deref(), &region, virtual_host, allow_http)?;
    if let Some(endpoint) = endpoint {
        // object_store takes the bucket's own host where the bucket is part of it.
        let host = if virtual_host { address.clone() } else { endpoint.trim_end_matches('/').to_owned() };
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, host.clone()).with_endpoint(host);
    }
    let options = client_options(spec).with_allow_http(allow_http);
    let store = builder
        .with_region(&region)
        .with_virtual_hosted_style_request(virtual_host)
        .with_retry(retry(spec))
        .with_client_options(options.clone())
        .with_http_connector(Connector::new(spec)?)
        .build()?;
    let client = Connector::new(spec)?.connect(&options)?;
    Ok(Bucket { store: Arc::new(store), address, region, client, anonymous: spec.anonymous })
}

/// What to do where there are no keys at all.
pub const NO_KEYS: &str =
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a public bucket set `anonymous: true` in the spec's `stores`";

fn from_environment(env: &dyn Fn(&str) -> Option<String>) -> AmazonS3Builder {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|name| name.starts_with("AWS_"));
    names.fold(AmazonS3Builder::new(), |builder, name| match (name.to_ascii_lowercase().parse(), env(&name)) {
        (Ok(key), Some(value)) => builder.with_config(key, value),
        _ => builder,
    })
}

fn with_keys(builder: AmazonS3Builder, profile: &Profile, named: bool) -> Result<AmazonS3Builder> {
    match (&profile.access_key, &profile.secret_key) {
        (Some(id), Some(secret)) => {
            let builder = builder.with_access_key_id(id).with_secret_access_key(secret);
            Ok(match &profile.token {
                Some(token) => builder.with_token(token),
                None => builder,
            })
        }
        (None, None) if !named => Ok(builder),
        _ => Err(Error::storage("the AWS profile lacks a key").hint("it needs `aws_access_key_id` and `aws_secret_access_key`")),
    }
}

fn address(bucket: &str, endpoint: Option<&str>, region: &str, virtual_host: bool, allow_http: bool) -> Result<String> {
    let endpoint = endpoint.map_or_else(|| format!("https://s3.{region}.amazonaws.com"), |e| e.trim_end_matches('/').to_owned());
    let Some((scheme, host)) = endpoint.split_once("://").filter(|(s, h)| matches!(*s, "http" | "https") && !h.is_empty()) else {
        return Err(Error::usage("the S3 endpoint is not a web address")
            .hint("write it with its scheme, for example `https://minio.example.org:9000`"));
    };
    if host.contains('@') {
        return Err(Error::usage("credentials do not belong into the S3 endpoint").hint(NO_KEYS));
    }
    if scheme == "http" && !allow_http {
        return Err(Error::usage("the S3 endpoint is plain HTTP, which is not allowed unless asked for")
            .hint("set AWS_ALLOW_HTTP=true, or `allow_http: true` in the spec's `stores`; or use https://"));
    }
    Ok(if virtual_host { format!("{scheme}://{bucket}.{host}") } else { format!("{scheme}://{host}/{bucket}") })
}

/// How long and how often a client tries.
pub fn retry(spec: &StoreSpec) -> RetryConfig {
    // Time bounds the tries, not their number: a server that comes back within the time is waited for.
    RetryConfig { max_retries: 1000, retry_timeout: Duration::from_secs(spec.retry_s), ..Default::default() }
}

/// Time-outs of a client, beside those of [`Connector`].
pub fn client_options(spec: &StoreSpec) -> ClientOptions {
    ClientOptions::new().with_timeout_disabled().with_connect_timeout(Duration::from_secs(spec.timeout_s.min(5)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    #[serde(default)]
    upload: Vec<Upload>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: String,
    #[serde(default)]
    next_upload_id_marker: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
    #[serde(default)]
    initiated: String,
}

impl Bucket {
    /// The unfinished uploads below a path (S3's ListMultipartUploads, all pages).
    pub async fn unfinished(&self, below: &Path) -> Result<Vec<Unfinished>> {
        let mut found = Vec::new();
        let (mut key, mut id) = (String::new(), String::new());
        loop {
            let page = self.page(below, &key, &id).await?;
            for upload in page.upload {
                if let Ok(path) = Path::parse(&upload.key) {
                    found.push(Unfinished { path, id: upload.upload_id, initiated: upload.initiated });
                }
            }
            // Some servers call a page truncated and give no marker: the same page for ever.
            if !page.is_truncated || (page.next_key_marker == key && page.next_upload_id_marker == id) {
                return Ok(found);
            }
            (key, id) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }

    async fn page(&self, below: &Path, key: &str, id: &str) -> Result<Listing> {
        let mut url = url::Url::parse(&format!("{}/", self.address)).map_err(|e| Error::storage(format!("not an S3 endpoint: {e}")))?;
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("uploads", "").append_pair("prefix", &format!("{below}/"));
            if !key.is_empty() {
                query.append_pair("key-marker", key).append_pair("upload-id-marker", id);
            }
        }
        // Signatures are over `%20`, which a form writes as `+`.
        let url = url.as_str().replace('+', "%20");
        let broken = |e: &dyn std::fmt::Display| Error::storage(format!("cannot list unfinished uploads: {e}"));
        let failed = |e: &dyn std::fmt::Display| broken(e).hint("run again");
        let mut request = http::Request::get(url).body(object_store::client::HttpRequestBody::empty()).map_err(|e| failed(&e))?;
        if !self.anonymous {
            let credential = self.store.credentials().get_credential().await?;
            AwsAuthorizer::new(&credential, "s3", &self.region).authorize(&mut request, None);
        }
        let answer = self.client.execute(request).await.map_err(|e| failed(&e))?;
        let status = answer.status();
        let body = answer.into_body().bytes().await.map_err(|e| failed(&e))?;
        if matches!(status, StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED) {
            tracing::warn!(
                "this server lists no unfinished uploads: what killed runs sent stays there, unless a rule of the bucket aborts them"
            );
            return Ok(Listing::default());
        }
        if !status.is_success() {
            let (words, hint) = s3_answer(status.as_u16(), &String::from_utf8_lossy(&body));
            return Err(broken(&words).hint(hint));
        }
        quick_xml::de::from_reader(body.as_ref()).map_err(|e| failed(&e))
    }

    /// Removes an unfinished upload and its parts.
    pub async fn abort(&self, upload: &Unfinished) -> Result<()> {
        use object_store::multipart::MultipartStore;
        match self.store.abort_multipart(&upload.path, &upload.id).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(spec: StoreSpec, env: &[(&str, &str)]) -> Result<Bucket> {
        let of = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        open_with("b", &spec, FsPath::new("/nowhere"), &of)
    }

    #[test]
    fn plain_http_is_refused_unless_asked_for() {
        let spec =
            |allow_http| StoreSpec { endpoint: Some("http://localhost:9".into()), allow_http, anonymous: true, ..Default::default() };
        assert!(open(spec(None), &[]).unwrap_err().to_do().unwrap().contains("AWS_ALLOW_HTTP"));
        assert!(open(spec(Some(false)), &[("AWS_ALLOW_HTTP", "true")]).is_err());
        assert_eq!(open(spec(None), &[("AWS_ALLOW_HTTP", "true")]).unwrap().address, "http://localhost:9/b");
    }

    #[test]
    fn the_bucket_stands_in_path_or_host() {
        let spec = |path_style| StoreSpec { endpoint: Some("https://h:9/".into()), path_style, anonymous: true, ..Default::default() };
        assert_eq!(open(spec(None), &[]).unwrap().address, "https://h:9/b");
        assert_eq!(open(spec(Some(false)), &[]).unwrap().address, "https://b.h:9");
        let aws = StoreSpec { region: Some("eu-west-1".into()), anonymous: true, ..Default::default() };
        assert_eq!(open(aws, &[]).unwrap().address, "https://s3.eu-west-1.amazonaws.com/b");
    }

    #[test]
    fn no_keys_and_no_metadata_service_is_said_at_once() {
        let e = open(StoreSpec::default(), &[("AWS_EC2_METADATA_DISABLED", "true")]).unwrap_err();
        assert!(e.to_do().unwrap().contains("AWS_PROFILE"));
    }

    #[test]
    fn listings_of_uploads_are_read() {
        let text = "<?xml version=\"1.0\"?><ListMultipartUploadsResult><Bucket>b</Bucket><IsTruncated>false</IsTruncated>\
            <Upload><Key>a/x y</Key><UploadId>1</UploadId><Initiated>2026-01-01T00:00:00Z</Initiated></Upload>\
            <Upload><Key>z</Key><UploadId>2</UploadId></Upload></ListMultipartUploadsResult>";
        let listing: Listing = quick_xml::de::from_str(text).unwrap();
        assert_eq!(listing.upload.iter().map(|u| u.key.as_str()).collect::<Vec<_>>(), ["a/x y", "z"]);
    }
}
