//! The decision: fingerprints, buckets, links, clusters, survivors.
//!
//! ```text
//!  text ─ kernel ─▶ (fingerprint, row) … ─ sort, spills ─▶ buckets ─▶ links ─▶ clusters ─▶ one survivor each
//!                                                             │         ▲
//!                                          second look at the │         │ exact Jaccard
//!                                          candidates' text   └─ sets ──┘
//! ```
//!
//! The sort is total, so what follows it does not depend on partitions, batches or memory.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, UInt32Type, UInt64Type};
use async_trait::async_trait;
use bytesize::ByteSize;
use datafusion::common::{NullHandling, UnnestOptions};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::logical_expr::{ColumnarValue, Expr, Volatility, cast, create_udf};
use datafusion::prelude::{DataFrame, ident, lit};
use futures::TryStreamExt;
use roaring::RoaringBitmap;

use super::components::{Components, DenseRows};
use super::functions::{fingerprints, shingles};
use super::minhash::BAND;
use super::recipe::Recipe;
use super::survivors::Outcome;
use super::verify::{Buckets, Sets, TRIES, TRIES_A_GROUP, link};
use super::{Guard, Keep};
use crate::error::{Error, Kind, Result};
use crate::stages::step::{ROW, TableContext, TableDecision};

/// The stage, ready to decide.
#[derive(Debug, Clone)]
pub struct NearDuplicates {
    /// The text column.
    pub column: String,
    /// How texts become fingerprints.
    pub recipe: Recipe,
    /// The least Jaccard similarity of a link; `None` links all that share a band.
    pub verify: Option<f64>,
    /// Which row of a cluster stays.
    pub keep: Keep,
    /// When too much would go.
    pub guard: Option<Guard>,
}

#[async_trait]
impl TableDecision for NearDuplicates {
    async fn decide(&self, rows: DataFrame, cx: &TableContext) -> Result<DataFrame> {
        let dense = DenseRows::new(&cx.unit_rows)?;
        let held = MemoryConsumer::new("near_dedup").register(&cx.session.runtime_env().memory_pool);
        hold(&held, dense.len() * 4, &format!("one number for each of {} rows", dense.len()))?;
        let text = self.text(&rows)?;
        let (mut components, buckets) = self.buckets(&rows, text.clone(), &dense, &held).await?;
        if let Some(threshold) = self.verify.filter(|_| buckets.iter().next().is_some()) {
            let sets = self.sets(&rows, text.clone(), &dense, &buckets, &held).await?;
            let unsure;
            (components, unsure) = tokio::task::spawn_blocking(move || {
                let unsure = link(&buckets, &sets, threshold, &mut components);
                (components, unsure.len())
            })
            .await?;
            if unsure > 0 {
                cx.remarks.say(limits_met(unsure));
            }
        }
        // Buckets and sets are gone; the forest stays.
        held.shrink(held.size() - dense.len() * 4);
        let outcome = Arc::new(Outcome::choose(&self.keep, &rows, text, dense.clone(), components.roots(), held).await?);
        tracing::info!(rows = dense.len(), rejected = outcome.rejected(), "near duplicates found");
        if let Some(guard) = &self.guard {
            guard_groups(guard, rows, &dense, outcome.clone()).await?;
        }
        outcome.into_table(&cx.session)
    }

    fn readings(&self) -> u64 {
        let ranked = !matches!(self.keep, Keep::First | Keep::Last);
        1 + u64::from(self.verify.is_some()) + u64::from(ranked) + u64::from(self.guard.is_some())
    }
}

fn limits_met(unsure: u64) -> String {
    let texts = if unsure == 1 { "1 text was".to_owned() } else { format!("{unsure} texts were") };
    format!(
        "{texts} not compared with all that share a band with them (at most {TRIES_A_GROUP} of a cluster, some {} to {TRIES} in all): near duplicates may \
         have stayed; more `rows` in a band, or cleaning away what all texts share, compares fewer and better candidates",
        TRIES / 2
    )
}

impl NearDuplicates {
    /// The text column, as one of the string types that the kernels read.
    fn text(&self, rows: &DataFrame) -> Result<Expr> {
        let kind = rows.schema().field_with_unqualified_name(&self.column)?.data_type();
        Ok(if matches!(kind, DataType::Dictionary(..)) { cast(ident(&self.column), DataType::Utf8View) } else { ident(&self.column) })
    }

    /// Links texts that fold alike, and collects the buckets of each band; without verification, links these as well.
    async fn buckets(&self, rows: &DataFrame, text: Expr, dense: &DenseRows, held: &MemoryReservation) -> Result<(Components, Buckets)> {
        let prints = rows
            .clone()
            .select([fingerprints(text, &self.recipe)?.alias("_print"), ident(ROW)])?
            .unnest_columns_with_options(&["_print"], UnnestOptions::new().with_null_handling(NullHandling::Drop))?
            .sort(vec![ident("_print").sort(true, false), ident(ROW).sort(true, false)])?;
        let mut walk = Walk::new(dense.clone(), self.verify.is_some());
        let before = held.size();
        let mut batches = prints.execute_stream().await?;
        while let Some(batch) = batches.try_next().await? {
            let (prints, rows) = (batch.column(0).as_primitive::<UInt64Type>(), batch.column(1).as_primitive::<UInt64Type>());
            for (print, row) in prints.values().iter().zip(rows.values()) {
                walk.step(*print, *row)?;
            }
            let now = before + walk.bytes();
            hold(held, now.saturating_sub(held.size()), "the buckets of texts that may be alike")?;
        }
        walk.close();
        Ok((walk.components, walk.buckets))
    }

    /// Reads the candidates' texts once more and keeps their shingle sets, within the memory budget.
    async fn sets(&self, rows: &DataFrame, text: Expr, dense: &DenseRows, buckets: &Buckets, held: &MemoryReservation) -> Result<Sets> {
        let candidates = buckets.candidates();
        let what = format!("the shingles of {} texts that may be alike", candidates.len());
        hold(held, candidates.len() * 16, &what)?;
        let wanted: RoaringBitmap = candidates.iter().copied().collect();
        let mut sets = Sets::new(candidates);
        let mut batches = rows
            .clone()
            .filter(row_test("near_dedup_candidate", dense.clone(), move |row| wanted.contains(row)))?
            .select([ident(ROW), shingles(text, &self.recipe)?.alias("_shingles")])?
            .execute_stream()
            .await?;
        while let Some(batch) = batches.try_next().await? {
            let rows = batch.column(0).as_primitive::<UInt64Type>().values();
            let texts = rows.iter().map(|row| dense.dense(*row)).collect::<Result<Vec<u32>>>()?;
            let lists = batch.column(1).as_list::<i32>();
            let (first, last) = (lists.value_offsets()[0] as usize, lists.value_offsets()[lists.len()] as usize);
            let values = lists.values().as_primitive::<UInt32Type>().values()[first..last].to_vec();
            hold(held, values.len() * 4, &what)?;
            sets.add(values, texts.into_iter().zip((0..lists.len()).map(|i| lists.value_length(i) as usize)));
        }
        Ok(sets)
    }
}

/// Walks over sorted fingerprints.
struct Walk {
    rows: DenseRows,
    components: Components,
    buckets: Buckets,
    collect: bool,
    print: Option<u64>,
    first: u32,
    bucket: Vec<u32>,
}

impl Walk {
    fn new(rows: DenseRows, collect: bool) -> Self {
        let components = Components::new(rows.len());
        Self { rows, components, buckets: Buckets::default(), collect, print: None, first: 0, bucket: Vec::new() }
    }

    fn step(&mut self, print: u64, row: u64) -> Result<()> {
        let row = self.rows.dense(row)?;
        if self.print != Some(print) {
            self.close();
            (self.print, self.first) = (Some(print), row);
        }
        // Whole texts sort before bands: from the first band on, every text stands for all that fold like it.
        if self.collect && print & BAND != 0 {
            self.bucket.push(self.components.find(row));
        } else {
            self.components.link(self.first, row);
        }
        Ok(())
    }

    fn close(&mut self) {
        if self.bucket.len() > 1 {
            self.buckets.add(&mut self.bucket);
        }
        self.bucket.clear();
    }

    fn bytes(&self) -> usize {
        self.buckets.bytes() + self.bucket.capacity() * 4
    }
}

/// Takes so many bytes more of the memory budget, or says what they were for and which option needs fewer.
fn hold(held: &MemoryReservation, bytes: usize, what: &str) -> Result<()> {
    held.try_grow(bytes).map_err(|e| {
        let size = ByteSize((held.size() + bytes) as u64);
        Error::new(Kind::Resources, format!("the memory budget is spent: near_dedup needs at least {size} for {what}"))
            .hint("raise `resources.memory`; or set `verify: false`, or more `rows` in a band, or a higher `threshold`: fewer texts are compared")
            .because(e)
    })
}

/// A test of the hidden row column, as an expression of a plan that runs in this process.
pub fn row_test(name: &str, rows: DenseRows, test: impl Fn(u32) -> bool + Send + Sync + 'static) -> Expr {
    let work = move |args: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let rows = arrays[0].as_primitive::<UInt64Type>().values().iter().map(|row| Ok(test(rows.dense(*row)?)));
        let passed: BooleanArray = rows.collect::<Result<Vec<bool>>>()?.into();
        Ok(ColumnarValue::Array(Arc::new(passed) as ArrayRef))
    };
    create_udf(name, vec![DataType::UInt64], DataType::Boolean, Volatility::Immutable, Arc::new(work)).call(vec![ident(ROW)])
}

/// Stops where a group of rows would lose more than its share.
async fn guard_groups(guard: &Guard, rows: DataFrame, dense: &DenseRows, outcome: Arc<Outcome>) -> Result<()> {
    let rejected = row_test("near_dedup_rejected", dense.clone(), move |row| outcome.rejects(row));
    let groups = rows
        .select([cast(ident(&guard.column), DataType::Utf8).alias("_group"), cast(rejected, DataType::Int64).alias("_rejected")])?
        .aggregate(vec![ident("_group")], vec![count(lit(1)).alias("_rows"), sum(ident("_rejected")).alias("_rejected")])?
        .sort(vec![ident("_group").sort(true, false)])?
        .collect()
        .await?;
    let mut over = Vec::new();
    for batch in &groups {
        let names = batch.column(0).as_string::<i32>();
        let numbers = |i: usize| batch.column(i).as_primitive::<arrow::datatypes::Int64Type>().values().iter();
        for (i, (rows, rejected)) in numbers(1).zip(numbers(2)).enumerate() {
            if *rows as u64 >= guard.min_rows && *rejected as f64 > guard.max_rejected * *rows as f64 {
                let name = if names.is_null(i) { "null" } else { names.value(i) };
                over.push(format!("{name} ({rejected} of {rows} rows)"));
            }
        }
    }
    let Some(first) = over.first() else { return Ok(()) };
    let more = if over.len() > 1 { format!(" and {} more", over.len() - 1) } else { String::new() };
    Err(Error::new(Kind::Quality, format!("near_dedup would reject more than {} of `{}` = {first}{more}", guard.max_rejected, guard.column))
        .hint("look at that group: boilerplate that all its texts share makes them alike; clean it away first, raise `threshold`, or raise `guard.max_rejected`"))
}
