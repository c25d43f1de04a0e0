//! `derive`: new columns out of SQL expressions.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use indexmap::IndexMap;
use polars::prelude::Expr;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::engine::bridge;
use crate::error::{Error, Mistake, Result};
use crate::stages::step::{ColumnWork, Columns, Made, Step, with_field};
use crate::stages::{Stage, StageContext, kit};

/// The reference page.
pub const PAGE: &str = "\
Makes columns out of expressions, each a name and a Polars SQL expression. They are evaluated in order: a later one may use an earlier one. A
name that is already there is replaced in its place, a new one comes last.

A value may depend on its own row alone: aggregates, windows and subqueries are refused, because they need all rows (see `sql`). Names with
spaces or capitals go in double quotes, text in single quotes. `/` between integers gives a float; a null operand gives null. A `CAST` that
fails stops the run, `TRY_CAST` gives null instead. Parts of a timestamp with a zone are taken in UTC.

```yaml
stages:
  - derive:
      delayed: arr_delay > 15
      speed: distance / (air_time / 60.0)
      route: CONCAT(origin, '-', dest)
      fast: CASE WHEN speed > 400 THEN 1 ELSE 0 END
```
";

/// New columns: name to Polars SQL expression, evaluated in order.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Derive(IndexMap<String, String>);

/// Expressions that do not see one another: one step.
#[derive(Default)]
struct Group {
    makes: Vec<Made>,
    exprs: Vec<Expr>,
}

impl Stage for Derive {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        if self.0.is_empty() {
            return Err(kit::idle("name a column and its expression: `- derive: { delayed: arr_delay > 15 }`"));
        }
        let mut mistakes = Vec::new();
        let mut schema = cx.schema.clone();
        let mut steps = Vec::new();
        let mut group = Group::default();
        let mut broken = BTreeSet::new();
        for (name, text) in &self.0 {
            let at = kit::below("", name);
            mistakes.extend(kit::reserved(&at, name));
            // What builds on a mistake is not a mistake too.
            if parsed(text).is_ok_and(|expr| bridge::columns_of(&expr).iter().any(|c| broken.contains(c))) {
                broken.insert(name.clone());
                continue;
            }
            match planned(&at, text, &schema) {
                Ok((expr, t)) => {
                    let reads = bridge::columns_of(&expr);
                    if group.makes.iter().any(|m| reads.contains(&m.name)) {
                        steps.push(std::mem::take(&mut group).step(&schema));
                    }
                    schema = with_field(&schema, arrow::datatypes::Field::new(name, t, true));
                    group.makes.push(Made { name: name.clone(), reads });
                    group.exprs.push(expr);
                }
                Err(mistake) => {
                    mistakes.push(mistake);
                    broken.insert(name.clone());
                }
            }
        }
        steps.push(group.step(&schema));
        if mistakes.is_empty() { Ok(steps) } else { Err(mistakes) }
    }
}

impl Group {
    fn step(self, output: &SchemaRef) -> Step {
        let Group { makes, exprs } = self;
        Step::Columns(Columns {
            output: output.clone(),
            makes,
            fits: Vec::new(),
            work: ColumnWork::Polars(Arc::new(move |_| Ok(exprs.clone()))),
        })
    }
}

/// An expression and its type against the columns so far.
fn planned(at: &str, text: &str, schema: &SchemaRef) -> Result<(Expr, DataType), Mistake> {
    let expr = parsed(text).map_err(|why| {
        Mistake::new(at, format!("`{text}` is no expression: {why}")).help("names with spaces go in double quotes, text in single quotes")
    })?;
    bridge::elementwise(&expr).map_err(|why| Mistake::new(at, why).help("use `- sql:` for what needs all rows"))?;
    let wrong = |e: Error| {
        let mistake = Mistake::new(at, format!("`{text}`: {}", e.message()));
        mistake.help(e.to_do().unwrap_or("check the types of the columns it names, or cast them: `CAST(x AS DOUBLE)`"))
    };
    let fields = quiet(|| bridge::infer(schema, &[(String::new(), expr.clone())]))
        .unwrap_or_else(|| Err(Error::spec("it cannot be planned")))
        .map_err(wrong)?;
    match fields.first().map(|f| f.data_type()) {
        Some(DataType::Null) | None => Err(Mistake::new(at, format!("`{text}` has no type")).help("give it one: `CAST(NULL AS DOUBLE)`")),
        Some(t) => Ok((expr, t.clone())),
    }
}

fn parsed(text: &str) -> Result<Expr, String> {
    let read = quiet(|| polars::sql::sql_expr(text)).ok_or("it cannot be read")?;
    read.map_err(|e| bridge::plain(&e))
}

/// Polars panics on a few expressions that no one means, where others are errors: `None` then.
fn quiet<T>(f: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(f)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::column_testing::{batch, lower, mistakes, run, stage};
    use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringViewArray};
    use arrow::datatypes::{Float64Type, Int64Type};
    use serde_json::{Value, json};

    fn flights() -> RecordBatch {
        batch(vec![
            ("distance", Arc::new(Int64Array::from(vec![Some(300), Some(90), None]))),
            ("air_time", Arc::new(Float64Array::from(vec![Some(60.0), Some(30.0), Some(10.0)]))),
            ("origin", Arc::new(StringViewArray::from(vec![Some("JFK"), Some("LGA"), None]))),
            ("Arr Delay", Arc::new(Int64Array::from(vec![20, 0, 5]))),
        ])
    }

    #[test]
    fn later_ones_see_earlier_ones() {
        let options = json!({
            "speed": "distance / (air_time / 60.0)",
            "fast": "CASE WHEN speed > 200 THEN 'yes' ELSE 'no' END",
            "delayed": "\"Arr Delay\" > 15",
            "half": "distance / 2",
        });
        let derive = stage::<Derive>(options);
        let steps = lower(&derive, &flights().schema()).unwrap();
        assert_eq!(steps.len(), 2, "what does not see one another is one step: {steps:?}");
        let out = run(&derive, &flights()).unwrap().batch;
        let speed: ArrayRef = Arc::new(Float64Array::from(vec![Some(300.0), Some(180.0), None]));
        assert_eq!(out.column_by_name("speed").unwrap(), &speed);
        let fast: ArrayRef = Arc::new(StringViewArray::from(vec!["yes", "no", "no"]));
        assert_eq!(out.column_by_name("fast").unwrap(), &fast);
        let delayed: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, false]));
        assert_eq!(out.column_by_name("delayed").unwrap(), &delayed);
        assert_eq!(out.column_by_name("half").unwrap().as_primitive::<Float64Type>().value(1), 45.0);
    }

    #[test]
    fn a_name_that_is_there_is_replaced_in_its_place() {
        let out = run(&stage::<Derive>(json!({ "double": "distance * 2", "distance": "distance + 1", "after": "distance" })), &flights())
            .unwrap();
        let names: Vec<String> = out.batch.schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, ["distance", "air_time", "origin", "Arr Delay", "double", "after"]);
        let first = |name: &str| out.batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(0);
        assert_eq!((first("double"), first("distance"), first("after")), (600, 301, 301));
    }

    #[test]
    fn mistakes_point_to_their_expression() {
        let said = |options: Value| mistakes(&stage::<Derive>(options), &flights().schema());
        let all = said(json!({
            "a": "distnace + 1",
            "b": "SUM(distance)",
            "c": "distance +",
            "d": "distance * 2",
            "e": "NULL",
            "_row": "1",
            "f": "a + 1",
            "g": "origin - 1",
            "h": "(SELECT 1)",
            "i": "",
        }));
        let starts: [&str; 8] = [
            "/a: `distnace + 1`: there is no column `distnace`",
            "/b: `",
            "/c: `distance +` is no expression",
            "/e: `NULL` has no type",
            "/_row: ",
            "/g",
            "/h",
            "/i",
        ];
        for start in starts {
            assert!(all.iter().any(|m| m.starts_with(start)), "{start} in {all:#?}");
        }
        assert!(!all.iter().any(|m| m.starts_with("/d") || m.starts_with("/f")), "{all:#?}");
        assert!(all[0].ends_with("did you mean `distance`?"), "{all:#?}");
        assert!(said(json!({}))[0].contains("nothing to do"));
    }

    #[test]
    fn odd_expressions_never_panic() {
        let schema = flights().schema();
        for text in [
            "*",
            "distance.*",
            "EXTRACT(FOO FROM distance)",
            "SUBSTR(origin, 0, -5)",
            "CAST(origin AS FOO)",
            "distance IN ()",
            "distance IN (SELECT 1)",
            "CASE END",
            "ROUND(distance, 99999999999)",
            "1 / 0",
            "LPAD(origin, 5, '')",
            "ARRAY[1, 2]",
            "INTERVAL '1 day'",
            "DATE 'x'",
            "'",
            "\"",
            ";",
            "a AS b",
            "LIKE",
            "origin LIKE '['",
            "REGEXP_LIKE(origin, '(')",
            "origin || 1",
            "-origin",
            "NOT distance",
            "X'zz'",
            "🙂",
            "COLUMNS('a')",
            "RANDOM()",
        ] {
            let _ = planned("/x", text, &schema);
        }
        let _ = planned("/x", &format!("{}1{}", "(".repeat(2000), ")".repeat(2000)), &schema);
    }
}
