//! `shuffle`: the rows in a random order, written so.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::prelude::{DataFrame, SessionContext, ident};
use schemars::JsonSchema;
use serde::Deserialize;

use super::functions::row_key;
use super::keys::no_split_above;
use super::step::{Reshape, Reshaping, Step};
use super::{Stage, StageContext};
use crate::error::{Mistake, Result};

/// The reference page.
pub const PAGE: &str = "\
Puts all rows in a random order on disk: by a hash of the seed and each row's identity, the same order in every run.

A feed shuffles anyway, in another order in each epoch and without touching a file, so this is for readers that cannot: other trainers that
read shards from front to back. It sorts whole rows (spilling where memory does not hold them) and is the dearest of all stages. It stands
above a `split`.

```yaml
- shuffle
```
";

/// Puts all rows in a random order on disk. It has no options.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shuffle {}

impl Stage for Shuffle {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        no_split_above(cx).map_err(|m| vec![m])?;
        let work = Arc::new(ByHash { output: cx.schema.clone(), seed: cx.seed });
        Ok(vec![Step::Reshape(Reshape { output: cx.schema.clone(), sides: vec![], work })])
    }
}

struct ByHash {
    output: SchemaRef,
    seed: u64,
}

#[async_trait]
impl Reshaping for ByHash {
    async fn reshape(&self, rows: DataFrame, _: &SessionContext) -> Result<DataFrame> {
        let sorted = rows.sort(vec![row_key(self.seed).sort(true, true)])?;
        Ok(sorted.select(self.output.fields().iter().map(|f| ident(f.name())).collect::<Vec<_>>())?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use serde_json::json;

    use super::*;
    use crate::stages::testing::{Bench, SHAPES, numbers, reshaped};

    #[test]
    fn all_rows_come_out_in_one_random_order() {
        let data = numbers("x", (0..2500).map(Some));
        let steps = Bench::new(&data).lower("shuffle", json!(null)).unwrap();
        let [Step::Reshape(reshape)] = &steps[..] else { panic!() };
        let first = reshaped(reshape, &data, &[], SHAPES[0]).unwrap();
        for shape in &SHAPES[1..3] {
            assert_eq!(reshaped(reshape, &data, &[], *shape).unwrap(), first);
        }
        let order = first.column(0).as_primitive::<Int64Type>().values().to_vec();
        assert!(!order.is_sorted());
        let mut sorted = order;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..2500));
    }

    #[test]
    fn it_has_no_options_and_stands_above_a_split() {
        let data = numbers("x", std::iter::empty());
        assert!(Bench::new(&data).mistakes("shuffle", json!({"seed": 1}))[0].contains("unknown field `seed`"));
        assert!(Bench::new(&data).with_split().mistakes("shuffle", json!({}))[0].contains("above the `split`"));
    }
}
