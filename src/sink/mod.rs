//! From batches to a published version: shards, the delivery pass, the commit.

pub mod commit;
pub mod deliver;
mod encoding;
pub mod lease;
pub mod shard;
