//! The DataFusion session of a run: its memory budget, spill folder, partitions and batch size.

use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::error::Result;
use crate::spec::pipeline::Resources;

/// Consumers that an out-of-memory message names.
const NAMED_CONSUMERS: NonZeroUsize = NonZeroUsize::new(5).unwrap();

/// A session within the resources given.
pub fn session(resources: &Resources) -> Result<SessionContext> {
    let budget = usize::try_from(resources.memory.as_u64()).unwrap_or(usize::MAX);
    let disk = match &resources.spill {
        Some(folder) => DiskManagerMode::Directories(vec![folder.into()]),
        None => DiskManagerMode::OsTmpDirectory,
    };
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(TrackConsumersPool::new(FairSpillPool::new(budget), NAMED_CONSUMERS)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(disk).with_max_temp_directory_size(u64::MAX))
        .build_arc()?;
    let mut config = SessionConfig::new()
        .with_target_partitions(resources.threads.max(1))
        .with_batch_size(resources.batch_rows.max(1))
        .with_information_schema(false);
    let options = config.options_mut();
    // A sort sets memory aside for its merge; with a small budget the default of 10 MB a partition would eat the whole of it.
    options.execution.sort_spill_reservation_bytes = (budget / 32 / resources.threads.max(1)).min(10 << 20);
    Ok(SessionContext::new_with_config_rt(config, runtime))
}
