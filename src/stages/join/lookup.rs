//! A join with a side that fits in memory: keys in Arrow's row format, a hash table built once, and `take` for every batch.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::array_value_to_string;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::keys::Key;
use super::{JoinHow, Many, Planned};
use crate::error::{Error, Result};
use crate::stages::split::columns;
use crate::stages::step::{Fits, RowDecision, RowTest};

/// A join's lookup table, built when the first batch comes.
pub struct Lookup {
    planned: Planned,
    side: Arc<OnceLock<Vec<RecordBatch>>>,
    table: OnceLock<Result<Table, Failed>>,
}

/// Why a table could not be built: every batch must hear it, and errors cannot be copied.
struct Failed {
    message: String,
    hint: String,
    internal: bool,
}

impl From<Error> for Failed {
    fn from(e: Error) -> Self {
        let internal = e.kind() == crate::error::Kind::Internal;
        Self { message: e.message().to_owned(), hint: e.to_do().unwrap_or_default().to_owned(), internal }
    }
}

struct Table {
    converter: RowConverter,
    /// The side's keys.
    keys: Rows,
    /// The first row of each key, found by the key's hash.
    rows: HashTable<u32>,
    /// The columns that are brought.
    brings: Vec<ArrayRef>,
}

impl Lookup {
    /// A lookup in a side that is loaded before the first batch comes.
    pub fn new(planned: Planned, side: Arc<OnceLock<Vec<RecordBatch>>>) -> Self {
        Self { planned, side, table: OnceLock::new() }
    }

    /// The columns that are brought, null where a row has no match.
    ///
    /// # Errors
    /// Several rows of the side have one key, and that is not allowed.
    pub fn columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let (table, matches) = self.matches(batch)?;
        table.brings.iter().map(|column| Ok(take(column, &matches, None)?)).collect()
    }

    /// The side's row for every row, or null.
    fn matches(&self, batch: &RecordBatch) -> Result<(&Table, UInt32Array)> {
        let table = self.table()?;
        let names: Vec<String> = self.planned.reads();
        let keys = key_arrays(&self.planned.keys, &columns(batch, &names)?)?;
        let rows = table.converter.convert_columns(&keys)?;
        let found = (0..batch.num_rows()).map(|i| if has_null(&keys, i) { None } else { table.find(rows.row(i).as_ref()) });
        Ok((table, found.collect()))
    }

    fn table(&self) -> Result<&Table> {
        let built = self.table.get_or_init(|| self.build().map_err(Failed::from));
        built.as_ref().map_err(|f| {
            let e = if f.internal { Error::internal(&f.message) } else { Error::input(&f.message) };
            if f.hint.is_empty() { e } else { e.hint(&f.hint) }
        })
    }

    fn build(&self) -> Result<Table> {
        let with = &self.planned.with;
        let batches = self.side.get().ok_or_else(|| Error::internal(format!("side input `{with}` was not loaded before the run")))?;
        let whole = |name: &String, empty: &dyn Fn() -> ArrayRef| -> Result<ArrayRef> {
            let parts: Vec<ArrayRef> =
                batches.iter().map(|b| columns(b, std::slice::from_ref(name)).map(|mut c| c.remove(0))).collect::<Result<_>>()?;
            if parts.is_empty() {
                return Ok(empty());
            }
            Ok(concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?)
        };
        let keys: Vec<ArrayRef> = self
            .planned
            .keys
            .iter()
            .map(|k| k.array(&whole(&k.right, &|| arrow::array::new_empty_array(&k.kind))?))
            .collect::<Result<_>>()?;
        let brings = self.planned.brings.iter().map(|b| whole(&b.from, &|| arrow::array::new_empty_array(b.field.data_type())));
        let brings = brings.collect::<Result<_>>()?;
        let converter = RowConverter::new(self.planned.keys.iter().map(|k| SortField::new(k.kind.clone())).collect())?;
        let rows = converter.convert_columns(&keys)?;
        let firsts = self.firsts(&keys, &rows)?;
        Ok(Table { converter, keys: rows, rows: firsts, brings })
    }

    /// The first row of each key.
    fn firsts(&self, keys: &[ArrayRef], rows: &Rows) -> Result<HashTable<u32>> {
        let count = u32::try_from(rows.num_rows()).map_err(|_| Error::input("a side input has more than 4 Gi rows"))?;
        let hash = |i: &u32| xxh3_64(rows.row(*i as usize).as_ref());
        let mut firsts: HashTable<u32> = HashTable::with_capacity(rows.num_rows());
        let only_whether = matches!(self.planned.how, JoinHow::Semi | JoinHow::Anti);
        for i in (0..count).filter(|i| !has_null(keys, *i as usize)) {
            let same = |held: &u32| rows.row(*held as usize) == rows.row(i as usize);
            match firsts.find(hash(&i), same) {
                None => {
                    firsts.insert_unique(hash(&i), i, hash);
                }
                Some(_) if self.planned.many == Many::Error && !only_whether => {
                    let shown = keys.iter().map(|k| array_value_to_string(k, i as usize)).collect::<Result<Vec<_>, _>>()?;
                    return Err(doubled(&self.planned, &shown));
                }
                Some(_) => {}
            }
        }
        Ok(firsts)
    }
}

impl Table {
    fn find(&self, key: &[u8]) -> Option<u32> {
        self.rows.find(xxh3_64(key), |held| self.keys.row(*held as usize).as_ref() == key).copied()
    }
}

fn key_arrays(keys: &[Key], columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    keys.iter().zip(columns).map(|(key, column)| key.array(column)).collect()
}

fn has_null(keys: &[ArrayRef], row: usize) -> bool {
    keys.iter().any(|k| k.is_null(row))
}

/// The error that several rows of the side have one key.
pub fn doubled(planned: &Planned, shown: &[String]) -> Error {
    let pairs: Vec<String> = planned.keys.iter().zip(shown).map(|(k, v)| format!("{} = {v}", k.right)).collect();
    Error::input(format!("source `{}` has several rows with one key", planned.with))
        .of_value(pairs.join(", "))
        .hint("say `many: first` to take the first of them, or `many: all` for a row with each")
}

/// Rejects rows without a match, or with one in an anti join.
pub struct Matching(pub Arc<Lookup>);

impl RowDecision for Matching {
    fn bind(&self, _: &SchemaRef, _: &Fits) -> Result<Box<dyn RowTest>> {
        Ok(Box::new(Self(self.0.clone())))
    }
}

impl RowTest for Matching {
    fn codes(&self, batch: &RecordBatch) -> Result<UInt32Array> {
        let (_, matches) = self.0.matches(batch)?;
        let anti = self.0.planned.how == JoinHow::Anti;
        Ok((0..matches.len()).map(|i| (matches.is_valid(i) == anti).then_some(0)).collect())
    }
}
