//! `encode`: categories become numbers.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Field, Int64Type, Schema, UInt64Type};
use arrow::util::display::array_value_to_string;
use hashbrown::HashMap;
use indexmap::IndexMap;
use polars::prelude::{Column, DataType as Pl, Expr, Field as PlField, Int32Chunked, IntoColumn, NewChunkedArray, PolarsResult, lit};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::engine::bridge::{column, literal};
use crate::error::{Mistake, Result};
use crate::stages::step::{ColumnWork, Columns, Fit, FitKey, FitKind, Fits, Made, Scope, Step};
use crate::stages::{Stage, StageContext, kit};

/// The reference page.
pub const PAGE: &str = "\
Turns categories into numbers.

- `ordinal` replaces a column by codes 0, 1, 2 … (`int32`) of its values in sorted order, learned from the training rows, as scikit-learn's
  `OrdinalEncoder` does. A value that was not seen becomes null, or `unknown_value` where one is given.
- `ordered` does the same with an order of your own, from which nothing is learned: sizes, grades, labels whose codes must stay.
- `one_hot` replaces a column by one column for each value named, `<column>_<value>` (`uint8`), 1 where the row has it, as scikit-learn's
  `OneHotEncoder` does with `handle_unknown=\"ignore\"`. Any other value is 0 in all of them. The values are named in the spec, because the
  columns of a dataset are fixed before its first row is read.

Nulls stay null in `ordinal` and `ordered`, and are 0 everywhere in `one_hot`. Text, whole numbers, booleans and dates can be encoded.

```yaml
stages:
  - split: { by: hash, key: tailnum, into: { train: 0.8, test: 0.2 } }
  - encode:
      ordinal: [carrier, dest]
      unknown_value: -1
      one_hot: { origin: [EWR, JFK, LGA] }
```
";

/// Turns categories into numbers.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Encode {
    /// Columns to replace by the codes of their sorted values, learned from the rows.
    #[serde(default)]
    pub ordinal: Vec<String>,
    /// Columns to replace by codes in an order given: the first value is 0.
    #[serde(default)]
    pub ordered: IndexMap<String, Vec<Value>>,
    /// The code of values that were not seen or not named; null unless given. Below 0, so that it is no code.
    #[serde(default)]
    #[schemars(range(max = -1))]
    pub unknown_value: Option<i32>,
    /// Columns to replace by one column for each of these values.
    #[serde(default)]
    pub one_hot: IndexMap<String, Vec<Value>>,
    /// `ordinal`: more distinct values than this are an error.
    #[serde(default = "default_max_categories")]
    #[schemars(range(min = 1))]
    pub max_categories: usize,
    /// The rows to learn from; `train` where a `split` stands above.
    #[serde(default)]
    pub fit_on: Option<Scope>,
}

fn default_max_categories() -> usize {
    10_000
}

/// What a column becomes.
#[derive(Debug, Clone)]
enum Coded {
    Learned { name: String, t: DataType, key: FitKey },
    Ordered { name: String, values: ArrayRef },
    OneHot { name: String, values: ArrayRef, columns: Vec<String> },
}

impl Stage for Encode {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let coded = self.coded(cx, &mut mistakes);
        if coded.is_empty() && mistakes.is_empty() {
            return Err(kit::idle("name columns under `ordinal`, `ordered` or `one_hot`"));
        }
        if self.unknown_value.is_some_and(|v| v >= 0) {
            mistakes.push(Mistake::new("/unknown_value", "0 and above are codes of values").help("take -1"));
        }
        let mut steps = Vec::new();
        for c in &coded {
            let Coded::Learned { name, key, .. } = c else { continue };
            match cx.fit_scope(self.fit_on) {
                Ok(on) => {
                    let kind = FitKind::Frequencies { at_most: self.max_categories };
                    steps.push(Step::Fit(Fit { key: key.clone(), column: name.clone(), kind, on }));
                }
                Err(mistake) if mistakes.contains(&mistake) => {}
                Err(mistake) => mistakes.push(mistake),
            }
        }
        let output = output(cx, &coded, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let made = |c: &Coded| {
            let reads = vec![c.name().to_owned()];
            c.makes().iter().map(|name| Made { name: name.clone(), reads: reads.clone() }).collect::<Vec<_>>()
        };
        let makes = coded.iter().flat_map(made).collect();
        let fits = coded.iter().filter_map(|c| if let Coded::Learned { key, .. } = c { Some(key.clone()) } else { None }).collect();
        let unknown = self.unknown_value;
        let bind = move |fits: &Fits| coded.iter().map(|c| c.exprs(fits, unknown)).collect::<Result<Vec<_>>>().map(|e| e.concat());
        steps.push(Step::Columns(Columns { output: Arc::new(output), makes, fits, work: ColumnWork::Polars(Arc::new(bind)) }));
        Ok(steps)
    }
}

impl Encode {
    fn coded(&self, cx: &StageContext<'_>, mistakes: &mut Vec<Mistake>) -> Vec<Coded> {
        let mut seen = BTreeSet::new();
        let ordinal = kit::each(&self.ordinal, "/ordinal", &mut seen, mistakes, |at, name| Ok((name, category(cx, at, name)?)));
        let learned = |(name, t): (&str, _)| Coded::Learned { name: name.to_owned(), t, key: format!("{}/frequencies({name})", cx.label) };
        let mut coded: Vec<Coded> = ordinal.into_iter().map(learned).collect();
        for (list, given, hot) in [("/ordered", &self.ordered, false), ("/one_hot", &self.one_hot, true)] {
            for (name, values) in given {
                let at = kit::below(list, name);
                if !seen.insert(name) {
                    mistakes.push(Mistake::new(&at, format!("`{name}` is named twice")).help("name each column once"));
                    continue;
                }
                let found = category(cx, &at, name).map_err(|m| vec![m]).and_then(|t| constants(&at, values, &t));
                match found {
                    Ok(values) if hot => {
                        let columns =
                            (0..values.len()).map(|i| format!("{name}_{}", array_value_to_string(&values, i).unwrap_or_default()));
                        coded.push(Coded::OneHot { name: name.clone(), columns: columns.collect(), values });
                    }
                    Ok(values) => coded.push(Coded::Ordered { name: name.clone(), values }),
                    Err(found) => mistakes.extend(found),
                }
            }
        }
        coded
    }
}

/// A column of categories, and its type on the way.
fn category(cx: &StageContext<'_>, at: &str, name: &str) -> Result<DataType, Mistake> {
    let field = cx.column(at, name)?;
    let t = kit::carried(at, field)?;
    if t == DataType::Utf8View || t.is_integer() || matches!(t, DataType::Boolean | DataType::Date32) {
        return Ok(t);
    }
    Err(Mistake::new(at, format!("column `{name}` is {}, which is no category", field.data_type()))
        .help("text, whole numbers, booleans and dates can be encoded: cast it first, or make classes of it with `- derive:`"))
}

/// The values named for a column, each once.
fn constants(at: &str, values: &[Value], t: &DataType) -> Result<ArrayRef, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for (i, value) in values.iter().enumerate() {
        let at = kit::below(at, i);
        match kit::constant(value, t) {
            Ok(array) if arrays.contains(&array) => {
                mistakes.push(Mistake::new(at, format!("{value} is named twice")).help("name each value once"))
            }
            Ok(array) => arrays.push(array),
            Err(why) => mistakes.push(Mistake::new(at, why).help(if *t == DataType::Utf8View {
                "put text in quotes"
            } else {
                "name values of the column's type"
            })),
        }
    }
    if values.is_empty() {
        mistakes.push(Mistake::new(at, "no value is named").help("name the column's values, for example `[EWR, JFK, LGA]`"));
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let all: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
    arrow::compute::concat(&all).map_err(|e| vec![Mistake::new(at, e.to_string())])
}

/// The columns that come out: each encoded one replaced in its place.
fn output(cx: &StageContext<'_>, coded: &[Coded], mistakes: &mut Vec<Mistake>) -> Schema {
    let mut fields: Vec<Arc<Field>> = Vec::new();
    for field in cx.schema.fields() {
        match coded.iter().find(|c| c.name() == field.name()) {
            None => fields.push(field.clone()),
            Some(Coded::OneHot { columns, .. }) => fields.extend(columns.iter().map(|c| Arc::new(Field::new(c, DataType::UInt8, false)))),
            Some(_) => fields.push(Arc::new(Field::new(field.name(), DataType::Int32, true))),
        }
    }
    let mut names = BTreeSet::new();
    let twice: BTreeSet<&str> = fields.iter().map(|f| f.name().as_str()).filter(|n| !names.insert(*n)).collect();
    for c in coded {
        for name in c.makes().iter().filter(|n| twice.contains(n.as_str())) {
            mistakes.push(
                Mistake::new(kit::below("/one_hot", c.name()), format!("two columns would be named `{name}`"))
                    .help("rename the other one first: `- rename: { … }`"),
            );
        }
    }
    Schema::new(fields)
}

impl Coded {
    fn name(&self) -> &str {
        match self {
            Coded::Learned { name, .. } | Coded::Ordered { name, .. } | Coded::OneHot { name, .. } => name,
        }
    }

    fn makes(&self) -> &[String] {
        match self {
            Coded::Learned { name, .. } | Coded::Ordered { name, .. } => std::slice::from_ref(name),
            Coded::OneHot { columns, .. } => columns,
        }
    }

    fn exprs(&self, fits: &Fits, unknown: Option<i32>) -> Result<Vec<Expr>> {
        match self {
            Coded::Learned { name, t, key } => {
                let values = kit::parse(kit::frequencies(fits, key)?.iter().map(|(text, _)| text.as_str()), t)?;
                Ok(vec![codes(name, &arrow::compute::sort(&values, None)?, unknown)?])
            }
            Coded::Ordered { name, values } => Ok(vec![codes(name, values, unknown)?]),
            Coded::OneHot { name, values, .. } => {
                let hot = |i| Ok(column(name).eq(literal(&values.slice(i, 1))?).fill_null(lit(false)).cast(Pl::UInt8));
                (0..values.len()).map(hot).collect()
            }
        }
    }
}

/// The position of each value among the categories.
fn codes(name: &str, categories: &ArrayRef, unknown: Option<i32>) -> Result<Expr> {
    let lookup = Arc::new(Lookup::new(categories)?);
    Ok(column(name).map_with_fmt_str(
        move |values| lookup.codes(&values, unknown),
        |_, field| Ok(PlField::new(field.name().clone(), Pl::Int32)),
        "ordinal",
    ))
}

/// Codes by category. Categories that are no text are looked up as 64 bits.
enum Lookup {
    Texts(HashMap<String, i32>),
    Bits(HashMap<i64, i32>),
}

impl Lookup {
    fn new(categories: &ArrayRef) -> Result<Self> {
        let codes = 0i32..;
        if let Some(texts) = categories.as_string_view_opt() {
            return Ok(Lookup::Texts(texts.iter().flatten().map(str::to_owned).zip(codes).collect()));
        }
        let bits: Int64Array = match categories.data_type() {
            DataType::UInt64 => categories.as_primitive::<UInt64Type>().unary(|v| v as i64),
            DataType::Date32 => categories.as_primitive::<Date32Type>().unary(i64::from),
            _ => cast(categories, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
        };
        Ok(Lookup::Bits(bits.values().iter().copied().zip(codes).collect()))
    }

    fn codes(&self, values: &Column, unknown: Option<i32>) -> PolarsResult<Column> {
        let name = values.name().clone();
        let made = match self {
            Lookup::Texts(codes) => {
                let code = |v: Option<&str>| v.and_then(|v| codes.get(v).copied().or(unknown));
                Int32Chunked::from_iter_options(name, values.str()?.iter().map(code))
            }
            Lookup::Bits(codes) => {
                let code = |v: Option<i64>| v.and_then(|v| codes.get(&v).copied().or(unknown));
                if let Ok(unsigned) = values.u64() {
                    Int32Chunked::from_iter_options(name, unsigned.iter().map(|v| code(v.map(|v| v as i64))))
                } else {
                    let bits = values.to_physical_repr().cast(&Pl::Int64)?;
                    Int32Chunked::from_iter_options(name, bits.i64()?.iter().map(code))
                }
            }
        };
        Ok(made.into_column())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::column_testing::{batch, learn, mistakes, run, run_with, stage};
    use crate::stages::golden::cases;
    use crate::stages::step::FitResult;
    use arrow::array::{BooleanArray, Date32Array, Int32Array, StringArray, UInt8Array, UInt64Array};
    use serde_json::json;

    fn int32(values: &[Value]) -> ArrayRef {
        Arc::new(values.iter().map(|v| v.as_i64().map(|v| v as i32)).collect::<Int32Array>())
    }

    #[test]
    fn codes_are_those_of_scikit_learn() {
        let all = cases("encoders");
        let carriers = &all[0];
        let seen = batch(vec![("carrier", carriers.texts("learned"))]);
        let rows = batch(vec![("carrier", carriers.texts("input"))]);
        let options = json!({ "ordinal": ["carrier"], "unknown_value": -1 });
        let out = run_with(&stage::<Encode>(options), &rows, &|fit, _| learn(fit, &seen)).unwrap();
        assert_eq!(out.batch.column(0), &int32(carriers.list("ordinal")));
        let out = run_with(&stage::<Encode>(json!({ "ordinal": ["carrier"] })), &rows, &|fit, _| learn(fit, &seen)).unwrap();
        assert!(out.batch.column(0).is_null(4), "what was not seen is null unless a value is given");

        let out = run(&stage::<Encode>(json!({ "one_hot": { "carrier": carriers.list("categories") } })), &rows).unwrap().batch;
        let names: Vec<Value> = out.schema().fields().iter().map(|f| json!(f.name())).collect();
        assert_eq!(names, carriers.list("one_hot_names"));
        for (made, expected) in out.columns().iter().zip(carriers.list("one_hot")) {
            let expected: UInt8Array = expected.as_array().unwrap().iter().map(|v| v.as_u64().map(|v| v as u8)).collect();
            assert_eq!(made.as_ref(), &expected as &dyn Array);
        }

        let numbers = &all[1];
        let input: ArrayRef = arrow::compute::cast(&numbers.floats("input"), &DataType::UInt64).unwrap();
        let out = run(&stage::<Encode>(json!({ "ordinal": ["n"] })), &batch(vec![("n", input)])).unwrap();
        assert_eq!(out.batch.column(0), &int32(numbers.list("ordinal")), "9 comes before 10");
    }

    #[test]
    fn every_kind_of_category_has_codes() {
        let big = u64::MAX;
        let rows = batch(vec![
            ("flag", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
            ("day", Arc::new(Date32Array::from(vec![Some(15707), Some(15706), None]))),
            ("id", Arc::new(UInt64Array::from(vec![Some(big), Some(1), None]))),
            ("grade", Arc::new(StringArray::from(vec![Some("low"), Some("high"), Some("odd")]))),
        ]);
        let options = json!({ "ordinal": ["flag", "day", "id"], "ordered": { "grade": ["low", "middle", "high"] }, "unknown_value": -9 });
        let out = run(&stage::<Encode>(options), &rows).unwrap().batch;
        let codes = |values: [Option<i32>; 3]| Arc::new(Int32Array::from(values.to_vec())) as ArrayRef;
        assert_eq!(out.column(0), &codes([Some(1), None, Some(0)]));
        assert_eq!(out.column(1), &codes([Some(1), Some(0), None]));
        assert_eq!(out.column(2), &codes([Some(1), Some(0), None]));
        assert_eq!(out.column(3), &codes([Some(0), Some(2), Some(-9)]));
    }

    #[test]
    fn one_hot_columns_stand_where_the_column_stood() {
        let n: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(3), None]));
        let rows = batch(vec![("a", n.clone()), ("n", n.clone()), ("b", n)]);
        let out = run(&stage::<Encode>(json!({ "one_hot": { "n": [3, 1] } })), &rows).unwrap().batch;
        assert_eq!(out.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["a", "n_3", "n_1", "b"]);
        let hot: ArrayRef = Arc::new(UInt8Array::from(vec![0, 1, 0]));
        assert_eq!(out.column(1), &hot);
    }

    #[test]
    fn nothing_learned_gives_no_code() {
        let rows = batch(vec![("t", Arc::new(StringArray::from(vec![None::<&str>, None])))]);
        let out =
            run_with(&stage::<Encode>(json!({ "ordinal": ["t"] })), &rows, &|_, _| FitResult::Frequencies { nulls: 2, values: vec![] });
        assert_eq!(out.unwrap().batch.column(0).null_count(), 2);
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("carrier", DataType::Utf8View, true),
            Field::new("carrier_AA", DataType::Utf8View, true),
            Field::new("delay", DataType::Float64, true),
        ]));
        let options = json!({
            "ordinal": ["carier", "delay"],
            "ordered": { "carrier_AA": ["x", "x", 1] },
            "one_hot": { "carrier": ["AA"] },
            "unknown_value": 0,
        });
        let said = mistakes(&stage::<Encode>(options), &schema);
        for start in [
            "/ordinal/0: no column `carier`",
            "/ordinal/1: column `delay` is Float64, which is no category",
            "/ordered/carrier_AA/1: \"x\" is named twice",
            "/ordered/carrier_AA/2: 1 is no value",
            "/one_hot/carrier: two columns would be named `carrier_AA`",
            "/unknown_value: 0 and above",
        ] {
            assert!(said.iter().any(|m| m.starts_with(start)), "{start} in {said:#?}");
        }
        assert!(mistakes(&stage::<Encode>(json!({ "one_hot": { "carrier": [] } })), &schema)[0].contains("no value is named"));
        assert!(mistakes(&stage::<Encode>(json!({})), &schema)[0].contains("nothing to do"));
    }
}
