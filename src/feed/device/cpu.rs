//! Blocks on the heap.

use super::{ALIGN, HostAllocator, HostMemory};
use crate::error::{Error, Kind, Result};

/// Gives blocks on the heap.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heap;

#[derive(Debug)]
struct Block {
    words: Vec<u128>,
    /// Bytes to the first aligned address: the standard library offers no aligned vector without `unsafe`.
    skip: usize,
    len: usize,
}

impl HostAllocator for Heap {
    fn allocate(&self, bytes: usize) -> Result<Box<dyn HostMemory>> {
        let count = bytes.saturating_add(ALIGN).div_ceil(size_of::<u128>());
        let mut words = Vec::new();
        words.try_reserve_exact(count).map_err(|e| {
            Error::new(Kind::Resources, format!("no memory for a batch of {bytes} bytes")).hint("lower `feed.batch_rows`").because(e)
        })?;
        words.resize(count, 0u128);
        let skip = (ALIGN - words.as_ptr() as usize % ALIGN) % ALIGN;
        Ok(Box::new(Block { words, skip, len: bytes }))
    }
}

impl HostMemory for Block {
    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[self.skip..self.skip + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[self.skip..self.skip + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_an_error() {
        assert_eq!(Heap.allocate(usize::MAX).unwrap_err().kind(), Kind::Resources);
    }

    #[test]
    fn blocks_are_aligned_and_whole() {
        for bytes in [0, 1, 63, 64, 65, 4096, 100_001] {
            let mut block = Heap.allocate(bytes).unwrap();
            assert_eq!((block.bytes().len(), block.bytes_mut().len()), (bytes, bytes));
            assert_eq!(block.bytes().as_ptr() as usize % ALIGN, 0);
        }
    }
}
