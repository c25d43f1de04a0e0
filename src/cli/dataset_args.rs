//! A dataset on the command line, and how its store is reached.

use std::path::{Path, PathBuf};

use clap::Args;

use super::SpecArgs;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::spec::stores::Stores;
use crate::storage::Location;

/// A dataset.
#[derive(Debug, Clone, Args)]
pub struct DatasetArgs {
    /// The dataset's folder: a path or a URI.
    #[arg(value_name = "DATASET")]
    pub dataset: String,
    /// How stores are reached.
    #[command(flatten)]
    pub stores: StoresArgs,
}

/// How stores are reached.
#[derive(Debug, Clone, Args)]
pub struct StoresArgs {
    /// Reach stores as the `stores` of this spec say; by default as the environment says (AWS_…, HADOOP_CONF_DIR, …).
    #[arg(long, value_name = "PIPELINE")]
    pub stores: Option<PathBuf>,
}

impl DatasetArgs {
    /// The dataset that is named.
    ///
    /// # Errors
    /// What is wrong with the URI, or with the spec that says how stores are reached.
    pub fn open(&self) -> Result<Dataset> {
        self.open_with(&self.stores.open()?.unwrap_or_default())
    }

    /// The same, with what [`StoresArgs::open`] gave.
    ///
    /// # Errors
    /// What is wrong with the URI.
    pub fn open_with(&self, stores: &Stores) -> Result<Dataset> {
        Ok(Dataset::new(Location::open_with(&self.dataset, Path::new("."), stores)?))
    }
}

impl StoresArgs {
    /// The stores of the spec that is named, with absolute paths: what else a command line names starts from the current folder.
    ///
    /// # Errors
    /// Those of [`SpecArgs::open`].
    pub fn open(&self) -> Result<Option<Stores>> {
        let Some(path) = &self.stores else { return Ok(None) };
        let spec = SpecArgs { path: path.clone(), set: Vec::new() }.open()?;
        let base = std::path::absolute(&spec.base)?;
        let mut stores = spec.loaded.pipeline.stores;
        for store in stores.values_mut() {
            for path in [&mut store.credentials_file, &mut store.hadoop_conf].into_iter().flatten() {
                *path = base.join(&path).display().to_string();
            }
        }
        Ok(Some(stores))
    }
}
