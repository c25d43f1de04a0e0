//! The hash of a shard's rows, whatever its bytes.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::sink::shard::plain;

/// SHA-256 over the rows of a shard, in order: over a label, the columns (name and type, as JSON), and every row in the encoding of `arrow-row`
/// (its columns one after another, the same for text with and without views), each behind its length as four bytes, little-endian. It depends on
/// the rows alone: not on batches, row groups, compression or keys.
///
/// Like any hash of data it can be guessed at: who can list all contents that a shard may have can find out which one it has.
pub struct RowsHash {
    hash: Sha256,
    rows: RowConverter,
}

impl RowsHash {
    /// The hash of no rows.
    ///
    /// # Errors
    /// Where a column's type has no row encoding.
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let shown = plain(schema);
        let columns: Vec<(&str, String)> = shown.fields().iter().map(|f| (f.name().as_str(), f.data_type().to_string())).collect();
        let mut hash = Sha256::new();
        hash.update("feedline-rows/v1\n");
        hash.update(serde_json::to_vec(&columns)?);
        Ok(Self { hash, rows: RowConverter::new(fields)? })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// Where the columns are not those given at first.
    pub fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        for row in &self.rows.convert_columns(batch.columns())? {
            let bytes = row.data();
            self.hash.update(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
            self.hash.update(bytes);
        }
        Ok(())
    }

    /// The hash, in hex.
    pub fn finish(self) -> String {
        hex::encode(self.hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, ListArray, StringArray, StringViewArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn hash(batches: &[RecordBatch]) -> String {
        let mut hash = RowsHash::new(&batches[0].schema()).unwrap();
        batches.iter().for_each(|b| hash.update(b).unwrap());
        hash.finish()
    }

    fn table(text: ArrayRef) -> RecordBatch {
        let id: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(-3)]));
        let x: ArrayRef = Arc::new(Float64Array::from(vec![0.5, f64::NAN, -0.0]));
        let list: ArrayRef =
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None, Some(vec![])]));
        RecordBatch::try_from_iter_with_nullable([("id", id, true), ("x", x, true), ("text", text, true), ("list", list, true)]).unwrap()
    }

    /// The encoding is not Feedline's own: where a new version of it changes this hash, `feedline-rows/v1` must become `v2`.
    #[test]
    fn the_hash_stays_what_it_is() {
        let rows = table(Arc::new(StringArray::from(vec![Some("a"), Some(""), None])));
        assert_eq!(hash(&[rows]), "db0043f7c2ef1b797c3a2ea61e3d8e6d1cff71ffd0ede192f6cf3dfafd1144df");
    }

    #[test]
    fn it_is_a_matter_of_the_rows_alone() {
        let values = vec![Some("a"), Some("a text longer than a view holds"), None];
        let (a, b) = (table(Arc::new(StringArray::from(values.clone()))), table(Arc::new(StringViewArray::from(values))));
        let whole = hash(std::slice::from_ref(&a));
        assert_eq!(whole, hash(&[b]));
        assert_eq!(whole, hash(&[a.slice(0, 1), a.slice(1, 2)]));
        assert_ne!(whole, hash(&[a.slice(1, 2), a.slice(0, 1)]), "the order counts");
        assert_ne!(whole, hash(&[a.slice(0, 2)]));
        let other = table(Arc::new(StringArray::from(vec![Some("b"), None, None])));
        assert_ne!(whole, hash(&[other]));
    }
}
