//! A bounded sketch of a table: what its columns hold, in one pass over its batches.
//!
//! Values go through whole-array kernels into each column's counters. Up to 1,024 distinct values of a column are counted exactly, and everything
//! said of it is exact then; beyond that a column keeps a Misra–Gries table, a HyperLogLog sketch (DataSketches) and, for numbers,
//! collapsing buffers for ranks: at most about 100 KiB, whatever the number of rows. Bounds stand beside every estimate.
//!
//! Nothing depends on how rows were cut into batches: sketches take values in row order, or in blocks of a fixed number of values. Profiles of
//! units that are merged in unit order give the same bytes whoever made them.

mod class;
mod column;
mod histogram;
mod moments;
mod ranks;
mod read;
mod summary;
mod tally;

use std::cell::RefCell;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use serde::{Deserialize, Serialize};

pub use summary::{Booleans, ColumnSummary, Distinct, Histogram, Lengths, Numbers, QUANTILES, TOP, TableSummary, TopValue, Value};

use crate::error::{Error, Result};
use class::Class;
use column::Column;

/// The profile of a table, or of a part of it. Can be stored with serde, as postcard or JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TableProfile {
    rows: u64,
    columns: Vec<Column>,
}

thread_local! {
    /// Room for the keys of a chunk of numbers.
    static SCRATCH: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

impl TableProfile {
    /// The profile of no rows. Columns whose names begin with `_` are Feedline's own and left out.
    pub fn new(schema: &Schema) -> Self {
        let visible = schema.fields().iter().filter(|field| !field.name().starts_with('_'));
        let column = |field: &arrow::datatypes::Field| {
            Column::new(field.name().clone(), field.data_type().to_string(), Class::of(field.data_type()))
        };
        Self { rows: 0, columns: visible.map(|field| column(field)).collect() }
    }

    /// Takes in the rows of a batch, which come after those so far. Columns are found by name; further ones are ignored.
    ///
    /// # Errors
    /// Where the batch lacks a column, or one has become another kind of type (text instead of numbers; another encoding or width is fine).
    pub fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            for column in &mut self.columns {
                let array = batch
                    .column_by_name(&column.name)
                    .ok_or_else(|| Error::internal(format!("a batch lacks the column `{}` of its profile", column.name)))?;
                column.index();
                column.update(array, scratch)?;
            }
            self.rows += batch.num_rows() as u64;
            Ok(())
        })
    }

    /// Takes in the profile of rows that come after those so far.
    ///
    /// # Errors
    /// Where the two do not have the same columns.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let same = self.columns.len() == other.columns.len()
            && self.columns.iter().zip(&other.columns).all(|(a, b)| a.name == b.name && a.class == b.class);
        if !same {
            return Err(Error::internal("two profiles of different columns cannot be merged"));
        }
        for (mine, theirs) in self.columns.iter_mut().zip(&other.columns) {
            mine.index();
            mine.merge(theirs);
        }
        self.rows += other.rows;
        Ok(())
    }

    /// Rows taken in.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// What the profile says.
    pub fn summary(&self) -> TableSummary {
        TableSummary { rows: self.rows, columns: self.columns.iter().map(Column::summary).collect() }
    }
}

#[cfg(test)]
mod tests;
