//! `sql`: new rows by a query over the rows and the side inputs.
//!
//! The result has a total order and the same bytes on any number of threads. Where a query's result depends on the order in which it meets
//! its rows (sums of floats, window functions, LIMIT), it meets them in the order of the sources, in batches of one size, on one thread.

mod order;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, TableReference};
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, cast};
use datafusion::prelude::{DataFrame, SessionContext, ident};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use futures::FutureExt;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use super::keys::no_split_above;
use super::query::{self, mistake, unsteady, unsteady_mistake};
use super::step::{CODE, ROW, Reshape, Reshaping, SPLIT, Step};
use super::{Stage, StageContext};
use crate::error::{Error, Mistake, Result};

/// The reference page.
pub const PAGE: &str = "\
Makes new rows by one SELECT (Apache DataFusion's SQL). The rows that reach the stage are the table `input`; side inputs go by their names.
Column names are written as they are, with upper and lower case.

Use it for aggregates, window functions and joins that the other stages do not have. It is a *reshape*: its rows are materialized and get
new identities, quarantine cannot say which row became which, and it stands above a `split`. What `filter`, `dedup` and `join` can do
costs less there.

The result is in the order that the query's ORDER BY says; rows that are equal in it, and all rows of a query without one, are ordered by
their values. A query whose result depends on the order of its rows (sums and means of floats, window functions, LIMIT, `array_agg`) runs on one
thread over the rows in the order of the sources, so that every run gives the same bytes; other queries use all threads. Functions such as
`now()` and `random()` are refused.

```yaml
- sql: |
    select origin, cast(time_hour as date) as day, count(*) as flights, avg(dep_delay) as delay
    from input
    group by origin, cast(time_hour as date)
```

The same with a key: `- sql: { query: \"select …\" }`.
";

/// The name of the rows that reach the stage.
const INPUT: &str = "input";

/// Makes new rows by a query over the rows and the side inputs.
#[derive(Debug, Clone)]
pub struct Sql {
    query: String,
    at: String,
}

impl JsonSchema for Sql {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sql".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        query::text_schema("query", "One SELECT. The rows that reach the stage are `input`, side inputs go by their names.")
    }
}

impl<'de> Deserialize<'de> for Sql {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (query, at) = query::read_text(deserializer, "query", "select … from input")?;
        Ok(Self { query, at })
    }
}

impl Stage for Sql {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        let mut mistakes: Vec<Mistake> = no_split_above(cx).err().into_iter().collect();
        if cx.sides.contains_key(INPUT) {
            let help = "rename the source: `input` is what reaches the stage";
            mistakes.push(Mistake::new("", "a side input is called `input`").help(help));
        }
        match self.plan(cx) {
            Ok(planned) if mistakes.is_empty() => Ok(vec![planned]),
            Ok(_) => Err(mistakes),
            Err(more) => Err(mistakes.into_iter().chain(more).collect()),
        }
    }
}

impl Sql {
    fn plan(&self, cx: &StageContext<'_>) -> Result<Step, Vec<Mistake>> {
        let session = query::own_session(cx.session.state(), |config| config);
        let tables: Vec<&str> = std::iter::once(INPUT).chain(cx.sides.keys().map(String::as_str)).collect();
        let wrong = |e: DataFusionError| vec![mistake(&self.at, &e, &tables)];
        let schemas = std::iter::once(cx.schema).chain(cx.sides.values().map(|s| &s.schema));
        for (name, schema) in tables.iter().zip(schemas) {
            let empty: Arc<dyn TableProvider> = Arc::new(EmptyTable::new(schema.clone()));
            session.register_table(TableReference::bare(*name), empty).map_err(wrong)?;
        }
        let state = session.state();
        let statement = self.statement(&state)?;
        let used = state.resolve_table_references(&statement).map_err(wrong)?;
        let plan = logical(&state, statement).map_err(wrong)?;
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&plan).map_err(wrong)?;
        if let Some(function) = unsteady_in(&plan) {
            return Err(vec![unsteady_mistake(&self.at, &function)]);
        }
        let in_order = order::matters(&plan);
        let optimized = state.optimize(&order::total(plan).map_err(wrong)?).map_err(wrong)?;
        let output = self.output(optimized.schema().as_arrow())?;
        let sides: Vec<String> = cx.sides.keys().filter(|name| used.iter().any(|t| t.table() == name.as_str())).cloned().collect();
        let work = Arc::new(Query { query: self.query.clone(), output: output.clone(), sides: sides.clone(), in_order });
        Ok(Step::Reshape(Reshape { output, sides, work }))
    }

    fn statement(&self, state: &SessionState) -> Result<Statement, Vec<Mistake>> {
        let statement = state.sql_to_statement(&self.query, &state.config_options().sql_parser.dialect);
        let help = "write one SELECT over `input` and the side inputs";
        match statement {
            Ok(Statement::Statement(s)) if matches!(*s, ast::Statement::Query(_)) => Ok(Statement::Statement(s)),
            Ok(_) => Err(vec![Mistake::new(&self.at, "this statement is no SELECT").help(help)]),
            Err(e) if matches!(e.find_root(), DataFusionError::NotImplemented(_)) => {
                Err(vec![Mistake::new(&self.at, "there is more than one statement").help(help)])
            }
            Err(e) => Err(vec![mistake(&self.at, &e, &[])]),
        }
    }

    fn output(&self, schema: &Schema) -> Result<SchemaRef, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                mistakes.push(Mistake::new(&self.at, format!("two columns of the result are called `{name}`")).help("name one with AS"));
            }
            if [ROW, SPLIT, CODE].contains(name) {
                mistakes.push(Mistake::new(&self.at, format!("the name `{name}` is Feedline's own")).help("choose another with AS"));
            }
        }
        super::keys::none_of(mistakes)?;
        let plain = |f: &Arc<Field>| Field::new(f.name(), f.data_type().clone(), f.is_nullable());
        Ok(Arc::new(Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>())))
    }
}

/// Plans a statement. Tables are in memory, so nothing is ever waited for.
fn logical(state: &SessionState, statement: Statement) -> Result<LogicalPlan, DataFusionError> {
    state.statement_to_plan(statement).now_or_never().unwrap_or_else(|| Err(Error::internal("planning waited for a table").into()))
}

fn unsteady_in(plan: &LogicalPlan) -> Option<String> {
    let mut found = None;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|e| {
            found = found.take().or_else(|| unsteady(e));
            Ok(TreeNodeRecursion::Continue)
        })
    });
    walked.ok().and(found)
}

struct Query {
    query: String,
    output: SchemaRef,
    sides: Vec<String>,
    in_order: bool,
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.query)
    }
}

#[async_trait]
impl Reshaping for Query {
    async fn reshape(&self, rows: DataFrame, session: &SessionContext) -> Result<DataFrame> {
        let own = query::own_session(rows.clone().into_parts().0, |config| {
            if self.in_order { config.with_target_partitions(1).with_batch_size(order::BATCH_ROWS) } else { config }
        });
        own.register_table(TableReference::bare(INPUT), self.table(rows)?)?;
        for side in &self.sides {
            let table = session.table(TableReference::bare(side.as_str())).await?;
            own.register_table(TableReference::bare(side.as_str()), self.table(table)?)?;
        }
        let state = own.state();
        let statement = state.sql_to_statement(&self.query, &state.config_options().sql_parser.dialect)?;
        let plan = order::total(state.statement_to_plan(statement).await?)?;
        self.as_declared(DataFrame::new(state, plan))
    }
}

impl Query {
    /// The rows without their identities; in the identities' order where that matters.
    fn table(&self, rows: DataFrame) -> Result<Arc<dyn TableProvider>> {
        let visible: Vec<_> = rows.schema().fields().iter().map(|f| f.name().clone()).filter(|n| n != ROW).collect();
        let visible = visible.iter().map(ident).collect::<Vec<_>>();
        if self.in_order { order::in_order(rows, visible) } else { Ok(rows.select(visible)?.into_view()) }
    }

    /// Columns with the types that planning found: storage may hold text in another way than the schema says.
    fn as_declared(&self, made: DataFrame) -> Result<DataFrame> {
        let types = made.schema().fields().iter().map(|f| f.data_type());
        if types.eq(self.output.fields().iter().map(|f| f.data_type())) {
            return Ok(made);
        }
        let columns = made.schema().columns();
        let casts = columns.into_iter().zip(self.output.fields());
        let casts = casts.map(|(c, f)| cast(datafusion::prelude::Expr::Column(c), f.data_type().clone()).alias(f.name()));
        Ok(made.select(casts.collect::<Vec<_>>())?)
    }
}

#[cfg(test)]
mod tests;
