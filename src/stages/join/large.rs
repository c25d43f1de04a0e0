//! Joins with a side that may not fit in memory, by DataFusion's sort-merge join, which spills. The side is a table of the session with its
//! name, with its own `_row`: that gives "first" a meaning and the result an order.

use arrow::datatypes::SchemaRef;
use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use datafusion::common::{JoinType, TableReference};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::functions_aggregate::expr_fn::{count, min};
use datafusion::prelude::{DataFrame, Expr, SessionContext, ident, lit};

use super::lookup::doubled;
use super::{JoinHow, Many, Planned};
use crate::error::{Error, Result};
use crate::stages::step::{ROW, Reshaping, TableContext, TableDecision};

/// The side's row identity beside the rows' own.
const SIDE_ROW: &str = "__side_row";

fn left_key(i: usize) -> String {
    format!("__key{i}")
}

fn right_key(i: usize) -> String {
    format!("__side_key{i}")
}

/// The same query, with joins that spill.
fn spilling(rows: DataFrame) -> DataFrame {
    let (state, plan) = rows.into_parts();
    // the catalog is shared with the run's session: a new default one would put an end to its tables
    let mut config = state.config().clone().with_create_default_catalog_and_schema(false);
    config.options_mut().optimizer.prefer_hash_join = false;
    DataFrame::new(SessionStateBuilder::new_from_existing(state).with_config(config).build(), plan)
}

impl Planned {
    /// The side's keys, named apart, with more of its columns; rows with a null in the key match nothing and are left out.
    async fn side(&self, session: &SessionContext, more: Vec<Expr>) -> Result<DataFrame> {
        let table = session.table(TableReference::bare(self.with.as_str())).await?;
        if !table.schema().has_column_with_unqualified_name(ROW) {
            return Err(Error::internal(format!("side input `{}` has no row identities", self.with)));
        }
        let keys = self.keys.iter().enumerate().map(|(i, k)| k.expr(&k.right).alias(right_key(i)));
        let side = table.select(keys.chain([ident(ROW).alias(SIDE_ROW)]).chain(more).collect::<Vec<_>>())?;
        let known = (0..self.keys.len()).map(|i| ident(right_key(i)).is_not_null()).reduce(Expr::and);
        Ok(side.filter(known.unwrap_or(lit(true)))?)
    }

    fn right_keys(&self) -> Vec<Expr> {
        (0..self.keys.len()).map(|i| ident(right_key(i))).collect()
    }

    fn join(&self, left: DataFrame, right: DataFrame, kind: JoinType) -> Result<DataFrame> {
        let (lefts, rights): (Vec<String>, Vec<String>) = (0..self.keys.len()).map(|i| (left_key(i), right_key(i))).unzip();
        let lefts: Vec<&str> = lefts.iter().map(String::as_str).collect();
        let rights: Vec<&str> = rights.iter().map(String::as_str).collect();
        Ok(left.join(right, kind, &lefts, &rights, None)?)
    }

    /// Fails where a key stands in several rows of the side.
    async fn refuse_doubled(&self, side: DataFrame) -> Result<()> {
        let counted = side.aggregate(self.right_keys(), vec![count(lit(1i64)).alias("__n")])?;
        let twice = counted.filter(ident("__n").gt(lit(1i64)))?;
        // the smallest such key, so that the message is the same in every run
        let sorted = twice.sort(self.right_keys().into_iter().map(|k| k.sort(true, false)).collect())?.limit(0, Some(1))?;
        if let Some(batch) = sorted.select(self.right_keys())?.collect().await?.iter().find(|b| b.num_rows() > 0) {
            let shown = batch.columns().iter().map(|c| array_value_to_string(c, 0)).collect::<Result<Vec<_>, _>>()?;
            return Err(doubled(self, &shown));
        }
        Ok(())
    }
}

/// Rows that have a match, or have none in an anti join.
pub struct Matches(pub Planned);

#[async_trait]
impl TableDecision for Matches {
    async fn decide(&self, rows: DataFrame, cx: &TableContext) -> Result<DataFrame> {
        let keys = self.0.keys.iter().enumerate().map(|(i, k)| k.expr(&k.left).alias(left_key(i)));
        let left = spilling(rows).select(keys.chain([ident(ROW)]).collect::<Vec<_>>())?;
        let right = self.0.side(&cx.session, vec![]).await?;
        let kind = if self.0.how == JoinHow::Anti { JoinType::LeftAnti } else { JoinType::LeftSemi };
        Ok(self.0.join(left, right, kind)?.select(vec![ident(ROW)])?)
    }
}

/// Rows with their matches' columns, in the order of the rows, then of the side.
pub struct LargeJoin {
    /// The join.
    pub planned: Planned,
    /// The columns that come out.
    pub output: SchemaRef,
}

#[async_trait]
impl Reshaping for LargeJoin {
    async fn reshape(&self, rows: DataFrame, session: &SessionContext) -> Result<DataFrame> {
        let planned = &self.planned;
        let keep = self.output.fields().iter().take(self.output.fields().len() - planned.brings.len()).map(|f| ident(f.name()));
        let keys = planned.keys.iter().enumerate().map(|(i, k)| k.expr(&k.left).alias(left_key(i)));
        let left = spilling(rows).select(keep.chain(keys).chain([ident(ROW)]).collect::<Vec<_>>())?;
        let brought = planned.brings.iter().map(|b| ident(&b.from).alias(b.field.name())).collect();
        let mut right = planned.side(session, brought).await?;
        match planned.many {
            Many::Error => planned.refuse_doubled(planned.side(session, vec![]).await?).await?,
            Many::First => {
                let firsts =
                    planned.side(session, vec![]).await?.aggregate(planned.right_keys(), vec![min(ident(SIDE_ROW)).alias("__first")])?;
                right = right.join(firsts.select(vec![ident("__first")])?, JoinType::LeftSemi, &[SIDE_ROW], &["__first"], None)?;
            }
            Many::All => {}
        }
        let kind = if planned.how == JoinHow::Inner { JoinType::Inner } else { JoinType::Left };
        let joined = planned.join(left, right, kind)?.sort(vec![ident(ROW).sort(true, true), ident(SIDE_ROW).sort(true, true)])?;
        Ok(joined.select(self.output.fields().iter().map(|f| ident(f.name())).collect::<Vec<_>>())?)
    }
}
