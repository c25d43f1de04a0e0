//! `rename`: other names for columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Error, Mistake, Result};
use crate::stages::step::{ColumnWork, Columns, Made, Step};
use crate::stages::{Stage, StageContext, kit};

/// The reference page.
pub const PAGE: &str = "\
Gives columns other names: old name to new name. A column keeps its place, its type and its values. All names change at once, so two columns
may swap theirs.

```yaml
stages:
  - rename: { dep_delay: departure_delay, arr_delay: arrival_delay }
```
";

/// Gives columns other names: old name to new name.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Rename(IndexMap<String, String>);

impl Stage for Rename {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        if self.0.is_empty() {
            return Err(kit::idle("name columns: `- rename: { old: new }`"));
        }
        let mut mistakes: Vec<Mistake> = self.0.keys().filter_map(|old| cx.column(&kit::below("", old), old).err()).collect();
        let mut holders: BTreeMap<&str, &str> = BTreeMap::new();
        let fields: Vec<Field> = cx.schema.fields().iter().map(|f| f.as_ref().clone().with_name(self.name_of(f.name()))).collect();
        for (field, old) in fields.iter().zip(cx.schema.fields()) {
            let at = kit::below("", old.name());
            if self.0.contains_key(old.name()) {
                mistakes.extend(kit::reserved(&at, field.name()));
            }
            if let Some(other) = holders.insert(field.name(), old.name()) {
                let at = if self.0.contains_key(old.name()) { at } else { kit::below("", other) };
                mistakes.push(
                    Mistake::new(at, format!("`{other}` and `{}` would both be named `{}`", old.name(), field.name()))
                        .help("take another name, or drop one of them first: `- select: { drop: [ … ] }`"),
                );
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let pairs: Vec<(String, String)> = self.0.iter().filter(|(old, new)| old != new).map(|(o, n)| (o.clone(), n.clone())).collect();
        let makes = pairs.iter().map(|(old, new)| Made { name: new.clone(), reads: vec![old.clone()] }).collect();
        // By Arrow: a name is all that changes, so every type passes, and none changes its layout.
        let work = ColumnWork::Arrow(Arc::new(move |batch| {
            let arrays = pairs
                .iter()
                .map(|(old, _)| batch.column_by_name(old).cloned().ok_or_else(|| Error::internal(format!("a batch lacks `{old}`"))));
            arrays.collect()
        }));
        Ok(vec![Step::Columns(Columns { output: Arc::new(Schema::new(fields)), makes, fits: Vec::new(), work })])
    }
}

impl Rename {
    fn name_of<'a>(&'a self, old: &'a str) -> &'a str {
        self.0.get(old).map_or(old, String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::column_testing::{batch, mistakes, run, stage};
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use serde_json::{Value, json};

    fn abc() -> RecordBatch {
        batch(vec![
            ("a", Arc::new(Int64Array::from(vec![1]))),
            ("b", Arc::new(StringArray::from(vec!["x"]))),
            ("c", Arc::new(Int64Array::from(vec![3]))),
        ])
    }

    #[test]
    fn a_column_keeps_place_type_and_values() {
        let out = run(&stage::<Rename>(json!({ "b": "B", "c": "c" })), &abc()).unwrap().batch;
        assert_eq!(out.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["a", "B", "c"]);
        assert_eq!(out.columns(), abc().columns());
    }

    #[test]
    fn two_columns_may_swap() {
        let out = run(&stage::<Rename>(json!({ "a": "c", "c": "a" })), &abc()).unwrap().batch;
        assert_eq!(out.schema().field(0).name(), "c");
        assert_eq!(out.columns(), abc().columns());
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let said = |options: Value| mistakes(&stage::<Rename>(options), &abc().schema());
        let all = said(json!({ "a": "b", "bb": "x", "c": "_row" }));
        assert!(all[0].starts_with("/bb: no column `bb`"), "{all:?}");
        assert!(all[1].starts_with("/a: `a` and `b` would both be named `b`"), "{all:?}");
        assert!(all[2].starts_with("/c: `_row` is a column of Feedline's own"), "{all:?}");
        assert_eq!(said(json!({ "a": "x", "c": "x" })).len(), 1);
        assert!(said(json!({}))[0].contains("nothing to do"));
    }
}
