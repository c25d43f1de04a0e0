//! From batches to a published version.

pub mod shard;
