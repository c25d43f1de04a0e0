//! The Hadoop file system. Name services, HA and Kerberos come from the files in `HADOOP_CONF_DIR`, the user from `HADOOP_USER_NAME`.
//!
//! A file becomes visible by a rename; one that is created must not be there yet, so that the commit is exclusive.

use std::path::Path as FsPath;
use std::sync::Arc;

use hdfs_native::{ClientBuilder, HdfsError};
use hdfs_native_object_store::HdfsObjectStore;
use object_store::ObjectStore;

use crate::error::{Error, Result};
use crate::spec::stores::StoreSpec;

/// Opens a NameNode (`host:port`), a name service, or with an empty authority Hadoop's default file system.
pub fn open(authority: &str, spec: &StoreSpec, base: &FsPath) -> Result<Arc<dyn ObjectStore>> {
    let place = format!("hdfs://{authority}");
    let mut builder = ClientBuilder::new().with_io_runtime(super::io::handle()?);
    if !authority.is_empty() {
        builder = builder.with_url(&place);
    }
    if let Some(folder) = &spec.hadoop_conf {
        let folder = base.join(folder);
        if !folder.is_dir() {
            return Err(Error::storage("there is no such folder")
                .at(folder.display().to_string())
                .hint("check `hadoop_conf` in the spec's `stores`"));
        }
        builder = builder.with_config_dir(folder.display().to_string());
    }
    let client = builder.build().map_err(|e| unopened(&e, authority).at(place).because(e))?;
    Ok(Arc::new(HdfsObjectStore::new(client)))
}

fn unopened(e: &HdfsError, authority: &str) -> Error {
    let hint = match authority {
        "" => "`hdfs:///` means Hadoop's default file system: set HADOOP_CONF_DIR to the folder with `core-site.xml`, or name the NameNode",
        a if a.contains(':') => "write `hdfs://host:port/path`",
        _ => "a name without a port is a name service: set HADOOP_CONF_DIR to the folder with `hdfs-site.xml`, or add the NameNode's port",
    };
    Error::storage(format!("cannot open HDFS: {e}")).hint(hint)
}
