//! What column stages share: steps out of Polars expressions, decisions out of conditions, typed constants, fits by their kind.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array, UInt64Array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, SchemaRef};
use polars::prelude::Expr;
use serde_json::Value;

use crate::engine::bridge::{self, Program};
use crate::error::{Error, Mistake, Result};
use crate::stages::StageContext;
use crate::stages::step::{
    CODE, ColumnWork, Columns, Decide, FitKey, FitResult, Fits, Gives, How, Made, Moments, ROW, RowDecision, RowTest, SPLIT, Scope, Step,
    with_field,
};

/// A JSON pointer one level deeper.
pub fn below(pointer: &str, key: impl std::fmt::Display) -> String {
    format!("{pointer}/{}", key.to_string().replace('~', "~0").replace('/', "~1"))
}

/// The mistake that a stage was given nothing to do.
pub fn idle(help: &str) -> Vec<Mistake> {
    vec![Mistake::new("", "this stage has nothing to do").help(help)]
}

/// The mistake that a name is one of Feedline's own columns.
pub fn reserved(at: &str, name: &str) -> Option<Mistake> {
    [ROW, SPLIT, CODE]
        .contains(&name)
        .then(|| Mistake::new(at, format!("`{name}` is a column of Feedline's own")).help("take another name"))
}

/// The columns of a list, each once; `pick` says what a column must be (such as [`StageContext::numeric`]).
pub fn each<'a, T>(
    names: &'a [String],
    at: &str,
    seen: &mut BTreeSet<&'a str>,
    mistakes: &mut Vec<Mistake>,
    pick: impl Fn(&str, &'a str) -> Result<T, Mistake>,
) -> Vec<T> {
    let mut picked = Vec::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        let at = below(at, i);
        match pick(&at, name) {
            _ if !seen.insert(name) => mistakes.push(Mistake::new(at, format!("`{name}` is named twice")).help("name each column once")),
            Ok(found) => picked.push(found),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    picked
}

/// The type with which a column crosses to the expressions, or the mistake that it cannot.
pub fn carried(at: &str, field: &Field) -> Result<DataType, Mistake> {
    bridge::carried(field.data_type()).map_err(|why| {
        Mistake::new(at, format!("column `{}`: {why}", field.name())).help("leave it out here, or turn it into other columns first")
    })
}

/// True for text, plain or in a dictionary.
pub fn is_text(t: &DataType) -> bool {
    match t {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// A numeric column and its type on the way.
pub fn numeric(cx: &StageContext<'_>, at: &str, name: &str) -> Result<(String, DataType), Mistake> {
    let field = cx.numeric(at, name)?;
    Ok((name.to_owned(), carried(at, field)?))
}

/// A step that replaces columns, each made from itself alone, by columns of the given types.
pub fn replace(
    schema: &SchemaRef,
    columns: &[(String, DataType)],
    fits: Vec<FitKey>,
    bind: impl Fn(&Fits) -> Result<Vec<Expr>> + Send + Sync + 'static,
) -> Step {
    let output = columns.iter().fold(schema.clone(), |s, (name, t)| with_field(&s, Field::new(name, t.clone(), true)));
    let makes = columns.iter().map(|(name, _)| Made { name: name.clone(), reads: vec![name.clone()] }).collect();
    Step::Columns(Columns { output, makes, fits, work: ColumnWork::Polars(Arc::new(bind)) })
}

/// A step that rejects the rows for which a condition holds, with the condition's reason; the first one counts.
pub fn reject(
    reads: Vec<String>,
    reasons: Vec<String>,
    fits: Vec<FitKey>,
    bind: impl Fn(&Fits) -> Result<Vec<Expr>> + Send + Sync + 'static,
) -> Step {
    Step::Decide(Decide { reads, fits, gives: Gives::Rejects(reasons), on: Scope::All, how: How::Rows(Arc::new(Conditions(bind))) })
}

/// A decision by conditions: expressions that give true for the rows to reject.
struct Conditions<F>(F);

impl<F: Fn(&Fits) -> Result<Vec<Expr>> + Send + Sync> RowDecision for Conditions<F> {
    fn bind(&self, schema: &SchemaRef, fits: &Fits) -> Result<Box<dyn RowTest>> {
        Ok(Box::new(ConditionsTest(Program::new(schema, &(self.0)(fits)?)?)))
    }
}

struct ConditionsTest(Program);

impl RowTest for ConditionsTest {
    fn codes(&self, batch: &RecordBatch) -> Result<UInt32Array> {
        first_true(&self.0.run(batch)?, batch.num_rows())
    }
}

/// For each row the index of the first condition that holds; null where none does.
pub fn first_true(conditions: &[ArrayRef], rows: usize) -> Result<UInt32Array> {
    let mut codes: Vec<Option<u32>> = vec![None; rows];
    for (code, condition) in (0u32..).zip(conditions) {
        let held = condition.as_boolean_opt().ok_or_else(|| Error::internal("a condition does not give true or false"))?;
        let held = match held.nulls() {
            Some(nulls) => held.values() & nulls.inner(),
            None => held.values().clone(),
        };
        for row in held.set_indices() {
            codes[row].get_or_insert(code);
        }
    }
    Ok(codes.into())
}

/// A constant of the spec as one value of a column's type.
pub fn constant(value: &Value, t: &DataType) -> Result<ArrayRef, String> {
    let wrong = || format!("{value} is no value of the type {t}");
    let array: ArrayRef = match value {
        Value::String(text) if !t.is_numeric() && *t != DataType::Boolean => Arc::new(StringArray::from(vec![text.as_str()])),
        Value::Bool(b) if *t == DataType::Boolean => Arc::new(arrow::array::BooleanArray::from(vec![*b])),
        Value::Number(n) if t.is_numeric() => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(n), ..) => Arc::new(Int64Array::from(vec![n])),
            (_, Some(n), _) => Arc::new(UInt64Array::from(vec![n])),
            (.., Some(n)) if !t.is_integer() || n.fract() == 0.0 => Arc::new(Float64Array::from(vec![n])),
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    strict(&array, t).map_err(|_| wrong())
}

/// A number as one value of a numeric type, at the type's smallest or largest value where it lies beyond, without a fraction for integers.
pub fn saturated(value: f64, t: &DataType) -> Result<ArrayRef> {
    // `as` saturates.
    let array: ArrayRef = match t {
        DataType::Int8 => Arc::new(arrow::array::Int8Array::from(vec![value as i8])),
        DataType::Int16 => Arc::new(arrow::array::Int16Array::from(vec![value as i16])),
        DataType::Int32 => Arc::new(arrow::array::Int32Array::from(vec![value as i32])),
        DataType::Int64 => Arc::new(Int64Array::from(vec![value as i64])),
        DataType::UInt8 => Arc::new(arrow::array::UInt8Array::from(vec![value as u8])),
        DataType::UInt16 => Arc::new(arrow::array::UInt16Array::from(vec![value as u16])),
        DataType::UInt32 => Arc::new(arrow::array::UInt32Array::from(vec![value as u32])),
        DataType::UInt64 => Arc::new(UInt64Array::from(vec![value as u64])),
        DataType::Decimal128(precision, scale) => {
            let end = 10i128.pow(u32::from(*precision)) - 1;
            let units = ((value * 10f64.powi(i32::from(*scale))).round() as i128).clamp(-end, end);
            Arc::new(Decimal128Array::from(vec![units]).with_precision_and_scale(*precision, *scale)?)
        }
        other => {
            let float: ArrayRef = Arc::new(Float64Array::from(vec![value]));
            return strict(&float, other).map_err(|_| Error::input(format!("{value} does not fit into the type {other}")));
        }
    };
    Ok(array)
}

/// Values as text (see [`FitResult::Frequencies`]) back in a column's type.
pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>, t: &DataType) -> Result<ArrayRef> {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    strict(&texts, t).map_err(|e| Error::internal(format!("a learned value is not of the column's type: {e}")))
}

fn strict(array: &ArrayRef, t: &DataType) -> Result<ArrayRef, arrow::error::ArrowError> {
    cast_with_options(array, t, &CastOptions { safe: false, ..CastOptions::default() })
}

fn fitted<'a>(fits: &'a Fits, key: &str) -> Result<&'a FitResult> {
    fits.get(key).ok_or_else(|| Error::internal(format!("the fit `{key}` was not made")))
}

fn another(key: &str) -> Error {
    Error::internal(format!("the fit `{key}` is of another kind"))
}

/// What is learned must be finite: one infinity among the rows would make NaN of every value that is scaled or filled with it.
fn all_finite(key: &str, learned: &[f64]) -> Result<()> {
    if learned.iter().all(|v| v.is_finite()) {
        return Ok(());
    }
    let column = key.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(key);
    Err(Error::input(format!("nothing can be learned from column `{column}`: it holds infinite values, or too large ones")).hint(format!(
        "make them missing in a stage above: `- clean: {{ outliers: {{ {column}: {{ method: bounds, lower: -1e100, upper: 1e100, action: null }} }} }}`"
    )))
}

/// A fit's moments. An error where they are not finite.
pub fn moments(fits: &Fits, key: &str) -> Result<Moments> {
    let FitResult::Moments(m) = fitted(fits, key)? else { return Err(another(key)) };
    if m.count > 0 {
        all_finite(key, &[m.mean, m.variance, m.min, m.max])?;
    }
    Ok(*m)
}

/// A fit's quantiles, as many as were asked for; `None` where there was no value to learn from. An error where they are not finite.
pub fn quantiles<const N: usize>(fits: &Fits, key: &str) -> Result<Option<[f64; N]>> {
    let FitResult::Quantiles { count, values } = fitted(fits, key)? else { return Err(another(key)) };
    let values: [f64; N] = values.as_slice().try_into().map_err(|_| another(key))?;
    if *count == 0 {
        return Ok(None);
    }
    all_finite(key, &values)?;
    Ok(Some(values))
}

/// A fit's values with their counts, most frequent first.
pub fn frequencies<'a>(fits: &'a Fits, key: &str) -> Result<&'a [(String, u64)]> {
    if let FitResult::Frequencies { values, .. } = fitted(fits, key)? { Ok(values) } else { Err(another(key)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_learned_of_infinities_is_an_error_and_of_nothing_is_none() {
        let of = |max: f64| Moments { count: 2, mean: max, max, ..Moments::default() };
        let fits = Fits::from([
            ("s/moments(x)".to_owned(), FitResult::Moments(of(f64::INFINITY))),
            ("s/moments(y)".to_owned(), FitResult::Moments(of(1.0))),
            ("s/moments(z)".to_owned(), FitResult::Moments(Moments { max: f64::NEG_INFINITY, ..Moments::default() })),
            ("s/quantiles(x)".to_owned(), FitResult::Quantiles { count: 2, values: vec![f64::NAN] }),
        ]);
        let e = moments(&fits, "s/moments(x)").unwrap_err();
        assert!(e.message().contains("column `x`") && e.to_do().is_some_and(|h| h.contains("bounds")), "{e}");
        assert!(moments(&fits, "s/moments(y)").is_ok() && moments(&fits, "s/moments(z)").is_ok());
        assert!(quantiles::<1>(&fits, "s/quantiles(x)").is_err());
    }

    #[test]
    fn constants_must_be_of_the_type() {
        let text = |v: Value, t: DataType| arrow::util::display::array_value_to_string(&constant(&v, &t).unwrap(), 0).unwrap();
        assert_eq!(text(json!(3), DataType::Int8), "3");
        assert_eq!(text(json!(3.0), DataType::Int8), "3");
        assert_eq!(text(json!(u64::MAX), DataType::UInt64), u64::MAX.to_string());
        assert_eq!(text(json!(2), DataType::Float32), "2.0");
        assert_eq!(text(json!(1.25), DataType::Decimal128(5, 2)), "1.25");
        assert_eq!(text(json!("x"), DataType::Utf8View), "x");
        assert_eq!(text(json!("2013-01-31"), DataType::Date32), "2013-01-31");
        for (value, t) in [
            (json!(300), DataType::Int8),
            (json!(-1), DataType::UInt8),
            (json!(1.5), DataType::Int64),
            (json!("1"), DataType::Int64),
            (json!(1), DataType::Utf8View),
            (json!("true"), DataType::Boolean),
            (json!("31.1.2013"), DataType::Date32),
            (json!(null), DataType::Int64),
            (json!([1]), DataType::Int64),
        ] {
            assert!(constant(&value, &t).is_err(), "{value} as {t}");
        }
    }

    #[test]
    fn the_first_condition_counts_and_null_is_not_true() {
        let conditions: Vec<ArrayRef> = vec![
            Arc::new(arrow::array::BooleanArray::from(vec![Some(false), None, Some(true), None])),
            Arc::new(arrow::array::BooleanArray::from(vec![Some(true), None, Some(true), Some(false)])),
        ];
        assert_eq!(first_true(&conditions, 4).unwrap(), UInt32Array::from(vec![Some(1), None, Some(0), None]));
    }

    /// The columns of `flights`, which the examples name.
    fn flights() -> SchemaRef {
        let field = |(name, t): (&&str, DataType)| Field::new(*name, t, true);
        let ints = ["year", "month", "day", "flight", "hour"].iter().map(|n| (n, DataType::Int64));
        let floats = ["dep_delay", "arr_delay", "air_time", "distance"].iter().map(|n| (n, DataType::Float64));
        let texts = ["carrier", "tailnum", "origin", "dest"].iter().map(|n| (n, DataType::Utf8View));
        Arc::new(arrow::datatypes::Schema::new(ints.chain(floats).chain(texts).map(field).collect::<Vec<_>>()))
    }

    #[test]
    fn every_documented_example_lowers() {
        let (sides, session, splits) = (Default::default(), datafusion::prelude::SessionContext::new(), ["train".to_owned()]);
        let mut seen = BTreeSet::new();
        for name in ["select", "rename", "cast", "derive", "clean", "normalize", "encode"] {
            let page = crate::stages::find(name).unwrap().page;
            let yaml = page.split("```yaml").nth(1).unwrap().split("```").next().unwrap();
            let example: Value = serde_saphyr::from_str(yaml).unwrap();
            for entry in example["stages"].as_array().unwrap() {
                let (stage, options) = entry.as_object().unwrap().iter().next().unwrap();
                let Some(def) = crate::stages::find(stage).filter(|_| stage != "split") else { continue };
                let parsed = (def.parse)(options.clone()).unwrap_or_else(|m| panic!("{name}: {m:?}"));
                let cx = StageContext { schema: &flights(), splits: Some(&splits), sides: &sides, label: name, seed: 7, session: &session };
                parsed.lower(&cx).unwrap_or_else(|m| panic!("{name}: {m:?}"));
                seen.insert(stage.clone());
            }
        }
        assert!(seen.len() >= 7, "{seen:?}");
    }

    #[test]
    fn pointers_escape() {
        assert_eq!(below("/fill_null", "a/b~c"), "/fill_null/a~1b~0c");
    }
}
