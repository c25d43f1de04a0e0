//! From batches to a published version: shards, the delivery pass, the commit.

pub mod commit;
pub mod deliver;
pub mod lease;
pub mod shard;
