//! `dedup`: of rows that are equal, one stays.
//!
//! ```text
//!  rows ─▶ GROUP BY keys: min(_row) ─▶ the rows that stay
//! ```
//!
//! One narrow aggregate, which DataFusion runs on all cores and spills. An order of one's own becomes bytes that compare as the rows do and
//! end in `_row`: then the smallest of a group is found by the same aggregate, and nothing is sorted.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::functions_aggregate::expr_fn::{max, min};
use datafusion::prelude::{DataFrame, Expr, ident, lit, when};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::functions::{self, order_key, order_row};
use super::keys::{check_names, group_key, is_float, none_of};
use super::step::{Decide, Gives, How, ROW, Scope, Step, TableContext, TableDecision};
use super::{Stage, StageContext};
use crate::error::{Mistake, Result};

/// The reference page.
pub const PAGE: &str = "\
Keeps one row of those that are equal: in their `keys`, in the whole `row`, or in a `text` once it is in normal form (NFKC, lower case, every
run of punctuation and white space as one space).

Use it where sources overlap or a job delivered twice. Texts that are nearly alike are the business of `near_dedup`.

Two nulls are equal, as two NaNs are, and 0.0 equals -0.0; say `null_keys: keep` where a missing key says nothing about a row. Whole rows,
texts, lists and structs are compared by a 128-bit hash (two different ones among 10⁹ collide with a probability of 10⁻²¹).

`keep` says which row stays: the `first` or the `last` in the order of the sources, or in the order that `order_by` gives.

```yaml
- dedup: { keys: [carrier, flight, time_hour], keep: first }
```

The most recent version of every row: `- dedup: { keys: [id], order_by: [\"updated_at desc\"] }`.
";

/// Keeps one row of those that are equal. Give one of `keys`, `row` and `text`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dedup {
    /// Rows with the same values in these columns are equal.
    keys: Option<Vec<String>>,
    /// `true`: rows with the same values in all columns are equal.
    #[serde(default)]
    row: bool,
    /// Rows whose text in this column is the same in normal form are equal.
    text: Option<String>,
    /// Which row of a group stays.
    #[serde(default)]
    keep: Keep,
    /// The order in which `first` and `last` are meant: columns, each with `asc` (the default) or `desc`, and `nulls last` (the default) or
    /// `nulls first`. Rows that are equal in it, and all rows where it is absent, stand as in the sources.
    #[serde(default)]
    order_by: Vec<String>,
    /// What a null in the key (or a null text) means.
    #[serde(default)]
    null_keys: NullKeys,
}

/// Which row of a group stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Keep {
    /// The first.
    #[default]
    First,
    /// The last.
    Last,
}

/// What a null in a key means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum NullKeys {
    /// Null is a value, equal to itself.
    #[default]
    Equal,
    /// A row with a null in its key is no duplicate of any other.
    Keep,
}

impl Stage for Dedup {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let compared = self.compared(cx, &mut mistakes);
        let order = self.order(cx, &mut mistakes);
        none_of(mistakes)?;
        let mut reads: Vec<String> = compared.columns.clone();
        for (name, _) in &order {
            if !reads.contains(name) {
                reads.push(name.clone());
            }
        }
        let (keep, null_keys) = (self.keep, self.null_keys);
        Ok(vec![Step::Decide(Decide {
            reads,
            fits: vec![],
            gives: Gives::Survivors(compared.reason.clone()),
            on: Scope::All,
            how: How::Table(Arc::new(KeepOne { compared, order, keep, null_keys, schema: cx.schema.clone() })),
        })])
    }
}

impl Dedup {
    /// What is compared, noting mistakes.
    fn compared(&self, cx: &StageContext<'_>, mistakes: &mut Vec<Mistake>) -> Compared {
        let asked = usize::from(self.keys.is_some()) + usize::from(self.row) + usize::from(self.text.is_some());
        if asked != 1 {
            let message =
                if asked == 0 { "it is not said what makes rows equal" } else { "more than one of `keys`, `row` and `text` is given" };
            mistakes.push(Mistake::new("", message).help("give one of `keys: [...]`, `row: true` and `text: column`"));
        }
        if let Some(text) = &self.text {
            mistakes.extend(text_mistake(cx, text));
            return Compared { by: By::Text, columns: vec![text.clone()], reason: format!("duplicate text in `{text}`") };
        }
        if let Some(keys) = &self.keys {
            mistakes.extend(check_names(cx, "/keys", keys));
            return Compared { by: By::Keys, columns: keys.clone(), reason: format!("duplicate of ({})", keys.join(", ")) };
        }
        let columns = cx.schema.fields().iter().map(|f| f.name().clone()).collect();
        Compared { by: By::Row, columns, reason: "duplicate row".into() }
    }

    fn order(&self, cx: &StageContext<'_>, mistakes: &mut Vec<Mistake>) -> Vec<(String, SortOptions)> {
        let mut order = Vec::new();
        for (i, text) in self.order_by.iter().enumerate() {
            let at = format!("/order_by/{i}");
            match parse_order(text) {
                Some((name, options)) => match cx.column(&at, name) {
                    Ok(_) => order.push((name.to_owned(), options)),
                    Err(m) => mistakes.push(m),
                },
                None => mistakes.push(
                    Mistake::new(at, format!("`{text}` is no order")).help("write `column`, `column desc` or `column desc nulls first`"),
                ),
            }
        }
        order
    }
}

fn text_mistake(cx: &StageContext<'_>, name: &str) -> Option<Mistake> {
    let field = match cx.column("/text", name) {
        Ok(field) => field,
        Err(m) => return Some(m),
    };
    let kind = match field.data_type() {
        DataType::Dictionary(_, values) => values,
        other => other,
    };
    if kind.is_string() {
        return None;
    }
    Some(Mistake::new("/text", format!("column `{name}` is {kind} and not text")).help(format!("use `keys: [{name}]`")))
}

/// `column`, `column desc`, `column asc nulls first`: the name may hold spaces.
fn parse_order(text: &str) -> Option<(&str, SortOptions)> {
    fn ending<'a>(text: &'a str, words: &[&str]) -> Option<&'a str> {
        words.iter().rev().try_fold(text.trim_end(), |rest, word| {
            let at = rest.len().checked_sub(word.len())?;
            let (head, tail) = (rest.get(..at)?, rest.get(at..)?);
            (tail.eq_ignore_ascii_case(word) && head.ends_with(char::is_whitespace)).then(|| head.trim_end())
        })
    }
    let (text, nulls_first) = match (ending(text, &["nulls", "first"]), ending(text, &["nulls", "last"])) {
        (Some(rest), _) => (rest, true),
        (_, Some(rest)) => (rest, false),
        _ => (text, false),
    };
    let (name, descending) = match (ending(text, &["desc"]), ending(text, &["asc"])) {
        (Some(rest), _) => (rest, true),
        (_, Some(rest)) => (rest, false),
        _ => (text, false),
    };
    let name = name.trim();
    (!name.is_empty()).then_some((name, SortOptions { descending, nulls_first }))
}

#[derive(Debug, Clone)]
struct Compared {
    by: By,
    columns: Vec<String>,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Keys,
    Row,
    Text,
}

struct KeepOne {
    compared: Compared,
    order: Vec<(String, SortOptions)>,
    keep: Keep,
    null_keys: NullKeys,
    schema: SchemaRef,
}

impl KeepOne {
    /// What rows are grouped by.
    fn groups(&self) -> Result<Vec<Expr>> {
        let columns = &self.compared.columns;
        let mut keys = match self.compared.by {
            By::Text => vec![functions::text_hash(ident(&columns[0])).alias("_text")],
            By::Row => vec![functions::hash(0, columns.iter().map(ident).collect()).alias("_hash")],
            By::Keys => {
                let key = |(i, name): (usize, &String)| {
                    let kind = self.schema.field_with_name(name)?.data_type();
                    Ok(group_key(name, kind).alias(format!("_key{i}")))
                };
                columns.iter().enumerate().map(key).collect::<Result<_>>()?
            }
        };
        let nullable = |name: &&String| self.schema.field_with_name(name).is_ok_and(|f| f.is_nullable());
        if self.null_keys == NullKeys::Keep && self.compared.by != By::Row {
            let missing = columns.iter().filter(nullable).map(|name| ident(name).is_null()).reduce(Expr::or);
            if let Some(missing) = missing {
                // a row with a null is a group of its own: 0 is free, for identities are shifted by one
                keys.push(when(missing, ident(ROW) + lit(1u64)).otherwise(lit(0u64))?.alias("_alone"));
            }
        }
        Ok(keys)
    }

    fn winner(&self) -> Result<(Expr, Expr)> {
        let last = self.keep == Keep::Last;
        if self.order.is_empty() {
            let row = if last { max(ident(ROW)) } else { min(ident(ROW)) };
            return Ok((row.alias("_best"), ident("_best").alias(ROW)));
        }
        let order: Vec<(Expr, SortOptions)> = self
            .order
            .iter()
            .map(|(name, options)| {
                let floats = self.schema.field_with_name(name).is_ok_and(|f| is_float(f.data_type()));
                (if floats { functions::float_key(ident(name)) } else { ident(name) }, *options)
            })
            .collect();
        Ok((min(order_key(&order, last)).alias("_best"), order_row(ident("_best"), last).alias(ROW)))
    }
}

#[async_trait]
impl TableDecision for KeepOne {
    async fn decide(&self, rows: DataFrame, _: &TableContext) -> Result<DataFrame> {
        let (best, row) = self.winner()?;
        Ok(rows.aggregate(self.groups()?, vec![best])?.select(vec![row])?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::array::*;
    use datafusion::prelude::SessionContext;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::stages::testing::{Bench, SHAPES, columns, named, same_in_every_shape, texts, verdicts};

    fn kept(data: &RecordBatch, options: serde_json::Value) -> Vec<usize> {
        named(&same_in_every_shape(&Bench::new(data).decide("dedup", options), data))
    }

    fn table() -> RecordBatch {
        columns(vec![
            ("a", Arc::new(Int32Array::from(vec![Some(1), Some(1), None, Some(2), None, Some(1)])) as _),
            ("b", Arc::new(StringArray::from(vec![Some("x"), Some("x"), Some("x"), None, Some("x"), Some("y")])) as _),
            ("t", Arc::new(Float64Array::from(vec![Some(5.0), Some(7.0), Some(1.0), None, Some(f64::NAN), Some(0.0)])) as _),
        ])
    }

    #[test]
    fn the_first_or_the_last_of_equal_keys_stays() {
        assert_eq!(kept(&table(), json!({"keys": ["a", "b"]})), [0, 2, 3, 5]);
        assert_eq!(kept(&table(), json!({"keys": ["a", "b"], "keep": "last"})), [1, 3, 4, 5]);
        assert_eq!(kept(&table(), json!({"keys": ["a"]})), [0, 2, 3]);
    }

    #[test]
    fn null_keys_are_equal_unless_kept() {
        assert_eq!(kept(&table(), json!({"keys": ["a", "b"], "null_keys": "keep"})), [0, 2, 3, 4, 5]);
        let texts = texts("t", &[None, Some("A!"), None, Some("a")]);
        assert_eq!(kept(&texts, json!({"text": "t"})), [0, 1]);
        assert_eq!(kept(&texts, json!({"text": "t", "null_keys": "keep"})), [0, 1, 2]);
    }

    #[test]
    fn an_order_says_which_row_stays() {
        assert_eq!(kept(&table(), json!({"keys": ["a", "b"], "order_by": ["t desc"]})), [1, 3, 4, 5], "NaN is the largest");
        assert_eq!(kept(&table(), json!({"keys": ["a", "b"], "order_by": ["t"]})), [0, 2, 3, 5]);
        assert_eq!(kept(&table(), json!({"keys": ["a", "b"], "order_by": ["t"], "keep": "last"})), [1, 3, 4, 5]);
        assert_eq!(kept(&table(), json!({"keys": ["a"], "order_by": ["b desc nulls last", "t desc"]})), [3, 4, 5]);
        // where the order says nothing, the sources' order does
        assert_eq!(kept(&table(), json!({"keys": ["b"], "order_by": ["a nulls first"]})), [2, 3, 5]);
        assert_eq!(kept(&table(), json!({"keys": ["b"], "order_by": ["a nulls first"], "keep": "last"})), [1, 3, 5]);
    }

    #[test]
    fn floats_compare_as_numbers_do() {
        let floats = |v: Vec<f64>| columns(vec![("x", Arc::new(Float64Array::from(v)) as ArrayRef)]);
        let data = floats(vec![0.0, -0.0, f64::NAN, -f64::NAN, 1.0]);
        assert_eq!(kept(&data, json!({"keys": ["x"]})), [0, 2, 4]);
        assert_eq!(kept(&data, json!({"row": true})), [0, 2, 4]);
    }

    #[test]
    fn whole_rows_and_nested_values() {
        let lists = ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>(vec![
            Some(vec![Some(1), None]),
            Some(vec![Some(1)]),
            Some(vec![Some(1), None]),
            None,
            None,
        ]);
        let dictionary: DictionaryArray<arrow::datatypes::Int8Type> =
            vec![Some("x"), Some("x"), Some("x"), None, Some("y")].into_iter().collect();
        let data = columns(vec![("l", Arc::new(lists) as _), ("d", Arc::new(dictionary) as _)]);
        assert_eq!(kept(&data, json!({"keys": ["l"]})), [0, 1, 3]);
        assert_eq!(kept(&data, json!({"keys": ["d"]})), [0, 3, 4]);
        assert_eq!(kept(&data, json!({"row": true})), [0, 1, 3, 4]);
    }

    #[test]
    fn texts_are_compared_in_normal_form() {
        let data = texts("t", &[Some("Hello, World"), Some("hello   world!"), Some("ＨＥＬＬＯ world"), Some("hello worlds"), Some("")]);
        assert_eq!(kept(&data, json!({"text": "t"})), [0, 3, 4]);
        assert_eq!(kept(&data.slice(0, 0), json!({"text": "t"})), [0usize; 0]);
    }

    #[test]
    fn more_groups_than_memory_holds_go_to_disk() {
        use crate::stages::testing::{Shape, run_decision};
        use datafusion::execution::memory_pool::FairSpillPool;
        use datafusion::execution::runtime_env::RuntimeEnvBuilder;
        use datafusion::prelude::SessionConfig;
        let texts: Vec<String> = (0..200_000).map(|i| format!("a key of some length, number {}", i % 150_000)).collect();
        let data = columns(vec![("k", Arc::new(StringArray::from(texts)) as ArrayRef)]);
        let shape = Shape { partitions: 2, batch: 8192 };
        for options in [json!({"keys": ["k"]}), json!({"keys": ["k"], "order_by": ["k desc"], "keep": "last"}), json!({"row": true})] {
            let memory = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(8 << 20))).build_arc().unwrap();
            let config = SessionConfig::new().with_target_partitions(2).with_sort_spill_reservation_bytes(1 << 20);
            let session = SessionContext::new_with_config_rt(config, memory);
            let decide = Bench::new(&data).decide("dedup", options);
            let verdicts = tokio::runtime::Runtime::new().unwrap().block_on(run_decision(&decide, &data, shape, session)).unwrap();
            assert_eq!(named(&verdicts).len(), 150_000);
        }
    }

    #[test]
    fn mistakes_come_all_at_once() {
        let bench = Bench::new(&table());
        let of = |o: serde_json::Value| bench.mistakes("dedup", o);
        assert_eq!(
            of(json!({"keys": ["aa", "b", "b"], "order_by": ["tt desc", "desc nulls first x", " "]})),
            [
                "/keys/0: no column `aa` reaches this stage (did you mean `a`?)",
                "/keys/2: column `b` is named twice (name it once)",
                "/order_by/0: no column `tt` reaches this stage (did you mean `t`?)",
                "/order_by/1: no column `desc nulls first x` reaches this stage (valid names: a, b, t)",
                "/order_by/2: ` ` is no order (write `column`, `column desc` or `column desc nulls first`)",
            ]
        );
        assert!(of(json!({}))[0].contains("not said what makes rows equal"));
        assert!(of(json!({"row": true, "keys": ["a"]}))[0].contains("more than one"));
        assert!(of(json!({"keys": []}))[0].contains("no column is named"));
        assert!(of(json!({"text": "a"}))[0].contains("Int32 and not text"));
    }

    #[test]
    fn orders_are_read() {
        let of = |text| parse_order(text).map(|(name, o)| (name, o.descending, o.nulls_first));
        assert_eq!(of("a b DESC  Nulls First"), Some(("a b", true, true)));
        assert_eq!(of("desc"), Some(("desc", false, false)));
        assert_eq!(of("x asc nulls last"), Some(("x", false, false)));
        assert_eq!(of("ü"), Some(("ü", false, false)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn survivors_are_what_a_map_keeps(rows in proptest::collection::vec((proptest::option::of(0i64..5), 0i64..4, 0i64..6), 0..300), last: bool) {
            type Row = (Option<i64>, i64, i64);
            let column = |f: fn(&Row) -> Option<i64>| Arc::new(Int64Array::from_iter(rows.iter().map(f))) as ArrayRef;
            let data = columns(vec![("a", column(|r| r.0)), ("b", column(|r| Some(r.1))), ("o", column(|r| Some(r.2)))]);
            let mut best: HashMap<(Option<i64>, i64), usize> = HashMap::new();
            for (i, row) in rows.iter().enumerate() {
                let held = best.entry((row.0, row.1)).or_insert(i);
                let (new, old) = ((-row.2, i), (-rows[*held].2, *held));
                if (new > old) == last {
                    *held = i;
                }
            }
            let mut expected: Vec<usize> = best.into_values().collect();
            expected.sort_unstable();
            let options = json!({"keys": ["a", "b"], "order_by": ["o desc"], "keep": if last { "last" } else { "first" }});
            let decide = Bench::new(&data).decide("dedup", options);
            for shape in SHAPES {
                prop_assert_eq!(named(&verdicts(&decide, &data, shape).unwrap()), expected.clone());
            }
        }
    }
}
