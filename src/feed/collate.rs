//! Gather and cast: from the columns of a window, in shuffled order, straight into a slot. The one copy between decoder and device.

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use half::{bf16, f16};

use super::decode::{Decoded, Numbers};
use super::order::RowRef;
use super::ring::{Layout, Sections};
use crate::error::{Error, Result};
use crate::spec::pipeline::Dtype;

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

/// One column of a window: a slice for every row group, all of one type.
enum View<'a> {
    I8(Vec<&'a [i8]>),
    I16(Vec<&'a [i16]>),
    I32(Vec<&'a [i32]>),
    I64(Vec<&'a [i64]>),
    U8(Vec<&'a [u8]>),
    U16(Vec<&'a [u16]>),
    U32(Vec<&'a [u32]>),
    U64(Vec<&'a [u64]>),
    F16(Vec<&'a [f16]>),
    F32(Vec<&'a [f32]>),
    F64(Vec<&'a [f64]>),
    Bool(Vec<&'a arrow::buffer::BooleanBuffer>),
}

fn drifted() -> Error {
    Error::input("a column has other types in some shards than in others")
        .hint("all shards of a version have one schema: run `feedline verify`")
}

impl<'a> View<'a> {
    fn new(groups: &[&'a Numbers]) -> Result<Self> {
        macro_rules! slices {
            ($($variant:ident),*) => {
                match groups.first() {
                    $(Some(Numbers::$variant(_)) => View::$variant(
                        groups.iter().map(|n| match n { Numbers::$variant(v) => Ok(&v[..]), _ => Err(drifted()) }).collect::<Result<_>>()?
                    ),)*
                    Some(Numbers::Bool(_)) => View::Bool(
                        groups.iter().map(|n| match n { Numbers::Bool(v) => Ok(v), _ => Err(drifted()) }).collect::<Result<_>>()?
                    ),
                    None => View::F32(Vec::new()),
                }
            };
        }
        Ok(slices!(I8, I16, I32, I64, U8, U16, U32, U64, F16, F32, F64))
    }

    /// Writes `out[i * cols + col]` for every row named.
    fn gather<U: Element>(&self, rows: &[RowRef], out: &mut [U], cols: usize, col: usize) {
        match self {
            Self::I8(g) => gather(g, rows, out, cols, col, |v| U::from_f32(f32::from(v))),
            Self::I16(g) => gather(g, rows, out, cols, col, |v| U::from_f32(f32::from(v))),
            Self::I32(g) => gather(g, rows, out, cols, col, |v| U::from_i64(i64::from(v))),
            Self::I64(g) => gather(g, rows, out, cols, col, U::from_i64),
            Self::U8(g) => gather(g, rows, out, cols, col, |v| U::from_f32(f32::from(v))),
            Self::U16(g) => gather(g, rows, out, cols, col, |v| U::from_f32(f32::from(v))),
            Self::U32(g) => gather(g, rows, out, cols, col, |v| U::from_i64(i64::from(v))),
            Self::U64(g) => gather(g, rows, out, cols, col, U::from_u64),
            Self::F16(g) => gather(g, rows, out, cols, col, |v| U::from_f32(v.to_f32())),
            Self::F32(g) => gather(g, rows, out, cols, col, U::from_f32),
            Self::F64(g) => gather(g, rows, out, cols, col, U::from_f64),
            Self::Bool(g) => {
                for (cells, &(group, row)) in out.chunks_exact_mut(cols).zip(rows) {
                    cells[col] = U::from_f32(f32::from(u8::from(g[group as usize].value(row as usize))));
                }
            }
        }
    }
}

#[inline(always)]
fn gather<T: Copy, U>(groups: &[&[T]], rows: &[RowRef], out: &mut [U], cols: usize, col: usize, cast: impl Fn(T) -> U) {
    if let [only] = groups {
        for (cells, &(_, row)) in out.chunks_exact_mut(cols).zip(rows) {
            cells[col] = cast(only[row as usize]);
        }
        return;
    }
    for (cells, &(group, row)) in out.chunks_exact_mut(cols).zip(rows) {
        cells[col] = cast(groups[group as usize][row as usize]);
    }
}

/// Bytes of the matrix that are written column by column before the next rows are: they stay in the first-level cache.
const BLOCK_BYTES: usize = 16 * 1024;

/// Gathers columns of a window into a row-major matrix. `columns[c]` has one entry for every row group of the window; `out` is
/// `rows.len() × columns.len()`.
///
/// # Errors
/// Where a column has different types in different row groups.
pub fn gather_matrix<U: Element>(columns: &[Vec<&Numbers>], rows: &[RowRef], out: &mut [U]) -> Result<()> {
    let cols = columns.len();
    if cols == 0 {
        return Ok(());
    }
    let views: Vec<View<'_>> = columns.iter().map(|c| View::new(c)).collect::<Result<_>>()?;
    let block = (BLOCK_BYTES / (cols * size_of::<U>())).clamp(16, 4096);
    for (rows, out) in rows.chunks(block).zip(out.chunks_mut(block * cols)) {
        for (col, view) in views.iter().enumerate() {
            view.gather(rows, out, cols, col);
        }
    }
    Ok(())
}

/// Fills the features and labels of `at..at + rows.len()` from one window's row groups.
pub(super) fn fill_numbers(layout: &Layout, window: &[Decoded], rows: &[RowRef], at: usize, out: &mut Sections<'_>) -> Result<()> {
    if layout.cols > 0 {
        let columns: Vec<Vec<&Numbers>> = (0..layout.cols).map(|c| window.iter().map(|g| &g.features[c]).collect()).collect();
        let width = super::ring::width(layout.dtype) * layout.cols;
        let cells = &mut out.features[at * width..(at + rows.len()) * width];
        match layout.dtype {
            Dtype::F32 => gather_matrix::<f32>(&columns, rows, bytemuck::cast_slice_mut(cells))?,
            Dtype::F16 => gather_matrix::<f16>(&columns, rows, bytemuck::cast_slice_mut(cells))?,
            Dtype::Bf16 => gather_matrix::<bf16>(&columns, rows, bytemuck::cast_slice_mut(cells))?,
        }
    }
    if let Some(fractional) = layout.label {
        let column = [window.iter().filter_map(|g| g.label.as_ref()).collect::<Vec<_>>()];
        if fractional {
            let labels: &mut [f32] = bytemuck::cast_slice_mut(out.labels);
            gather_matrix(&column, rows, &mut labels[at..at + rows.len()])?;
        } else {
            let labels: &mut [i64] = bytemuck::cast_slice_mut(out.labels);
            gather_matrix(&column, rows, &mut labels[at..at + rows.len()])?;
        }
    }
    Ok(())
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

    fn f64s(v: &[f64]) -> Numbers {
        Numbers::F64(v.to_vec().into())
    }

    #[test]
    fn columns_become_rows_of_a_matrix() {
        let (a0, a1) = (f64s(&[1.0, 2.0]), f64s(&[3.0]));
        let (b0, b1) = (Numbers::I32(vec![10, 20].into()), Numbers::I32(vec![30].into()));
        let mut out = [0f32; 6];
        gather_matrix(&[vec![&a0, &a1], vec![&b0, &b1]], &[(1, 0), (0, 1), (0, 0)], &mut out).unwrap();
        assert_eq!(out, [3.0, 30.0, 2.0, 20.0, 1.0, 10.0]);
    }

    #[test]
    fn mixed_types_are_an_error() {
        let (a, b) = (f64s(&[1.0]), Numbers::I8(vec![1].into()));
        assert!(gather_matrix(&[vec![&a, &b]], &[(0, 0)], &mut [0f32]).is_err());
    }

    proptest! {
        #[test]
        fn every_dtype_rounds_once(values in prop::collection::vec(-60_000f64..60_000.0, 1..400), pick in prop::collection::vec(any::<prop::sample::Index>(), 1..300)) {
            let half = values.len() / 2;
            let groups = [f64s(&values[..half]), f64s(&values[half..])];
            let at: Vec<usize> = pick.iter().map(|i| i.index(values.len())).collect();
            let rows: Vec<RowRef> = at.iter().map(|&i| if i < half { (0, i as u32) } else { (1, (i - half) as u32) }).collect();
            let columns = vec![groups.iter().collect::<Vec<_>>(); 3];
            let n = rows.len() * 3;
            let (mut a, mut b, mut c) = (vec![0f32; n], vec![f16::ZERO; n], vec![bf16::ZERO; n]);
            gather_matrix(&columns, &rows, &mut a).unwrap();
            gather_matrix(&columns, &rows, &mut b).unwrap();
            gather_matrix(&columns, &rows, &mut c).unwrap();
            for (i, &v) in at.iter().map(|&i| &values[i]).enumerate() {
                prop_assert_eq!(&a[i * 3..i * 3 + 3], &[v as f32; 3]);
                prop_assert_eq!(b[i * 3 + 2], f16::from_f64(v));
                prop_assert_eq!(c[i * 3 + 1], bf16::from_f64(v));
            }
        }
    }

    #[test]
    fn all_widths_and_booleans_are_cast() {
        let columns = [
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
            Numbers::Bool(vec![true].into()),
        ];
        let refs: Vec<Vec<&Numbers>> = columns.iter().map(|c| vec![c]).collect();
        let mut out = [0f32; 12];
        gather_matrix(&refs, &[(0, 0)], &mut out).unwrap();
        assert_eq!(out, [-3.0, -3.0, -3.0, -3.0, 3.0, 3.0, 3.0, 3.0, 0.5, 0.5, 0.5, 1.0]);
        let mut labels = [0i64];
        gather_matrix(&refs[7..8], &[(0, 0)], &mut labels).unwrap();
        assert_eq!(labels, [3]);
    }
}
