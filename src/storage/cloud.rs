//! Google Cloud Storage and Azure Blob Storage, as `object_store` gives them: their own environment variables say how they are reached.

use std::sync::Arc;

use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ClientOptions, ObjectStore};

use super::http::Connector;
use super::s3::{client_options, retry};
use crate::error::Result;
use crate::spec::stores::StoreSpec;

fn options(spec: &StoreSpec) -> ClientOptions {
    client_options(spec).with_allow_http(spec.allow_http.unwrap_or(false))
}

/// Opens a bucket of Google's.
pub fn gcs(bucket: &str, spec: &StoreSpec) -> Result<Arc<dyn ObjectStore>> {
    let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retry(spec));
    Ok(Arc::new(builder.with_client_options(options(spec)).with_http_connector(Connector::new(spec)?).build()?))
}

/// Opens a container of Azure's: `container`, or `container@account.dfs.core.windows.net`.
pub fn azure(root: &str, spec: &StoreSpec) -> Result<Arc<dyn ObjectStore>> {
    let builder = MicrosoftAzureBuilder::from_env().with_url(root).with_retry(retry(spec));
    Ok(Arc::new(builder.with_client_options(options(spec)).with_http_connector(Connector::new(spec)?).build()?))
}
