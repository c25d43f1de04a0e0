//! Cast and gather: columns become rows once, as a row group is decoded; then each row is one copy into a slot.
//!
//! A shuffled row lies anywhere in a window. Fetched column by column it costs a cache miss a column; as a row of the final number type it costs one,
//! and the window takes half the memory that doubles would.

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use half::{bf16, f16};

use super::decode::{Decoded, Numbers};
use super::order::RowRef;
use super::ring::Sections;
use crate::error::Result;

/// A number that a column is cast to. Whole numbers beyond the mantissa are rounded to the nearest.
pub trait Element: Copy {
    /// From a double.
    fn from_f64(v: f64) -> Self;
    /// From a float.
    fn from_f32(v: f32) -> Self;
    /// From a whole number.
    fn from_i64(v: i64) -> Self;
    /// From a whole number that is not negative.
    fn from_u64(v: u64) -> Self;
}

impl Element for f32 {
    fn from_f64(v: f64) -> Self {
        v as f32
    }
    fn from_f32(v: f32) -> Self {
        v
    }
    fn from_i64(v: i64) -> Self {
        v as f32
    }
    fn from_u64(v: u64) -> Self {
        v as f32
    }
}

impl Element for f16 {
    fn from_f64(v: f64) -> Self {
        f16::from_f64(v)
    }
    fn from_f32(v: f32) -> Self {
        f16::from_f32(v)
    }
    fn from_i64(v: i64) -> Self {
        f16::from_f64(v as f64)
    }
    fn from_u64(v: u64) -> Self {
        f16::from_f64(v as f64)
    }
}

impl Element for bf16 {
    fn from_f64(v: f64) -> Self {
        bf16::from_f64(v)
    }
    fn from_f32(v: f32) -> Self {
        bf16::from_f32(v)
    }
    fn from_i64(v: i64) -> Self {
        bf16::from_f64(v as f64)
    }
    fn from_u64(v: u64) -> Self {
        bf16::from_f64(v as f64)
    }
}

impl Element for i64 {
    fn from_f64(v: f64) -> Self {
        v as i64
    }
    fn from_f32(v: f32) -> Self {
        v as i64
    }
    fn from_i64(v: i64) -> Self {
        v
    }
    fn from_u64(v: u64) -> Self {
        i64::try_from(v).unwrap_or(i64::MAX)
    }
}

/// Rows of a fixed number of bytes, one after another.
#[derive(Debug, Clone, Default)]
pub struct FixedRows {
    /// The bytes, in words, so that numbers of any width are aligned.
    words: Vec<u64>,
    width: usize,
}

impl FixedRows {
    /// Columns of equal length as rows of `U`: row *i* is `columns[0][i], columns[1][i], …`.
    pub fn new<U: Element + bytemuck::Pod>(columns: &[Numbers], rows: usize) -> Self {
        let width = columns.len() * size_of::<U>();
        let mut words = vec![0u64; (rows * width).div_ceil(size_of::<u64>())];
        let cells: &mut [U] = bytemuck::cast_slice_mut(&mut words);
        interleave(columns, &mut cells[..rows * columns.len()]);
        Self { words, width }
    }

    /// Bytes of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        self.words.len() as u64 * 8
    }

    fn row(&self, row: u32) -> &[u8] {
        let at = row as usize * self.width;
        &bytemuck::cast_slice(&self.words)[at..at + self.width]
    }
}

/// Bytes of rows that are written column by column before the next rows are: they stay in the first-level cache.
const BLOCK_BYTES: usize = 16 * 1024;

/// Writes `out[i * columns.len() + c] = columns[c][i]`, cast.
fn interleave<U: Element>(columns: &[Numbers], out: &mut [U]) {
    let cols = columns.len();
    if cols == 0 {
        return;
    }
    let block = (BLOCK_BYTES / (cols * size_of::<U>())).clamp(16, 4096);
    for (i, out) in out.chunks_mut(block * cols).enumerate() {
        for (col, numbers) in columns.iter().enumerate() {
            cast(numbers, i * block, &mut out[col..], cols);
        }
    }
}

/// Writes the numbers from `first` on to every `step`-th cell.
fn cast<U: Element>(numbers: &Numbers, first: usize, out: &mut [U], step: usize) {
    fn each<T: Copy, U>(values: &[T], out: &mut [U], step: usize, cast: impl Fn(T) -> U) {
        for (cell, &v) in out.iter_mut().step_by(step).zip(values) {
            *cell = cast(v);
        }
    }
    match numbers {
        Numbers::I8(v) => each(&v[first..], out, step, |v| U::from_f32(f32::from(v))),
        Numbers::I16(v) => each(&v[first..], out, step, |v| U::from_f32(f32::from(v))),
        Numbers::I32(v) => each(&v[first..], out, step, |v| U::from_i64(i64::from(v))),
        Numbers::I64(v) => each(&v[first..], out, step, U::from_i64),
        Numbers::U8(v) => each(&v[first..], out, step, |v| U::from_f32(f32::from(v))),
        Numbers::U16(v) => each(&v[first..], out, step, |v| U::from_f32(f32::from(v))),
        Numbers::U32(v) => each(&v[first..], out, step, |v| U::from_i64(i64::from(v))),
        Numbers::U64(v) => each(&v[first..], out, step, U::from_u64),
        Numbers::F16(v) => each(&v[first..], out, step, |v| U::from_f32(v.to_f32())),
        Numbers::F32(v) => each(&v[first..], out, step, U::from_f32),
        Numbers::F64(v) => each(&v[first..], out, step, U::from_f64),
        Numbers::Bool(v) => {
            for (i, cell) in out.iter_mut().step_by(step).enumerate() {
                *cell = U::from_f32(f32::from(u8::from(v.value(first + i))));
            }
        }
    }
}

/// Copies rows, in this order, to the front of `out`. `groups` are the row groups that the rows name, all of one width.
pub fn gather(groups: &[&FixedRows], rows: &[RowRef], out: &mut [u8]) {
    let Some(width) = groups.first().map(|g| g.width).filter(|w| *w > 0) else { return };
    for (cells, &(group, row)) in out.chunks_exact_mut(width).zip(rows) {
        cells.copy_from_slice(groups[group as usize].row(row));
    }
}

/// Fills the features and labels of the slot's rows from `at` on from one window's row groups.
pub(super) fn fill_numbers(window: &[Decoded], rows: &[RowRef], at: usize, out: &mut Sections<'_>) {
    let features: Vec<&FixedRows> = window.iter().map(|g| &g.features).collect();
    let labels: Vec<&FixedRows> = window.iter().map(|g| &g.label).collect();
    for (groups, section) in [(features, &mut *out.features), (labels, &mut *out.labels)] {
        let width = groups.first().map_or(0, |g| g.width);
        gather(&groups, rows, &mut section[at * width..]);
    }
}

/// Takes rows of the columns that are handed out as they are. `rows` counts row groups over all `groups`.
pub(super) fn take_columns(groups: &[&RecordBatch], rows: &[RowRef]) -> Result<RecordBatch> {
    let indices: Vec<(usize, usize)> = rows.iter().map(|&(g, r)| (g as usize, r as usize)).collect();
    Ok(interleave_record_batch(groups, &indices)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gathers rows of `U`.
    fn gathered<U: Element + bytemuck::Pod>(groups: &[Vec<Numbers>], lens: &[usize], rows: &[RowRef]) -> Vec<U> {
        let fixed: Vec<FixedRows> = groups.iter().zip(lens).map(|(g, &n)| FixedRows::new::<U>(g, n)).collect();
        let mut out = vec![0u64; (rows.len() * fixed[0].width()).div_ceil(8)];
        gather(&fixed.iter().collect::<Vec<_>>(), rows, bytemuck::cast_slice_mut(&mut out));
        bytemuck::cast_slice::<u64, U>(&out)[..rows.len() * groups[0].len()].to_vec()
    }

    fn f64s(v: &[f64]) -> Numbers {
        Numbers::F64(v.to_vec().into())
    }

    #[test]
    fn columns_become_rows_of_a_matrix() {
        let groups = [vec![f64s(&[1.0, 2.0]), Numbers::I32(vec![10, 20].into())], vec![f64s(&[3.0]), Numbers::I8(vec![30].into())]];
        assert_eq!(gathered::<f32>(&groups, &[2, 1], &[(1, 0), (0, 1), (0, 0)]), [3.0, 30.0, 2.0, 20.0, 1.0, 10.0]);
    }

    proptest! {
        #[test]
        fn every_dtype_rounds_once(values in prop::collection::vec(-60_000f64..60_000.0, 1..6000), cols in 1usize..6, pick in prop::collection::vec(any::<prop::sample::Index>(), 1..300)) {
            let half = values.len() / 2;
            let groups: Vec<Vec<Numbers>> = [&values[..half], &values[half..]].iter().map(|v| vec![f64s(v); cols]).collect();
            let lens = [half, values.len() - half];
            let at: Vec<usize> = pick.iter().map(|i| i.index(values.len())).collect();
            let rows: Vec<RowRef> = at.iter().map(|&i| if i < half { (0, i as u32) } else { (1, (i - half) as u32) }).collect();
            let (a, b, c) = (gathered::<f32>(&groups, &lens, &rows), gathered::<f16>(&groups, &lens, &rows), gathered::<bf16>(&groups, &lens, &rows));
            for (i, &v) in at.iter().map(|&i| &values[i]).enumerate() {
                prop_assert!(a[i * cols..(i + 1) * cols].iter().all(|&x| x == v as f32));
                prop_assert_eq!(b[(i + 1) * cols - 1], f16::from_f64(v));
                prop_assert_eq!(c[i * cols], bf16::from_f64(v));
            }
        }
    }

    #[test]
    fn all_widths_and_booleans_are_cast() {
        let columns = vec![
            Numbers::I8(vec![-3].into()),
            Numbers::I16(vec![-3].into()),
            Numbers::I32(vec![-3].into()),
            Numbers::I64(vec![-3].into()),
            Numbers::U8(vec![3].into()),
            Numbers::U16(vec![3].into()),
            Numbers::U32(vec![3].into()),
            Numbers::U64(vec![3].into()),
            Numbers::F16(vec![f16::from_f32(0.5)].into()),
            Numbers::F32(vec![0.5].into()),
            Numbers::F64(vec![0.5].into()),
            Numbers::Bool([true].into_iter().collect()),
        ];
        let want = [-3.0, -3.0, -3.0, -3.0, 3.0, 3.0, 3.0, 3.0, 0.5, 0.5, 0.5, 1.0];
        assert_eq!(gathered::<f32>(std::slice::from_ref(&columns), &[1], &[(0, 0)]), want);
        assert_eq!(gathered::<i64>(&[columns[7..8].to_vec()], &[1], &[(0, 0)]), [3]);
        assert_eq!(i64::from_u64(u64::MAX), i64::MAX);
    }
}
