//! The memory that batches lie in. A slot of the ring is one block of it, so that a device batch is one copy.

pub mod cpu;

use std::fmt;

use crate::error::Result;

/// A block of host memory: the heap, or page-locked memory on a machine with a GPU.
pub trait HostMemory: Send + Sync + fmt::Debug {
    /// The whole block; its address is a multiple of [`ALIGN`].
    fn bytes(&self) -> &[u8];
    /// The whole block, to write.
    fn bytes_mut(&mut self) -> &mut [u8];
}

/// Gives blocks of host memory to the ring.
pub trait HostAllocator: Send + Sync + fmt::Debug {
    /// A zeroed block of this many bytes.
    ///
    /// # Errors
    /// Where there is no such memory.
    fn allocate(&self, bytes: usize) -> Result<Box<dyn HostMemory>>;
}

/// The alignment of blocks and of every array in them: a cache line, and what DLPack consumers expect.
pub const ALIGN: usize = 64;
