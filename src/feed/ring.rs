//! The ring's slots: one block of host memory each, laid out once, filled by a worker, read by the consumer, and used again.
//!
//! ```text
//!  slot  │ features  rows × cols │ labels │ ids  rows × length │ mask │ segments │ positions │     every array 64-byte aligned
//!        └──────────────── one block: a device batch is one copy of it ─────────────────────┘
//! ```

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use half::{bf16, f16};

use super::device::{ALIGN, HostAllocator, HostMemory};
use crate::error::Result;
use crate::spec::pipeline::{Dtype, TokensMode};

/// What a slot holds, and where in its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Rows that a slot has room for.
    pub rows: usize,
    /// Columns of the matrix; 0 where there is none.
    pub cols: usize,
    /// The matrix's number type.
    pub dtype: Dtype,
    /// `Some(true)` where labels are `f32`, `Some(false)` where they are `i64`.
    pub label: Option<bool>,
    /// Tokens in a row and how they are laid out.
    pub tokens: Option<(usize, TokensMode)>,
    ranges: [Range<usize>; 6],
}

/// A slot's arrays, to write.
pub(super) struct Sections<'a> {
    pub features: &'a mut [u8],
    pub labels: &'a mut [u8],
    pub ids: &'a mut [u32],
    pub mask: &'a mut [u8],
    pub segments: &'a mut [u32],
    pub positions: &'a mut [u32],
}

impl Layout {
    /// The layout of slots with room for `rows` rows.
    pub fn new(rows: usize, cols: usize, dtype: Dtype, label: Option<bool>, tokens: Option<(usize, TokensMode)>) -> Self {
        let cells = rows.saturating_mul(tokens.map_or(0, |(length, _)| length));
        let packed = if tokens.is_some_and(|(_, m)| m == TokensMode::Pack) { cells.saturating_mul(4) } else { 0 };
        let masked = if packed == 0 { cells } else { 0 };
        let label_width = label.map_or(0, |fractional| if fractional { 4 } else { 8 });
        let sizes = [
            rows.saturating_mul(cols).saturating_mul(width(dtype)),
            rows.saturating_mul(label_width),
            cells.saturating_mul(4),
            masked,
            packed,
            packed,
        ];
        let mut at = 0usize;
        let ranges = sizes.map(|size| {
            let range = at..at.saturating_add(size);
            at = range.end.div_ceil(ALIGN).saturating_mul(ALIGN);
            range
        });
        Self { rows, cols, dtype, label, tokens, ranges }
    }

    /// Bytes of a slot's block.
    pub fn bytes(&self) -> usize {
        self.ranges[5].end
    }

    /// Bytes of the parts that `rows` rows fill.
    pub fn bytes_of(&self, rows: usize) -> usize {
        self.ranges.iter().map(|r| r.len() / self.rows.max(1) * rows).sum()
    }

    /// The arrays of a block, cut to `rows` rows.
    pub(super) fn sections<'a>(&self, mut block: &'a mut [u8], rows: usize) -> Sections<'a> {
        let mut at = 0;
        let mut parts = self.ranges.clone().map(|r| {
            let (head, tail) = std::mem::take(&mut block).split_at_mut(r.end - at);
            block = tail;
            let part = &mut head[r.start - at..];
            at = r.end;
            let used = part.len() / self.rows.max(1) * rows;
            &mut part[..used]
        });
        let mut next = |i: usize| std::mem::take(&mut parts[i]);
        Sections {
            features: next(0),
            labels: next(1),
            ids: bytemuck::cast_slice_mut(next(2)),
            mask: next(3),
            segments: bytemuck::cast_slice_mut(next(4)),
            positions: bytemuck::cast_slice_mut(next(5)),
        }
    }

    fn section<'a>(&self, block: &'a [u8], index: usize, rows: usize) -> &'a [u8] {
        let r = &self.ranges[index];
        &block[r.start..r.start + r.len() / self.rows.max(1) * rows]
    }
}

/// Bytes of a number.
pub fn width(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F32 => 4,
        Dtype::F16 | Dtype::Bf16 => 2,
    }
}

/// The blocks that are free. A block comes back when its batch is dropped.
#[derive(Debug)]
pub(super) struct Pool {
    pub layout: Layout,
    allocator: Box<dyn HostAllocator>,
    free: Mutex<Vec<Box<dyn HostMemory>>>,
    keep: usize,
}

impl Pool {
    /// A pool that keeps at most so many free blocks.
    pub fn new(layout: Layout, allocator: Box<dyn HostAllocator>, keep: usize) -> Self {
        Self { layout, allocator, free: Mutex::default(), keep }
    }

    /// A free block, or a new one: a consumer that keeps its batches costs memory and is never left waiting.
    pub fn take(&self) -> Result<Box<dyn HostMemory>> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.map_or_else(|| self.allocator.allocate(self.layout.bytes()), Ok)
    }

    fn put(&self, block: Box<dyn HostMemory>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.keep {
            free.push(block);
        }
    }

    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.free.lock().unwrap().len()
    }
}

/// One batch. Its arrays lie in a slot of the ring, which is used again once the batch is dropped.
#[derive(Debug)]
pub struct Batch {
    rows: usize,
    position: u64,
    columns: Option<RecordBatch>,
    block: Option<Box<dyn HostMemory>>,
    pool: Arc<Pool>,
}

/// A matrix of features, row-major: row *i* is `data[i * cols .. (i + 1) * cols]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// The numbers.
    pub data: MatrixData<'a>,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
}

/// A matrix's numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MatrixData<'a> {
    /// 32 bits.
    F32(&'a [f32]),
    /// 16 bits, IEEE.
    F16(&'a [f16]),
    /// 16 bits, the exponent of f32.
    Bf16(&'a [bf16]),
}

impl MatrixData<'_> {
    /// The numbers as `f32`, converted where they are halves.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::F32(v) => v.to_vec(),
            Self::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
            Self::Bf16(v) => v.iter().map(|x| x.to_f32()).collect(),
        }
    }
}

/// A batch's labels, one a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Labels<'a> {
    /// Of a fractional column.
    F32(&'a [f32]),
    /// Of whole numbers or booleans.
    I64(&'a [i64]),
}

impl Labels<'_> {
    /// The labels as `f32`.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::F32(v) => v.to_vec(),
            Self::I64(v) => v.iter().map(|&x| x as f32).collect(),
        }
    }
}

/// A batch's tokens, `rows × length`, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// Token ids, all below 2³¹: the same bits as `i32`.
    pub ids: &'a [u32],
    /// Tokens in a row.
    pub length: usize,
    /// Padded rows only: 1 where a token is, 0 where padding is.
    pub mask: Option<&'a [u8]>,
    /// Packed rows only: which row of the dataset a token is of, counted from 1 in each packed row; 0 is padding.
    pub segments: Option<&'a [u32]>,
    /// Packed rows only: the token's place in its segment, from 0.
    pub positions: Option<&'a [u32]>,
}

impl Tokens<'_> {
    /// The ids as `i32`, at no cost.
    pub fn ids_i32(&self) -> &[i32] {
        bytemuck::cast_slice(self.ids)
    }
}

impl Batch {
    pub(super) fn new(rows: usize, position: u64, columns: Option<RecordBatch>, block: Box<dyn HostMemory>, pool: Arc<Pool>) -> Self {
        Self { rows, position, columns, block: Some(block), pool }
    }

    /// Rows: packed rows where tokens are packed.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The position in the epoch, over all ranks, of the first row.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn section(&self, index: usize) -> &[u8] {
        self.block.as_ref().map_or(&[], |b| self.pool.layout.section(b.bytes(), index, self.rows))
    }

    /// The features, where the feed has any.
    pub fn features(&self) -> Option<Matrix<'_>> {
        let layout = &self.pool.layout;
        let bytes = self.section(0);
        let data = match layout.dtype {
            _ if layout.cols == 0 => return None,
            Dtype::F32 => MatrixData::F32(bytemuck::cast_slice(bytes)),
            Dtype::F16 => MatrixData::F16(bytemuck::cast_slice(bytes)),
            Dtype::Bf16 => MatrixData::Bf16(bytemuck::cast_slice(bytes)),
        };
        Some(Matrix { data, rows: self.rows, cols: layout.cols })
    }

    /// The labels, where the feed has one.
    pub fn labels(&self) -> Option<Labels<'_>> {
        let bytes = self.section(1);
        Some(if self.pool.layout.label? { Labels::F32(bytemuck::cast_slice(bytes)) } else { Labels::I64(bytemuck::cast_slice(bytes)) })
    }

    /// The tokens, where the feed has any.
    pub fn tokens(&self) -> Option<Tokens<'_>> {
        let (length, mode) = self.pool.layout.tokens?;
        let packed = mode == TokensMode::Pack;
        Some(Tokens {
            ids: bytemuck::cast_slice(self.section(2)),
            length,
            mask: (!packed).then(|| self.section(3)),
            segments: packed.then(|| bytemuck::cast_slice(self.section(4))),
            positions: packed.then(|| bytemuck::cast_slice(self.section(5))),
        })
    }

    /// The columns that are handed out as they are, where the feed has any.
    pub fn columns(&self) -> Option<&RecordBatch> {
        self.columns.as_ref()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pool.put(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::device::cpu::Heap;
    use super::*;

    #[test]
    fn sections_are_aligned_disjoint_and_read_back() {
        let layout = Layout::new(7, 3, Dtype::F16, Some(false), Some((5, TokensMode::Pack)));
        let pool = Arc::new(Pool::new(layout.clone(), Box::new(Heap), 2));
        let mut block = pool.take().unwrap();
        let s = layout.sections(block.bytes_mut(), 6);
        assert_eq!((s.features.len(), s.labels.len(), s.ids.len(), s.mask.len()), (6 * 3 * 2, 6 * 8, 30, 0));
        s.features.fill(1);
        s.labels.fill(2);
        s.ids.fill(3);
        s.segments.fill(4);
        s.positions.fill(5);
        let batch = Batch::new(6, 0, None, block, pool.clone());
        let t = batch.tokens().unwrap();
        assert!(t.ids.iter().all(|&v| v == 3) && t.mask.is_none());
        assert!(t.segments.unwrap().iter().all(|&v| v == 4) && t.positions.unwrap().iter().all(|&v| v == 5));
        assert!(matches!(batch.labels(), Some(Labels::I64(v)) if v.len() == 6 && v[5] == 0x0202_0202_0202_0202));
        assert!(matches!(batch.features(), Some(Matrix { data: MatrixData::F16(v), .. }) if v.len() == 18));
        drop(batch);
        assert_eq!(pool.free(), 1);
    }

    #[test]
    fn a_full_pool_lets_blocks_go() {
        let pool = Arc::new(Pool::new(Layout::new(1, 1, Dtype::F32, None, None), Box::new(Heap), 1));
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        drop([Batch::new(1, 0, None, a, pool.clone()), Batch::new(1, 0, None, b, pool.clone())]);
        assert_eq!(pool.free(), 1);
    }
}
