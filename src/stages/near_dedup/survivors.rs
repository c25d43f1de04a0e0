//! Of each cluster one row stays, chosen by an explicit rank; the rows' identity breaks ties.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::ScalarValue;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::functions::{math, unicode};
use datafusion::logical_expr::{Expr, when};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{DataFrame, SessionContext, ident, lit};
use futures::TryStreamExt;
use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::Keep;
use super::components::DenseRows;
use super::decide::row_test;
use crate::error::Result;
use crate::stages::step::{CODE, ROW};

/// Who stays and who goes.
#[derive(Debug)]
pub struct Outcome {
    rows: DenseRows,
    /// The first row of every row's cluster.
    roots: Vec<u32>,
    /// The row that stays, by the cluster's first row; the first row itself where there is no entry.
    winners: HashMap<u32, u32>,
    /// Holds the arrays' share of the memory budget as long as they live.
    _held: MemoryReservation,
}

impl Outcome {
    /// Chooses the rows that stay. `text` is the text column, for [`Keep::Longest`].
    pub async fn choose(
        keep: &Keep,
        all: &DataFrame,
        text: Expr,
        rows: DenseRows,
        roots: Vec<u32>,
        held: MemoryReservation,
    ) -> Result<Self> {
        let mut outcome = Self { rows, roots, winners: HashMap::new(), _held: held };
        match keep {
            Keep::First => {}
            // Rows ascend, so the last one that is written is the last one there is.
            Keep::Last => outcome.winners = outcome.followers().collect(),
            Keep::Longest => outcome.rank(all, unicode::expr_fn::character_length(text), true).await?,
            Keep::Highest(column) => outcome.rank(all, ident(column), true).await?,
            Keep::Lowest(column) => outcome.rank(all, ident(column), false).await?,
        }
        Ok(outcome)
    }

    /// The rows that follow the first one in their cluster, with that first one; in row order.
    fn followers(&self) -> impl Iterator<Item = (u32, u32)> {
        self.roots.iter().enumerate().map(|(row, root)| (*root, row as u32)).filter(|(root, row)| root != row)
    }

    /// Whether a row is rejected.
    pub fn rejects(&self, dense: u32) -> bool {
        let root = self.roots[dense as usize];
        self.winners.get(&root).unwrap_or(&root) != &dense
    }

    /// Rejected rows: all but one of each cluster.
    pub fn rejected(&self) -> usize {
        self.followers().count()
    }

    /// Reads the rank of all rows in clusters, keeps the best of each: a maximum over a total order, so the order of reading does not matter.
    async fn rank(&mut self, all: &DataFrame, by: Expr, highest: bool) -> Result<()> {
        let clustered: RoaringBitmap = self.followers().flat_map(|(root, row)| [root, row]).collect();
        if clustered.is_empty() {
            return Ok(());
        }
        let by = nan_as_null(all, by)?;
        let ranked = all
            .clone()
            .filter(row_test("near_dedup_clustered", self.rows.clone(), move |dense| clustered.contains(dense)))?
            .select([ident(ROW), by.alias("_rank")])?;
        let kind = ranked.schema().field(1).data_type().clone();
        let order = SortOptions { descending: highest, nulls_first: false };
        let converter = RowConverter::new(vec![SortField::new_with_options(kind, order)])?;
        let mut best: HashMap<u32, (Box<[u8]>, u32)> = HashMap::new();
        let mut batches = ranked.execute_stream().await?;
        while let Some(batch) = batches.try_next().await? {
            self.take_best(&batch, &converter, &mut best)?;
        }
        self.winners = best.into_iter().map(|(root, (_, row))| (root, row)).collect();
        Ok(())
    }

    fn take_best(&self, batch: &RecordBatch, converter: &RowConverter, best: &mut HashMap<u32, (Box<[u8]>, u32)>) -> Result<()> {
        let ranks = converter.convert_columns(&[batch.column(1).clone()])?;
        for (row, rank) in batch.column(0).as_primitive::<UInt64Type>().values().iter().zip(ranks.iter()) {
            let dense = self.rows.dense(*row)?;
            let rank: &[u8] = rank.as_ref();
            let root = self.roots[dense as usize];
            match best.get_mut(&root) {
                Some((known, winner)) => {
                    if (rank, dense) < (&**known, *winner) {
                        (*known, *winner) = (rank.into(), dense);
                    }
                }
                None => {
                    best.insert(root, (rank.into(), dense));
                }
            }
        }
        Ok(())
    }

    /// The rejected rows as a table of [`ROW`] and [`CODE`] 0, made while it is read.
    pub fn into_table(self: Arc<Self>, session: &SessionContext) -> Result<DataFrame> {
        let schema = Arc::new(Schema::new(vec![Field::new(ROW, DataType::UInt64, false), Field::new(CODE, DataType::UInt32, false)]));
        let rejects = Rejects { schema: schema.clone(), outcome: self };
        Ok(session.read_table(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(rejects)])?))?)
    }
}

/// Not a number is no rank: it comes last, as null does.
fn nan_as_null(all: &DataFrame, by: Expr) -> Result<Expr> {
    let kind = all.clone().select([by.clone()])?.schema().field(0).data_type().clone();
    if !kind.is_floating() {
        return Ok(by);
    }
    Ok(when(math::expr_fn::isnan(by.clone()), lit(ScalarValue::try_from(&kind)?)).otherwise(by)?)
}

#[derive(Debug)]
struct Rejects {
    schema: SchemaRef,
    outcome: Arc<Outcome>,
}

impl PartitionStream for Rejects {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, outcome) = (self.schema.clone(), self.outcome.clone());
        let size = context.session_config().batch_size().max(1);
        let batches = (0..outcome.roots.len()).step_by(size).filter_map(move |start| {
            let end = (start + size).min(outcome.roots.len());
            let rejected = (start as u32..end as u32).filter(|dense| outcome.rejects(*dense));
            let rows: UInt64Array = rejected.map(|dense| outcome.rows.row(dense)).collect::<Vec<_>>().into();
            let codes = UInt32Array::from(vec![0; rows.values().len()]);
            let columns: Vec<ArrayRef> = vec![Arc::new(rows), Arc::new(codes)];
            (!columns[0].is_empty()).then(|| RecordBatch::try_new(schema.clone(), columns).map_err(Into::into))
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(batches)))
    }
}
