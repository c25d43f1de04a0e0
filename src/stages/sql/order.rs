//! Order in queries: a total one for every result, and whether a query cares in which order it meets its rows.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Distinct, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection, Sort, SortExpr, SubqueryAlias};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{DataFrame, Expr, ident};
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::Result;
use crate::stages::functions;
use crate::stages::step::ROW;

/// Rows in a batch of a query that meets its rows in order.
pub const BATCH_ROWS: usize = 8192;

/// Aggregates that give the same for whole numbers and text in whatever order they meet them.
const UNORDERED: [&str; 9] = ["count", "min", "max", "sum", "bool_and", "bool_or", "bit_and", "bit_or", "bit_xor"];

/// Whether a query's result may depend on the order of its rows.
pub fn matters(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let walked = plan.apply_with_subqueries(|node| {
        found |= match node {
            LogicalPlan::Limit(_) | LogicalPlan::Window(_) | LogicalPlan::RecursiveQuery(_) | LogicalPlan::Distinct(Distinct::On(_)) => {
                true
            }
            LogicalPlan::Aggregate(a) => a.aggr_expr.iter().any(|e| ordered_aggregate(e, &a.input)),
            _ => false,
        };
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found || walked.is_err()
}

fn ordered_aggregate(expr: &Expr, input: &LogicalPlan) -> bool {
    let mut found = false;
    let walked = expr.apply(|e| {
        if let Expr::AggregateFunction(f) = e {
            let floats = f.params.args.iter().any(|a| a.get_type(input.schema()).map_or(true, |t| t.is_floating() || t.is_nested()));
            found |= floats || !UNORDERED.contains(&f.func.name());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found || walked.is_err()
}

/// The query with a result in total order: what its ORDER BY says, then all columns.
pub fn total(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    if !ends_in_sort(&plan) {
        let by = all_columns(&plan);
        return LogicalPlanBuilder::from(plan).sort(by)?.build();
    }
    Ok(match plan {
        LogicalPlan::Sort(Sort { mut expr, input, fetch }) => {
            let more: Vec<SortExpr> = all_columns(&input).into_iter().filter(|c| !expr.iter().any(|e| e.expr == c.expr)).collect();
            expr.extend(more);
            LogicalPlan::Sort(Sort { expr, input, fetch })
        }
        LogicalPlan::Projection(p) => {
            LogicalPlan::Projection(Projection::try_new(p.expr, Arc::new(total(Arc::unwrap_or_clone(p.input))?))?)
        }
        LogicalPlan::SubqueryAlias(a) => {
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(total(Arc::unwrap_or_clone(a.input))?), a.alias)?)
        }
        LogicalPlan::Limit(mut limit) => {
            limit.input = Arc::new(total(Arc::unwrap_or_clone(limit.input))?);
            LogicalPlan::Limit(limit)
        }
        other => other,
    })
}

/// Whether a query's own ORDER BY orders its result.
fn ends_in_sort(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(p) => ends_in_sort(&p.input),
        LogicalPlan::SubqueryAlias(a) => ends_in_sort(&a.input),
        LogicalPlan::Limit(l) => ends_in_sort(&l.input),
        _ => false,
    }
}

/// All columns, nulls last; nested ones by their hash, which is an order as good as any.
fn all_columns(plan: &LogicalPlan) -> Vec<SortExpr> {
    let schema = plan.schema();
    let key = |(column, field): (Column, &arrow::datatypes::FieldRef)| {
        let column = Expr::Column(column);
        if field.data_type().is_nested() { functions::hash(0, vec![column]) } else { column }
    };
    schema.columns().into_iter().zip(schema.fields()).map(key).map(|e| e.sort(true, false)).collect()
}

/// A table that gives these columns of rows by rising identity, in one partition and in batches of [`BATCH_ROWS`].
pub fn in_order(rows: DataFrame, columns: Vec<Expr>) -> Result<Arc<dyn TableProvider>> {
    let sorted = rows.sort(vec![ident(ROW).sort(true, true)])?.select(columns)?;
    let schema = Arc::new(sorted.schema().as_arrow().clone());
    let partition: Arc<dyn PartitionStream> = Arc::new(InOrder { schema: schema.clone(), sorted });
    Ok(Arc::new(StreamingTable::try_new(schema, vec![partition])?))
}

/// A query's rows as one stream; a wall which the optimizer does not look behind, so that the order stays.
struct InOrder {
    schema: SchemaRef,
    sorted: DataFrame,
}

impl fmt::Debug for InOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InOrder")
    }
}

impl PartitionStream for InOrder {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let sorted = self.sorted.clone();
        let rows = stream::once(async move { sorted.execute_stream().await }).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), even_batches(self.schema.clone(), rows)))
    }
}

/// The same rows in batches of one size: floats are summed a batch at a time, so batches show in the last digit.
fn even_batches(
    schema: SchemaRef,
    rows: impl stream::Stream<Item = DfResult<RecordBatch>> + Send,
) -> impl stream::Stream<Item = DfResult<RecordBatch>> + Send {
    let state = (Box::pin(rows), BatchCoalescer::new(schema.clone(), BATCH_ROWS), false);
    stream::try_unfold(state, move |(mut rows, mut batches, mut done)| async move {
        loop {
            if let Some(batch) = batches.next_completed_batch() {
                return Ok(Some((batch, (rows, batches, done))));
            }
            if done {
                return Ok(None);
            }
            match rows.next().await {
                Some(batch) => batches.push_batch(batch?)?,
                None => {
                    batches.finish_buffered_batch()?;
                    done = true;
                }
            }
        }
    })
}
