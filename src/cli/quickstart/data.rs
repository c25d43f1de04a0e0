//! The example's data: made from row numbers by hashing, so that it is the same everywhere and needs no download.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::Result;

/// Shards of orders that can be read; one more is broken.
pub(super) const SHARDS: u64 = 3;
/// Rows in a shard of orders.
pub(super) const ROWS: u64 = 20_000;
/// Customers that are known.
pub(super) const CUSTOMERS: u64 = 1_500;
/// Customers that order: some of them nobody knows.
const ORDERING: u64 = 1_560;

/// Teas as they should be, and as some hands wrote them. `e\u{301}` is an é of two characters, `\u{a0}` a space that does not break.
const TEAS: [[&str; 4]; 8] = [
    ["Earl Grey", "  Earl Grey", "Earl Grey ", "Earl\u{a0}Grey"],
    ["Sencha", "Sencha\t", " Sencha", "Ｓｅｎｃｈａ"],
    ["Matcha", "Matcha  ", "Ｍａｔｃｈａ", "\nMatcha"],
    ["Rooibos à la crème", "Rooibos a\u{300} la cre\u{300}me", "Rooibos à la crème ", "  Rooibos à la crème"],
    ["Oolong", "Oolong\u{200b}", "Oolong ", "Ｏｏｌｏｎｇ"],
    ["Thé vert", "The\u{301} vert", "Thé\u{a0}vert", " Thé vert"],
    ["Chai", "Chai\u{7}", "  Chai  ", "Ｃｈａｉ"],
    ["Pu-erh", "Pu\u{2010}erh", " Pu-erh", "Pu-erh\t\t"],
];
const NOTES: [&str; 5] = ["no sugar", "two spoons of honey, please", "", "   ", "on the terrace"];
const CITIES: [&str; 6] = ["Lisboa", "Kraków", "Ioannina", "Zürich", "Göteborg", "Brno"];
/// 2026-01-05 08:00 UTC, in microseconds.
const OPENING: i64 = 1_767_600_000_000_000;

/// A number from a row, evenly spread over `0..2^64`. Each column has a salt of its own.
fn hash(row: u64, salt: u64) -> u64 {
    xxh3_64_with_seed(&row.to_le_bytes(), salt)
}

/// A number from a row, evenly spread over `0..1`.
fn unit(row: u64, salt: u64) -> f64 {
    (hash(row, salt) >> 11) as f64 / (1u64 << 53) as f64
}

/// About normally distributed with mean 0 and variance 1: the sum of 12 even numbers (Irwin–Hall), moved to 0.
fn bell(row: u64, salt: u64) -> f64 {
    (0..12).map(|i| unit(row, salt * 100 + i)).sum::<f64>() - 6.0
}

/// An order as it was, before anything went wrong with it.
struct Order {
    row: u64,
    customer: u64,
    cups: i32,
    distance: f64,
}

impl Order {
    fn new(row: u64) -> Self {
        let cups = 1 + (unit(row, 2).powi(3) * 8.0) as i32;
        Self { row, customer: hash(row, 1) % ORDERING, cups, distance: 2.0 + 90.0 * unit(row, 3).powi(2) }
    }

    /// Far tables, many cups and the hours around noon make an order late: about one in seven.
    fn late(&self) -> i32 {
        let rush = if (10..14).contains(&self.hour()) { 0.8 } else { 0.0 };
        let strain = self.distance / 45.0 + f64::from(self.cups) / 4.0 + rush + 0.6 * bell(self.row, 4);
        i32::from(strain > 2.75)
    }

    fn hour(&self) -> u64 {
        8 + hash(self.row, 5) % 12
    }

    fn ordered_at(&self) -> i64 {
        let seconds = (self.row / 400) * 86_400 + (self.hour() - 8) * 3_600 + hash(self.row, 6) % 3_600;
        OPENING + 1_000_000 * i64::try_from(seconds).unwrap_or(0)
    }

    /// One price in 300 was entered in cents.
    fn price(&self) -> f64 {
        let euros = f64::from(self.cups) * (2.8 + 1.4 * unit(self.row, 7));
        let cents = (euros * 100.0).round();
        if hash(self.row, 8).is_multiple_of(300) { cents } else { cents / 100.0 }
    }

    /// In degrees Celsius; 6 in 100 are missing, some are not a number, some are in Fahrenheit.
    fn temperature(&self) -> Option<f64> {
        let celsius = ((82.0 + 6.0 * bell(self.row, 9)).min(99.0) * 10.0).round() / 10.0;
        match hash(self.row, 10) % 1000 {
            0..60 => None,
            60..64 => Some(f64::NAN),
            64..70 => Some(celsius * 1.8 + 32.0),
            _ => Some(celsius),
        }
    }

    fn tea(&self) -> &'static str {
        let spellings = &TEAS[(hash(self.row, 11) % 8) as usize];
        // nine in ten are written as they should be
        let slip = hash(self.row, 12) % 30;
        spellings[if slip < 3 { 1 + slip as usize } else { 0 }]
    }

    fn note(&self) -> Option<&'static str> {
        NOTES.get((hash(self.row, 13) % 12) as usize).copied()
    }
}

/// The row that a row of a shard repeats, or itself: 3 orders in 100 were sent twice.
fn sent(row: u64) -> u64 {
    if row > 100 && hash(row, 14) % 100 < 3 { row - 1 - hash(row, 15) % row.min(25_000) } else { row }
}

/// A shard of orders, as a Parquet file.
pub(super) fn orders(shard: u64) -> Result<Vec<u8>> {
    let orders: Vec<Order> = (shard * ROWS..(shard + 1) * ROWS).map(|row| Order::new(sent(row))).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("order_id", Arc::new(Int64Array::from_iter_values(orders.iter().map(|o| 100_000 + i64::try_from(o.row).unwrap_or(0))))),
        ("ordered_at", Arc::new(TimestampMicrosecondArray::from_iter_values(orders.iter().map(Order::ordered_at)))),
        ("customer_id", Arc::new(StringArray::from_iter_values(orders.iter().map(|o| format!("C-{:04}", o.customer))))),
        ("tea", Arc::new(StringArray::from_iter_values(orders.iter().map(Order::tea)))),
        ("cups", Arc::new(Int32Array::from_iter_values(orders.iter().map(|o| o.cups)))),
        ("price_eur", Arc::new(Float64Array::from_iter_values(orders.iter().map(Order::price)))),
        ("temperature", Arc::new(orders.iter().map(Order::temperature).collect::<Float64Array>())),
        ("distance_m", Arc::new(Float64Array::from_iter_values(orders.iter().map(|o| (o.distance * 10.0).round() / 10.0)))),
        ("note", Arc::new(orders.iter().map(Order::note).collect::<StringArray>())),
        ("late", Arc::new(Int32Array::from_iter_values(orders.iter().map(Order::late)))),
    ];
    parquet(columns)
}

/// The customers, as a Parquet file.
pub(super) fn customers() -> Result<Vec<u8>> {
    let all = 0..CUSTOMERS;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("customer_id", Arc::new(StringArray::from_iter_values(all.clone().map(|c| format!("C-{c:04}"))))),
        ("city", Arc::new(StringArray::from_iter_values(all.clone().map(|c| CITIES[(hash(c, 20) % 6) as usize])))),
        ("loyalty", Arc::new(Int32Array::from_iter_values(all.map(|c| (hash(c, 21) % 4) as i32)))),
    ];
    parquet(columns)
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Result<Vec<u8>> {
    // every column may hold nulls, as in most data that one is given
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_max_row_group_row_count(Some(5_000)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_is_as_dirty_as_promised() {
        let orders: Vec<Order> = (0..SHARDS * ROWS).map(|row| Order::new(sent(row))).collect();
        let share = |n: usize| n as f64 / orders.len() as f64;
        let late = share(orders.iter().filter(|o| o.late() == 1).count());
        assert!((0.10..0.20).contains(&late), "{late} are late");
        let ids: std::collections::BTreeSet<u64> = orders.iter().map(|o| o.row).collect();
        assert!((0.02..0.04).contains(&(1.0 - share(ids.len()))));
        let missing = share(orders.iter().filter(|o| o.temperature().is_none()).count());
        assert!((0.05..0.07).contains(&missing), "{missing} are missing");
        assert!(orders.iter().any(|o| o.price() > 250.0) && orders.iter().any(|o| o.temperature() > Some(120.0)));
        assert!(orders.iter().any(|o| o.temperature().is_some_and(f64::is_nan)));
        assert!(orders.iter().any(|o| o.customer >= CUSTOMERS), "some customers are unknown");
        let clean = share(orders.iter().filter(|o| TEAS.iter().any(|t| t[0] == o.tea())).count());
        assert!((0.85..0.95).contains(&clean), "{clean} are spelled well");
    }

    #[test]
    fn the_data_is_the_same_everywhere() {
        let order = Order::new(12_345);
        let found = (order.customer, order.cups, order.late(), order.tea(), order.price(), order.temperature(), order.ordered_at());
        assert_eq!(found, (960, 2, 0, "Rooibos à la crème", 7.65, Some(84.4), 1_770_202_005_000_000));
        assert_eq!((sent(0), (0..ROWS).filter(|row| sent(*row) != *row).count()), (0, 659));
        assert_eq!(orders(0).unwrap(), orders(0).unwrap());
    }
}
