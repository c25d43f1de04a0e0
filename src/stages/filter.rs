//! `filter`: rows for which a predicate is true stay.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::logical_expr::ExprSchemable;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::{Expr, SessionContext};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use super::keys::shortened;
use super::query::{self, mistake, unsteady, unsteady_mistake};
use super::step::{Decide, Fits, Gives, How, RowDecision, RowTest, Scope, Step};
use super::{Stage, StageContext};
use crate::error::{Error, Mistake, Result};

/// The reference page.
pub const PAGE: &str = "\
Keeps the rows for which a predicate is true. The predicate is SQL (Apache DataFusion's) over the columns that reach the stage, and looks
at each row alone: aggregates, window functions and subqueries belong in `sql`. Column names are written as they are, with upper and lower
case; names with other characters stand in double quotes.

Use it for rows that are out of scope or impossible. A row for which the predicate is *null* (because something it looks at is missing) is
dropped too, as SQL does, but counted apart: the reasons are `false: <predicate>` and `null: <predicate>`.

```yaml
- filter: \"distance > 0 and origin in ('JFK', 'LGA')\"
```

The same with a key: `- filter: { where: \"distance > 0\" }`.
";

/// How long a predicate may be in a reason.
const SHOWN: usize = 60;

/// Keeps the rows for which a predicate is true.
#[derive(Debug, Clone)]
pub struct Filter {
    predicate: String,
    at: String,
}

impl JsonSchema for Filter {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Filter".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        query::text_schema("where", "SQL over the columns that reach the stage: rows for which it is true stay.")
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (predicate, at) = query::read_text(deserializer, "where", "distance > 0")?;
        Ok(Self { predicate, at })
    }
}

impl Stage for Filter {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        let session = query::own_session(cx.session.state(), |config| config);
        let expr = plan(&self.predicate, &self.at, cx.schema, &session).map_err(|m| vec![m])?;
        let mut reads: Vec<String> = expr.column_refs().into_iter().map(|c| c.name.clone()).collect();
        reads.sort_unstable();
        let shown = shortened(&self.predicate, SHOWN);
        Ok(vec![Step::Decide(Decide {
            reads,
            fits: vec![],
            gives: Gives::Rejects(vec![format!("false: {shown}"), format!("null: {shown}")]),
            on: Scope::All,
            how: How::Rows(Arc::new(Predicate { expr, session })),
        })])
    }
}

/// A predicate as an expression over the visible columns, or the mistake in it.
fn plan(predicate: &str, at: &str, columns: &SchemaRef, session: &SessionContext) -> Result<Expr, Mistake> {
    if predicate.trim().is_empty() {
        return Err(Mistake::new(at, "the predicate is empty").help("write one: `- filter: \"distance > 0\"`"));
    }
    let wrong = |e: DataFusionError| mistake(at, &e, &[]);
    let schema = DFSchema::try_from(columns.as_ref().clone()).map_err(wrong)?;
    let state = session.state();
    let expr = state.create_logical_expr(predicate, &schema).map_err(wrong)?.unalias();
    if let Some(what) = beyond_one_row(&expr) {
        return Err(Mistake::new(at, format!("a filter looks at one row at a time and cannot hold {what}")).help("use the stage `sql`"));
    }
    if let Some(function) = unsteady(&expr) {
        return Err(unsteady_mistake(at, &function));
    }
    // making the physical expression finds what does not fit together
    state.create_physical_expr(expr.clone(), &schema).map_err(wrong)?;
    match expr.get_type(&schema).map_err(wrong)? {
        DataType::Boolean | DataType::Null => Ok(expr),
        other => Err(Mistake::new(at, format!("the predicate is {other} and not true or false")).help("compare it with something")),
    }
}

fn beyond_one_row(expr: &Expr) -> Option<&'static str> {
    let mut found = None;
    let walked = expr.apply(|e| {
        found = match e {
            Expr::AggregateFunction(_) => Some("an aggregate"),
            Expr::WindowFunction(_) => Some("a window function"),
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => Some("a subquery"),
            _ => None,
        };
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.ok().and(found)
}

struct Predicate {
    expr: Expr,
    session: SessionContext,
}

impl RowDecision for Predicate {
    fn bind(&self, schema: &SchemaRef, _: &Fits) -> Result<Box<dyn RowTest>> {
        let columns = DFSchema::try_from(schema.as_ref().clone())?;
        Ok(Box::new(Bound(self.session.state().create_physical_expr(self.expr.clone(), &columns)?)))
    }
}

struct Bound(Arc<dyn PhysicalExpr>);

impl RowTest for Bound {
    fn codes(&self, batch: &RecordBatch) -> Result<UInt32Array> {
        let value = self.0.evaluate(batch).map_err(failed)?.into_array(batch.num_rows())?;
        let value = arrow::compute::cast(&value, &DataType::Boolean)?;
        let value = value.as_boolean();
        Ok((0..value.len()).map(|i| if value.is_null(i) { Some(1) } else { (!value.value(i)).then_some(0) }).collect())
    }
}

/// A predicate that fails does so because of a value: `'x'::int`, a division by zero.
fn failed(e: DataFusionError) -> Error {
    Error::input("the predicate of `filter` fails on a row")
        .of_value(e.strip_backtrace())
        .hint("guard it: `try_cast(…)`, or `case when … then … end`")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray};
    use serde_json::json;

    use super::*;
    use crate::stages::testing::{Bench, SHAPES, columns, same_in_every_shape, verdicts};

    fn flights() -> RecordBatch {
        columns(vec![
            ("distance", Arc::new(Int64Array::from(vec![Some(100), Some(0), None, Some(5)])) as _),
            ("depDelay", Arc::new(Float64Array::from(vec![Some(1.0), Some(-2.0), Some(f64::NAN), None])) as _),
            ("from", Arc::new(StringArray::from(vec!["JFK", "LGA", "JFK", "x"])) as _),
        ])
    }

    #[test]
    fn true_stays_false_and_null_go_apart() {
        let data = flights();
        let decide = Bench::new(&data).decide("filter", json!("distance > 0"));
        assert_eq!(decide.gives, Gives::Rejects(vec!["false: distance > 0".into(), "null: distance > 0".into()]));
        assert_eq!(decide.reads, ["distance"]);
        assert_eq!(same_in_every_shape(&decide, &data), [None, Some(0), Some(1), None]);
    }

    #[test]
    fn names_keep_their_case_and_keywords_stand_in_quotes() {
        let data = flights();
        let decide = Bench::new(&data).decide("filter", json!({"where": "depDelay < 0 or \"from\" like 'J%'"}));
        assert_eq!(decide.reads, ["depDelay", "from"]);
        assert_eq!(same_in_every_shape(&decide, &data), [None, None, None, Some(1)]);
    }

    #[test]
    fn constants_and_empty_batches_work() {
        let data = flights();
        let decide = Bench::new(&data).decide("filter", json!("1 = 2"));
        assert_eq!(verdicts(&decide, &data, SHAPES[1]).unwrap(), [Some(0); 4]);
        let decide = Bench::new(&data).decide("filter", json!("null"));
        assert_eq!(verdicts(&decide, &data, SHAPES[1]).unwrap(), [Some(1); 4]);
        let decide = Bench::new(&data).decide("filter", json!("distance > 0"));
        assert!(verdicts(&decide, &data.slice(0, 0), SHAPES[0]).unwrap().is_empty());
    }

    #[test]
    fn mistakes_say_where_and_what_next() {
        let bench = Bench::new(&flights());
        let of = |predicate: &str| bench.mistakes("filter", json!({"where": predicate})).join("\n");
        assert_eq!(of("distanse > 0"), "/where: there is no column `distanse` (did you mean `distance`?)");
        assert_eq!(of("depdelay > 0"), "/where: there is no column `depdelay` (did you mean `depDelay`?)");
        assert!(of("sum(distance) > 0").contains("cannot hold an aggregate (use the stage `sql`)"), "{}", of("sum(distance) > 0"));
        assert!(of("row_number() over () > 0").contains("window"), "{}", of("row_number() over () > 0"));
        assert!(of("distance").contains("is Int64 and not true or false"));
        assert!(of("random() > 0.5").contains("different in every run"));
        assert!(of("now() > timestamp '2020-01-01'").contains("different in every run"));
        assert!(of("distance > ").contains("no valid SQL"), "{}", of("distance > "));
        assert!(of("distance > 0; drop table x").contains("no valid SQL"), "{}", of("distance > 0; drop table x"));
        assert!(of("distance in (select 1)").starts_with("/where: "), "{}", of("distance in (select 1)"));
        assert!(of("_row > 5").contains("no column `_row`"));
        assert!(of(" ").contains("empty"));
        assert!(bench.mistakes("filter", json!({"were": "x"}))[0].contains("unknown field `were`"));
        assert!(bench.mistakes("filter", json!(3))[0].contains("a text such as"));
    }

    #[test]
    fn a_predicate_that_fails_is_an_input_error() {
        let data = flights();
        let decide = Bench::new(&data).decide("filter", json!("cast(\"from\" as int) > 0"));
        let e = verdicts(&decide, &data, SHAPES[0]).unwrap_err();
        assert_eq!(e.kind(), crate::error::Kind::Input, "{e}");
        assert!(e.to_do().unwrap().contains("try_cast"));
    }
}
