//! `select`: the columns that go on, in order.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Mistake, Result};
use crate::stages::step::{ColumnWork, Columns, Step};
use crate::stages::{Stage, StageContext, kit};

/// The reference page.
pub const PAGE: &str = "\
Says which columns go on. A list, or `keep`, names them in the order in which they are written; `drop` names those that end here, and the
others keep their order. A column that no later stage and no shard needs is not even read from its shard.

```yaml
stages:
  - select: [year, month, day, carrier, dep_delay, arr_delay]
  - select: { drop: [day] }
```
";

/// Says which columns go on, and in which order.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a list of columns, or one of `keep` and `drop` with a list of columns")]
pub enum Select {
    /// The columns to keep, in this order.
    Columns(Vec<String>),
    /// The columns to keep or to drop.
    Choice(Choice),
}

/// The columns to keep or to drop.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The columns to keep, in this order.
    #[serde(default)]
    pub keep: Option<Vec<String>>,
    /// The columns to drop; the others keep their order.
    #[serde(default)]
    pub drop: Option<Vec<String>>,
}

impl Stage for Select {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        let (names, at, keep) = match self {
            Select::Columns(names) => (names, "", true),
            Select::Choice(Choice { keep: Some(names), drop: None }) => (names, "/keep", true),
            Select::Choice(Choice { keep: None, drop: Some(names) }) => (names, "/drop", false),
            Select::Choice(_) => {
                return Err(vec![Mistake::new("", "say either `keep` or `drop`").help("for example `- select: { drop: [year] }`")]);
            }
        };
        let mut mistakes = Vec::new();
        let mut seen = BTreeSet::new();
        let named = kit::each(names, at, &mut seen, &mut mistakes, |at, name| cx.column(at, name).cloned());
        let fields: Vec<Field> = if keep {
            named
        } else {
            cx.schema.fields().iter().filter(|f| !seen.contains(f.name().as_str())).map(|f| f.as_ref().clone()).collect()
        };
        if fields.is_empty() && mistakes.is_empty() {
            mistakes.push(Mistake::new(at, "no column is left").help("keep at least one column"));
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let work = ColumnWork::Arrow(Arc::new(|_| Ok(Vec::new())));
        Ok(vec![Step::Columns(Columns { output: Arc::new(Schema::new(fields)), makes: Vec::new(), fits: Vec::new(), work })])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::column_testing::{batch, mistakes, run, stage};
    use arrow::array::{Int64Array, RecordBatch};
    use serde_json::{Value, json};

    fn abc() -> RecordBatch {
        batch(["a", "b", "c"].iter().map(|n| (*n, Arc::new(Int64Array::from(vec![1, 2])) as _)).collect())
    }

    #[test]
    fn columns_go_on_in_the_order_said() {
        let names = |options: Value| -> Vec<String> {
            let out = run(&stage::<Select>(options), &abc()).unwrap().batch;
            assert_eq!(out.num_rows(), 2);
            out.schema().fields().iter().map(|f| f.name().clone()).collect()
        };
        assert_eq!(names(json!(["c", "a"])), ["c", "a"]);
        assert_eq!(names(json!({ "keep": ["b"] })), ["b"]);
        assert_eq!(names(json!({ "drop": ["b"] })), ["a", "c"]);
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let said = |options: Value| mistakes(&stage::<Select>(options), &abc().schema());
        let both = said(json!(["a", "aa", "a"]));
        assert!(both[0].starts_with("/1: no column `aa`") && both[1].starts_with("/2: `a` is named twice"), "{both:?}");
        assert!(said(json!({ "drop": ["a", "b", "c"] }))[0].contains("no column is left"));
        assert!(said(json!([]))[0].contains("no column is left"));
        assert!(said(json!({ "keep": ["a"], "drop": ["b"] }))[0].contains("either"));
        assert!(serde_json::from_value::<Select>(json!({ "kepe": ["a"] })).unwrap_err().to_string().contains("a list of columns"));
    }
}
