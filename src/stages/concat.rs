//! `concat`: the rows of another source come after the rows so far.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keys::{no_split_above, none_of, side};
use super::step::{Append, ColumnWork, Columns, Step};
use super::{Stage, StageContext};
use crate::error::{Mistake, Result};

/// The reference page.
pub const PAGE: &str = "\
Adds the rows of another source after the rows so far. Columns are matched by name, as they are where the stage stands; their order in
the other source does not matter.

Every column that reaches the stage must be in the other source, and the other way round, unless the spec says otherwise: `missing: nulls`
fills with null what the other source lacks, and `extra: drop` leaves out what only it has. Types are the same, or fit without loss: a
narrower number becomes a wider one, and text is text however it is stored. It stands above a `split`, so that every row gets one.

```yaml
- concat: { with: flights_2014, extra: drop }
```
";

/// Adds the rows of another source after the rows so far.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Concat {
    /// The other source's name under `sources`.
    with: String,
    /// What to do about columns that the other source lacks.
    #[serde(default)]
    missing: Missing,
    /// What to do about columns that only the other source has.
    #[serde(default)]
    extra: Extra,
}

/// What to do about columns that the other source lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Missing {
    /// They are a mistake.
    #[default]
    Error,
    /// They are null in its rows.
    Nulls,
}

/// What to do about columns that only the other source has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Extra {
    /// They are a mistake.
    #[default]
    Error,
    /// They are left out.
    Drop,
}

impl Stage for Concat {
    fn lower(&self, cx: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
        let mut mistakes: Vec<Mistake> = no_split_above(cx).err().into_iter().collect();
        match side(cx, "/with", &self.with) {
            Ok(other) => mistakes.extend(self.differences(cx, &other.schema)),
            Err(m) => mistakes.push(m),
        }
        none_of(mistakes)?;
        let append = Step::Append(Append { source: self.with.clone() });
        Ok(self.loosened(cx).into_iter().chain([append]).collect())
    }
}

impl Concat {
    fn differences(&self, cx: &StageContext<'_>, other: &Schema) -> Vec<Mistake> {
        let with = &self.with;
        let mut mistakes = Vec::new();
        for field in cx.schema.fields() {
            match other.field_with_name(field.name()) {
                Ok(theirs) => mistakes.extend(self.unlike(field, theirs)),
                Err(_) if self.missing == Missing::Nulls => {}
                Err(_) => mistakes.push(
                    Mistake::new("/with", format!("source `{with}` has no column `{}`", field.name()))
                        .help(format!("say `missing: nulls`; {}", crate::error::nearest(field.name(), names(other)))),
                ),
            }
        }
        let extra = other.fields().iter().filter(|f| cx.schema.field_with_name(f.name()).is_err());
        if self.extra == Extra::Error {
            mistakes.extend(extra.map(|f| {
                Mistake::new("/with", format!("column `{}` of source `{with}` is not among the columns here", f.name()))
                    .help("say `extra: drop`")
            }));
        }
        mistakes
    }

    /// The columns here with those that become nullable marked so, where there are any: no value changes.
    fn loosened(&self, cx: &StageContext<'_>) -> Option<Step> {
        let other = &cx.sides.get(&self.with)?.schema;
        let may_be_null = |f: &Field| f.is_nullable() || other.field_with_name(f.name()).map_or(true, Field::is_nullable);
        let fields: Vec<Field> = cx.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(may_be_null(f))).collect();
        let output = Arc::new(Schema::new(fields));
        let work = ColumnWork::Arrow(Arc::new(|_| Ok(vec![])));
        (output != *cx.schema).then_some(Step::Columns(Columns { output, makes: vec![], fits: vec![], work }))
    }

    fn unlike(&self, ours: &Field, theirs: &Field) -> Option<Mistake> {
        let (name, with) = (ours.name(), &self.with);
        if !fits(theirs.data_type(), ours.data_type()) {
            let message = format!("column `{name}` is {} here and {} in source `{with}`", ours.data_type(), theirs.data_type());
            return Some(Mistake::new("/with", message).help("cast it above, to the wider of the two: `- cast: { columns: { … } }`"));
        }
        None
    }
}

fn names(schema: &Schema) -> impl Iterator<Item = &str> {
    schema.fields().iter().map(|f| f.name().as_str())
}

/// Whether every value of one type is a value of the other.
pub fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    match (from, to) {
        (a, b) if a == b => true,
        (Null, _) => true,
        (Dictionary(_, values), to) => fits(values, to),
        (from, Dictionary(_, values)) => fits(from, values),
        (a, b) if a.is_string() && b.is_string() => true,
        (Binary | LargeBinary | BinaryView, Binary | LargeBinary | BinaryView) => true,
        (a, b) if a.is_signed_integer() && b.is_signed_integer() => width(a) <= width(b),
        (a, b) if a.is_unsigned_integer() && b.is_unsigned_integer() => width(a) <= width(b),
        (a, b) if a.is_unsigned_integer() && b.is_signed_integer() => width(a) < width(b),
        (a, b) if a.is_floating() && b.is_floating() => width(a) <= width(b),
        // a float holds whole numbers of fewer bits than its mantissa has
        (a, Float64) if a.is_integer() => width(a) <= 4,
        (a, Float32) if a.is_integer() => width(a) <= 2,
        (List(a), List(b) | LargeList(b)) | (LargeList(a), LargeList(b)) => fits(a.data_type(), b.data_type()),
        _ => false,
    }
}

fn width(kind: &DataType) -> usize {
    kind.primitive_width().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use serde_json::json;

    use super::*;
    use crate::stages::testing::Bench;

    fn bench(ours: &[(&str, DataType, bool)], theirs: &[(&str, DataType, bool)]) -> Bench {
        let schema = |fields: &[(&str, DataType, bool)]| {
            Arc::new(Schema::new(fields.iter().map(|(n, t, null)| Field::new(*n, t.clone(), *null)).collect::<Vec<_>>()))
        };
        let empty = RecordBatch::new_empty(schema(theirs));
        Bench::new(&RecordBatch::new_empty(schema(ours))).with_side("more", &empty, 0)
    }

    #[test]
    fn columns_that_fit_are_appended() {
        use DataType::*;
        let bench = bench(
            &[("a", Int64, true), ("b", Utf8View, true), ("c", Float64, true)],
            &[("c", Int32, false), ("b", Utf8, true), ("a", Int16, true)],
        );
        let steps = bench.lower("concat", json!({"with": "more"})).unwrap();
        assert!(matches!(&steps[..], [Step::Append(a)] if a.source == "more"));
    }

    #[test]
    fn columns_that_may_now_be_null_say_so() {
        use DataType::*;
        let bench = bench(&[("a", Int64, false), ("b", Utf8, false), ("c", Int8, false)], &[("a", Int64, true), ("c", Int8, false)]);
        let steps = bench.lower("concat", json!({"with": "more", "missing": "nulls"})).unwrap();
        let [Step::Columns(columns), Step::Append(_)] = &steps[..] else { panic!("{steps:?}") };
        assert!(columns.makes.is_empty());
        assert_eq!(columns.output.fields().iter().map(|f| f.is_nullable()).collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn differences_are_mistakes_all_at_once() {
        use DataType::*;
        let ours = [("carrier", Int32, true), ("origin", Utf8, false), ("distance", Int32, true), ("tail", Int32, false)];
        let bench = bench(&ours, &[("carrier", Int64, true), ("origin", Utf8, true), ("distanse", Int32, true)]);
        assert_eq!(
            bench.mistakes("concat", json!({"with": "more"})),
            [
                "/with: column `carrier` is Int32 here and Int64 in source `more` (cast it above, to the wider of the two: `- cast: { columns: { … } }`)",
                "/with: source `more` has no column `distance` (say `missing: nulls`; did you mean `distanse`?)",
                "/with: source `more` has no column `tail` (say `missing: nulls`; valid names: carrier, origin, distanse)",
                "/with: column `distanse` of source `more` is not among the columns here (say `extra: drop`)",
            ]
        );
        let allowed = bench.mistakes("concat", json!({"with": "more", "missing": "nulls", "extra": "drop"}));
        assert_eq!(allowed.len(), 1, "{allowed:?}");
        assert!(bench.mistakes("concat", json!({"with": "mor"}))[0].contains("did you mean `more`?"));
        assert!(bench.with_split().mistakes("concat", json!({"with": "more"}))[0].contains("above the `split`"));
    }
}
