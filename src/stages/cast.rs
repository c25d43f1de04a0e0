//! `cast`: other types for columns.
//!
//! Arrow's own casts do it, not expressions: they know every pair of types, and nothing has to cross to Polars.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit, UInt64Type};
use arrow::util::display::array_value_to_string;
use chrono::format::{Item, Parsed, StrftimeItems};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Error, Mistake, Result};
use crate::spec::pipeline::ColumnType;
use crate::stages::step::{ColumnWork, Columns, Decide, Fits, Gives, How, Made, ROW, RowDecision, RowTest, Scope, Step, with_field};
use crate::stages::{Stage, StageContext, kit};

/// The reference page.
pub const PAGE: &str = "\
Gives columns other types: `int8` … `int64`, `uint8` … `uint64`, `float32`, `float64`, `boolean`, `utf8`, `date`, `timestamp` (microseconds,
no zone). Nulls stay null.

Text becomes a number, a date or a moment where all of it reads as one (`2013-01-31`, `2013-01-31T05:00:00`); `format` says how dates and
moments are written otherwise, with the codes of `strftime`. Text is true as `true`, `t`, `yes`, `y`, `on` or `1`. Fractions are cut off
towards zero. A value that does not fit — a text that is no number, 300 as `int8` — is a failure, and `on_fail` says what that means:

- `fail`: the run stops and names the value, its row and its file;
- `null`: the value becomes null;
- `reject`: the row is rejected with the reason `cannot cast <column> to <type>`.

```yaml
stages:
  - cast:
      columns: { flight: utf8, year: int16, dep_delay: float32 }
      on_fail: reject
```
";

/// Gives columns other types.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cast {
    /// The columns with their new types.
    pub columns: IndexMap<String, Target>,
    /// What happens where a value does not fit the new type.
    #[serde(default, deserialize_with = "null_is_a_choice")]
    #[schemars(with = "Option<OnFail>")]
    pub on_fail: OnFail,
}

/// A new type.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "a type such as `int64`, `float64`, `utf8`, `boolean`, `date` or `timestamp`, or `to` with a type and a `format`"
)]
pub enum Target {
    /// The type.
    Type(ColumnType),
    /// The type, and how text is written.
    Written(Written),
}

/// A new type, and how text is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The type.
    pub to: ColumnType,
    /// How a date or a moment is written, with the codes of `strftime`: `%d.%m.%Y %H:%M`. A moment with an offset (`%z`) becomes UTC.
    #[serde(default)]
    pub format: Option<String>,
}

/// What happens where a value does not fit the new type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFail {
    /// The run stops and names the value and its row.
    #[default]
    Fail,
    /// The value becomes null.
    Null,
    /// The row is rejected.
    Reject,
}

/// In YAML, `on_fail: null` says nothing rather than the word.
fn null_is_a_choice<'de, D: serde::Deserializer<'de>>(from: D) -> Result<OnFail, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(OnFail::Null))
}

/// The Arrow type that a spec's type stands for.
pub fn arrow_type(t: ColumnType) -> DataType {
    match t {
        ColumnType::Int8 => DataType::Int8,
        ColumnType::Int16 => DataType::Int16,
        ColumnType::Int32 => DataType::Int32,
        ColumnType::Int64 => DataType::Int64,
        ColumnType::Uint8 => DataType::UInt8,
        ColumnType::Uint16 => DataType::UInt16,
        ColumnType::Uint32 => DataType::UInt32,
        ColumnType::Uint64 => DataType::UInt64,
        ColumnType::Float32 => DataType::Float32,
        ColumnType::Float64 => DataType::Float64,
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Utf8 => DataType::Utf8View,
        ColumnType::Date => DataType::Date32,
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
    }
}

/// One column's cast.
#[derive(Debug, Clone)]
struct Casting {
    name: String,
    to: DataType,
    /// The type's name in the spec.
    shown: String,
    format: Option<Vec<Item<'static>>>,
}

impl Stage for Cast {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        if self.columns.is_empty() {
            return Err(kit::idle("name columns: `- cast: { columns: { year: int16 } }`"));
        }
        let mut mistakes = Vec::new();
        let mut output = cx.schema.clone();
        let (mut all, mut may_fail) = (Vec::new(), Vec::new());
        for (name, target) in &self.columns {
            match Casting::plan(cx, name, target) {
                Ok((casting, from)) => {
                    output = with_field(&output, Field::new(name, casting.to.clone(), true));
                    if !always_fits(&from, &casting.to) {
                        may_fail.push(casting.clone());
                    }
                    all.push(casting);
                }
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let mut steps = Vec::new();
        if self.on_fail != OnFail::Null && !may_fail.is_empty() {
            steps.push(Step::Decide(Decide {
                reads: may_fail.iter().map(|c| c.name.clone()).collect(),
                fits: Vec::new(),
                gives: Gives::Rejects(may_fail.iter().map(Casting::failure).collect()),
                on: Scope::All,
                how: How::Rows(Arc::new(Fitting { castings: may_fail, stop: self.on_fail == OnFail::Fail })),
            }));
        }
        let makes = all.iter().map(|c| Made { name: c.name.clone(), reads: vec![c.name.clone()] }).collect();
        let work = ColumnWork::Arrow(Arc::new(move |batch| all.iter().map(|c| c.cast(c.source(batch)?)).collect()));
        steps.push(Step::Columns(Columns { output, makes, fits: Vec::new(), work }));
        Ok(steps)
    }
}

impl Casting {
    fn plan(cx: &StageContext<'_>, name: &str, target: &Target) -> Result<(Self, DataType), Mistake> {
        let at = kit::below("/columns", name);
        let from = cx.column(&at, name)?.data_type().clone();
        let (spec, format) = match target {
            Target::Type(t) => (*t, None),
            Target::Written(w) => (w.to, w.format.as_deref()),
        };
        let to = arrow_type(spec);
        let shown = serde_json::to_value(spec).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_else(|| to.to_string());
        if !can_cast_types(&from, &to) {
            return Err(Mistake::new(at, format!("column `{name}` is {from}, which cannot become {shown}"))
                .help("make a column of another type from it first: `- derive:`"));
        }
        let format = format.map(|f| read_format(&at, f, &from, &to)).transpose()?;
        Ok((Self { name: name.to_owned(), to, shown, format }, from))
    }

    /// The reason for which a row is rejected.
    fn failure(&self) -> String {
        format!("cannot cast {} to {}", self.name, self.shown)
    }

    fn source<'a>(&self, batch: &'a RecordBatch) -> Result<&'a ArrayRef> {
        batch.column_by_name(&self.name).ok_or_else(|| Error::internal(format!("a batch lacks `{}`", self.name)))
    }

    /// The cast values; null where one does not fit.
    fn cast(&self, from: &ArrayRef) -> Result<ArrayRef> {
        let Some(format) = &self.format else { return Ok(cast(from, &self.to)?) };
        let texts = cast(from, &DataType::Utf8View)?;
        let moments: arrow::array::TimestampMicrosecondArray =
            texts.as_string_view().iter().map(|t| t.and_then(|t| read_moment(t, format))).collect();
        Ok(cast(&moments, &self.to)?)
    }
}

/// Microseconds since 1970 of a text in a format, UTC where it has an offset; `None` where it does not read so.
fn read_moment(text: &str, format: &[Item<'_>]) -> Option<i64> {
    let mut parsed = Parsed::new();
    chrono::format::parse(&mut parsed, text, format.iter()).ok()?;
    let moment = match parsed.to_datetime() {
        Ok(zoned) => zoned.naive_utc(),
        Err(_) => {
            parsed.to_naive_datetime_with_offset(0).or_else(|_| parsed.to_naive_date().map(|d| d.and_time(chrono::NaiveTime::MIN))).ok()?
        }
    };
    Some(moment.and_utc().timestamp_micros())
}

fn read_format(at: &str, format: &str, from: &DataType, to: &DataType) -> Result<Vec<Item<'static>>, Mistake> {
    let at = kit::below(at, "format");
    if !kit::is_text(from) || !matches!(to, DataType::Date32 | DataType::Timestamp(..)) {
        return Err(Mistake::new(at, "a format says how a text becomes a date or a timestamp").help("leave it out here"));
    }
    let items = StrftimeItems::new(format).parse_to_owned();
    items.map_err(|_| {
        Mistake::new(at, format!("`{format}` is no format")).help("use the codes of strftime: `%d.%m.%Y`, `%Y-%m-%d %H:%M:%S`")
    })
}

/// Whether every value of a type has one in the other.
fn always_fits(from: &DataType, to: &DataType) -> bool {
    let bits = |t: &DataType| t.primitive_width().unwrap_or(0);
    match to {
        same if same == from => true,
        DataType::Utf8View => {
            !matches!(from, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
        }
        DataType::Float32 | DataType::Float64 => from.is_integer() || from.is_floating(),
        to if to.is_signed_integer() && from.is_signed_integer() => bits(from) <= bits(to),
        to if to.is_unsigned_integer() && from.is_unsigned_integer() => bits(from) <= bits(to),
        to if to.is_signed_integer() && from.is_unsigned_integer() => bits(from) < bits(to),
        DataType::Boolean => from.is_numeric(),
        to => to.is_integer() && *from == DataType::Boolean,
    }
}

/// Tests whether values fit.
struct Fitting {
    castings: Vec<Casting>,
    /// The first that does not fit ends the run.
    stop: bool,
}

impl RowDecision for Fitting {
    fn bind(&self, _: &SchemaRef, _: &Fits) -> Result<Box<dyn RowTest>> {
        Ok(Box::new(Fitting { castings: self.castings.clone(), stop: self.stop }))
    }
}

impl RowTest for Fitting {
    fn codes(&self, batch: &RecordBatch) -> Result<UInt32Array> {
        let mut codes: Vec<Option<u32>> = vec![None; batch.num_rows()];
        for (code, casting) in (0u32..).zip(&self.castings) {
            let from = casting.source(batch)?;
            let made = casting.cast(from)?;
            if made.logical_null_count() == from.logical_null_count() {
                continue;
            }
            let (before, after) = (from.logical_nulls(), made.logical_nulls());
            let is_null = |nulls: &Option<arrow::buffer::NullBuffer>, row| nulls.as_ref().is_some_and(|n| n.is_null(row));
            for row in (0..codes.len()).filter(|row| is_null(&after, *row) && !is_null(&before, *row)) {
                if self.stop {
                    return Err(stopped(casting, from, batch, row));
                }
                codes[row].get_or_insert(code);
            }
        }
        Ok(codes.into())
    }
}

fn stopped(casting: &Casting, from: &ArrayRef, batch: &RecordBatch, row: usize) -> Error {
    let value: String = array_value_to_string(from, row).unwrap_or_default().chars().take(80).collect();
    let e = Error::input(casting.failure())
        .of_value(format!("the value is `{value}`"))
        .hint("say `on_fail: null` or `on_fail: reject`, or give a `format`, or clean the column before");
    match batch.column_by_name(ROW).and_then(|ids| ids.as_primitive_opt::<UInt64Type>()) {
        Some(ids) => e.at_row(ids.value(row)),
        None => e,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::column_testing::{Outcome, batch, lower, mistakes, run, stage};
    use arrow::array::{
        BooleanArray, Date32Array, Float64Array, Int8Array, Int64Array, StringArray, StringViewArray, TimestampMicrosecondArray,
    };
    use serde_json::{Value, json};

    fn texts(values: Vec<Option<&str>>) -> RecordBatch {
        batch(vec![("t", Arc::new(StringViewArray::from(values)))])
    }

    fn cast_to(rows: &RecordBatch, target: Value, on_fail: &str) -> Result<Outcome> {
        run(&stage::<Cast>(json!({ "columns": { "t": target }, "on_fail": on_fail })), rows)
    }

    #[test]
    fn text_becomes_what_it_says() {
        let made = |values: Vec<Option<&str>>, to: Value| cast_to(&texts(values), to, "null").unwrap().batch.column(0).clone();
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(12), Some(-3), None, None, None]));
        assert_eq!(&made(vec![Some("12"), Some("-3"), Some("1x"), None, Some("")], json!("int64")), &numbers);
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), Some(1e3), None]));
        assert_eq!(&made(vec![Some("1.5"), Some("1e3"), Some("one")], json!("float64")), &floats);
        let truths: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), Some(false), Some(true), None]));
        assert_eq!(&made(vec![Some("true"), Some("FALSE"), Some("1"), Some("maybe")], json!("boolean")), &truths);
        let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(15706), None]));
        assert_eq!(&made(vec![Some("2013-01-01"), Some("1.1.2013")], json!("date")), &days);
        assert_eq!(&made(vec![Some("01.01.2013"), Some("2013-01-01")], json!({ "to": "date", "format": "%d.%m.%Y" })), &days);
        let moment = 1_357_016_400_000_000;
        let moments: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(moment), Some(moment), None]));
        assert_eq!(&made(vec![Some("2013-01-01T05:00:00"), Some("2013-01-01 05:00:00"), Some("x")], json!("timestamp")), &moments);
        let zoned = json!({ "to": "timestamp", "format": "%d/%b/%Y:%H:%M:%S %z" });
        assert_eq!(&made(vec![Some("01/Jan/2013:06:00:00 +0100"), Some("01/Jan/2013:00:00:00 -0500"), Some("2013")], zoned), &moments);
        let midnight: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![moment - 5 * 3_600_000_000]));
        assert_eq!(&made(vec![Some("20130101")], json!({ "to": "timestamp", "format": "%Y%m%d" })), &midnight);
    }

    #[test]
    fn numbers_that_do_not_fit_fail() {
        let rows = batch(vec![("t", Arc::new(Int64Array::from(vec![Some(127), Some(300), None])))]);
        let made: ArrayRef = Arc::new(Int8Array::from(vec![Some(127), None, None]));
        assert_eq!(cast_to(&rows, json!("int8"), "null").unwrap().batch.column(0), &made);
        let out = cast_to(&rows, json!("int8"), "reject").unwrap();
        assert_eq!(out.rejected, [(1, "cannot cast t to int8".to_owned())]);
        let left: ArrayRef = Arc::new(Int8Array::from(vec![Some(127), None]));
        assert_eq!(out.batch.column(0), &left);
        let e = cast_to(&rows, json!("int8"), "fail").unwrap_err();
        assert_eq!((e.message(), e.row()), ("cannot cast t to int8: the value is `300`", Some(1)));
        assert_eq!(e.kind(), crate::error::Kind::Input);
        let cut = batch(vec![("t", Arc::new(Float64Array::from(vec![Some(1.9), Some(-1.9), Some(f64::NAN), Some(1e300)])))]);
        let made: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(-1), None, None]));
        assert_eq!(cast_to(&cut, json!("int64"), "null").unwrap().batch.column(0), &made);
    }

    #[test]
    fn the_first_column_that_fails_is_the_reason() {
        let rows =
            batch(vec![("a", Arc::new(StringArray::from(vec!["1", "x", "y"]))), ("b", Arc::new(StringArray::from(vec!["x", "2", "z"])))]);
        let out = run(&stage::<Cast>(json!({ "columns": { "a": "int32", "b": "int32" }, "on_fail": "reject" })), &rows).unwrap();
        let reasons: Vec<_> = out.rejected.iter().map(|(row, why)| (*row, why.as_str())).collect();
        assert_eq!(reasons, [(0, "cannot cast b to int32"), (1, "cannot cast a to int32"), (2, "cannot cast a to int32")]);
        assert_eq!(out.batch.num_rows(), 0);
    }

    #[test]
    fn what_always_fits_is_not_tested() {
        let rows = batch(vec![("i", Arc::new(Int8Array::from(vec![1]))), ("f", Arc::new(Float64Array::from(vec![1.0])))]);
        let steps = |columns: Value| lower(&stage::<Cast>(json!({ "columns": columns })), &rows.schema()).unwrap().len();
        assert_eq!(steps(json!({ "i": "int64", "f": "utf8" })), 1);
        assert_eq!(steps(json!({ "i": "uint64" })), 2);
        assert_eq!(steps(json!({ "f": "int64" })), 2);
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let rows = texts(vec![]);
        let said = mistakes(&stage::<Cast>(json!({ "columns": { "tt": "int8", "t": { "to": "date", "format": "%Q" } } })), &rows.schema());
        assert!(said[0].starts_with("/columns/tt: no column `tt`"), "{said:?}");
        assert!(said[1].starts_with("/columns/t/format: `%Q` is no format"), "{said:?}");
        let said = mistakes(&stage::<Cast>(json!({ "columns": { "t": { "to": "int8", "format": "%Y" } } })), &rows.schema());
        assert!(said[0].starts_with("/columns/t/format: a format says"), "{said:?}");
        assert_eq!(stage::<Cast>(json!({ "columns": {}, "on_fail": null })).on_fail, OnFail::Null);
        assert_eq!(stage::<Cast>(json!({ "columns": {} })).on_fail, OnFail::Fail);
        let e = serde_json::from_value::<Cast>(json!({ "columns": { "t": "int65" } })).unwrap_err();
        assert!(e.to_string().contains("a type such as `int64`"), "{e}");
    }
}
