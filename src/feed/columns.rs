//! Which columns a feed reads, and every mistake in asking for them, found before anything runs.

use arrow::datatypes::{DataType, Field, Schema};

use crate::error::{Error, Kind, Mistake, Result, nearest};
use crate::spec::pipeline::{FeedSpec, TokensMode, TokensSpec};

/// The columns a feed reads, checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Columns {
    /// The columns of the matrix, in order.
    pub features: Vec<String>,
    /// The label's column.
    pub label: Option<Label>,
    /// Columns handed out as they are.
    pub others: Vec<Field>,
    /// The token column.
    pub tokens: Option<TokensSpec>,
}

/// The label's column and the type it is handed out in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    pub name: String,
    /// `f32` for fractional columns, `i64` for whole numbers and booleans.
    pub fractional: bool,
}

/// Every mistake of a `feed` section against the columns of the dataset. Places are JSON pointers relative to the section.
pub fn check(spec: &FeedSpec, schema: &Schema) -> Vec<Mistake> {
    let mut found = check_names(spec, schema.fields().iter().map(|f| f.name().as_str()));
    let typed = |at: String, name: &str, what: &str, found: &mut Vec<Mistake>| {
        if let Ok(field) = schema.field_with_name(name)
            && !is_number(field.data_type())
        {
            found.push(Mistake::new(at, format!("{what} `{name}` is {}, which is not a number", field.data_type())).help(remedy(field)));
        }
    };
    for (i, name) in spec.features.iter().enumerate() {
        typed(format!("/features/{i}"), name, "the feature", &mut found);
    }
    if let Some(name) = &spec.label {
        typed("/label".to_owned(), name, "the label", &mut found);
    }
    if let Some(tokens) = &spec.tokens
        && let Ok(field) = schema.field_with_name(&tokens.column)
        && !is_token_list(field.data_type())
    {
        found.push(
            Mistake::new("/tokens/column", format!("`{}` is {}, not a list of integers", tokens.column, field.data_type()))
                .help("tokenize the text first, so that the column holds lists of token ids"),
        );
    }
    found
}

/// The mistakes that names alone show.
pub(super) fn check_names<'a>(spec: &FeedSpec, known: impl Iterator<Item = &'a str>) -> Vec<Mistake> {
    let known: Vec<&str> = known.collect();
    let mut found = Vec::new();
    let mut named: Vec<(String, &str)> = spec.features.iter().enumerate().map(|(i, n)| (format!("/features/{i}"), n.as_str())).collect();
    named.extend(spec.columns.iter().enumerate().map(|(i, n)| (format!("/columns/{i}"), n.as_str())));
    named.extend(spec.label.iter().map(|n| ("/label".to_owned(), n.as_str())));
    named.extend(spec.tokens.iter().map(|t| ("/tokens/column".to_owned(), t.column.as_str())));
    for (at, name) in &named {
        if !known.contains(name) {
            found.push(Mistake::new(at.clone(), format!("the dataset has no column `{name}`")).help(nearest(name, known.iter().copied())));
        }
    }
    for (i, name) in spec.features.iter().enumerate() {
        if spec.features[..i].contains(name) {
            found.push(Mistake::new(format!("/features/{i}"), format!("`{name}` is named twice")).help("remove one of them"));
        }
        if spec.label.as_ref() == Some(name) {
            found.push(
                Mistake::new(format!("/features/{i}"), format!("`{name}` is the label too"))
                    .help("remove it from the features: a model that sees its label learns nothing else"),
            );
        }
    }
    if spec.batch_rows == 0 {
        found.push(Mistake::new("/batch_rows", "a batch must have a row").help("for example `batch_rows: 1024`"));
    }
    if let Some(tokens) = &spec.tokens {
        if tokens.length == 0 || u32::try_from(tokens.length).is_err() {
            found.push(Mistake::new("/tokens/length", "a row of tokens must have 1 to 2³² tokens").help("for example `length: 2048`"));
        }
        if i32::try_from(tokens.pad_id).is_err() {
            found.push(Mistake::new("/tokens/pad_id", "token ids must be below 2³¹").help("use an id of the vocabulary"));
        }
        if tokens.mode == TokensMode::Pack && (!spec.features.is_empty() || !spec.columns.is_empty() || spec.label.is_some()) {
            found.push(
                Mistake::new("/tokens/mode", "packed rows hold several rows of the dataset: features, label and columns have no place")
                    .help("use `mode: pad`, or leave the others out"),
            );
        }
    }
    found
}

impl Columns {
    /// The columns to read, or the mistakes as one error. Without a schema (a split with no rows) names alone are checked.
    pub fn resolve(spec: &FeedSpec, known: &[&str], schema: Option<&Schema>) -> Result<Self> {
        let found = schema.map_or_else(|| check_names(spec, known.iter().copied()), |s| check(spec, s));
        if let Some(error) = as_error(found) {
            return Err(error);
        }
        let Some(schema) = schema else { return Ok(Self::default()) };
        let label = match &spec.label {
            Some(name) => Some(Label { name: name.clone(), fractional: is_fractional(schema.field_with_name(name)?.data_type()) }),
            None => None,
        };
        // Without a matrix and without tokens, all columns are given as they are.
        let all = spec.columns.is_empty() && spec.features.is_empty() && spec.tokens.is_none();
        let others: Vec<Field> = if all {
            schema.fields().iter().filter(|f| spec.label.as_ref() != Some(f.name())).map(|f| f.as_ref().clone()).collect()
        } else {
            spec.columns.iter().map(|n| schema.field_with_name(n).cloned()).collect::<Result<_, _>>()?
        };
        Ok(Self { features: spec.features.clone(), label, others, tokens: spec.tokens.clone() })
    }

    /// Every column's name, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.features.iter().map(String::as_str).collect();
        names.extend(self.label.iter().map(|l| l.name.as_str()));
        names.extend(self.tokens.iter().map(|t| t.column.as_str()));
        names.extend(self.others.iter().map(|f| f.name().as_str()));
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn as_error(mut found: Vec<Mistake>) -> Option<Error> {
    if found.len() > 1 {
        let lines: Vec<String> = found
            .iter()
            .map(|m| format!("  feed{}: {}{}", m.at, m.message, m.help.as_ref().map_or_else(String::new, |h| format!("; {h}"))))
            .collect();
        return Some(
            Error::new(Kind::Spec, format!("the feed has {} mistakes:\n{}", lines.len(), lines.join("\n")))
                .hint("mend `feed:` in the spec"),
        );
    }
    found.pop().map(|m| {
        let error = Error::new(Kind::Spec, m.message).at(format!("feed{}", m.at));
        match m.help {
            Some(help) => error.hint(help),
            None => error,
        }
    })
}

/// True for types that become a number of a matrix.
pub(super) fn is_number(t: &DataType) -> bool {
    match t {
        DataType::Boolean => true,
        DataType::Dictionary(_, values) => is_number(values),
        other => other.is_numeric(),
    }
}

/// True for numbers with a fraction.
pub(super) fn is_fractional(t: &DataType) -> bool {
    match t {
        DataType::Dictionary(_, values) => is_fractional(values),
        other => other.is_floating() || other.is_decimal(),
    }
}

fn is_token_list(t: &DataType) -> bool {
    matches!(t, DataType::List(item) | DataType::LargeList(item) if item.data_type().is_integer())
}

fn remedy(field: &Field) -> &'static str {
    match field.data_type() {
        t if t.is_string() => "turn text into numbers with an `encode` stage, or hand it out under `columns`",
        DataType::Dictionary(..) => "turn categories into numbers with an `encode` stage, or hand them out under `columns`",
        t if t.is_temporal() => "make a number of it with a `derive` stage, or hand it out under `columns`",
        t if t.is_nested() => "name a list of token ids under `tokens`, or hand it out under `columns`",
        _ => "hand it out under `columns`",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("delay", DataType::Float64, true),
            Field::new("late", DataType::Boolean, true),
            Field::new("carrier", DataType::LargeUtf8, true),
            Field::new("ids", DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true))), true),
        ])
    }

    fn spec() -> FeedSpec {
        FeedSpec { batch_rows: 4, features: vec!["delay".to_owned()], label: Some("late".to_owned()), ..Default::default() }
    }

    #[test]
    fn a_sound_feed_has_no_mistakes() {
        assert_eq!(check(&spec(), &schema()), vec![]);
        let c = Columns::resolve(&spec(), &[], Some(&schema())).unwrap();
        assert_eq!(c.label, Some(Label { name: "late".to_owned(), fractional: false }));
        assert!(c.others.is_empty());
    }

    #[test]
    fn all_mistakes_come_together() {
        let bad = FeedSpec { features: vec!["dellay".into(), "carrier".into(), "late".into()], label: Some("late".into()), ..spec() };
        let found = check(&bad, &schema());
        let at: Vec<&str> = found.iter().map(|m| m.at.as_str()).collect();
        assert_eq!(at, ["/features/0", "/features/2", "/features/1"]);
        assert_eq!(found[0].help.as_deref(), Some("did you mean `delay`?"));
        let e = Columns::resolve(&bad, &[], Some(&schema())).unwrap_err();
        assert_eq!(e.exit_code(), 78);
        assert!(e.to_string().contains("3 mistakes") && e.to_string().contains("feed/features/1"), "{e}");
    }

    #[test]
    fn one_mistake_keeps_its_place_and_hint() {
        let bad = FeedSpec { features: vec!["carrier".into()], ..spec() };
        let e = Columns::resolve(&bad, &[], Some(&schema())).unwrap_err();
        assert_eq!(e.place(), Some("feed/features/0"));
        assert!(e.to_do().is_some_and(|h| h.contains("encode")), "{e:?}");
    }

    #[test]
    fn tokens_must_be_integer_lists_and_packing_stands_alone() {
        let tokens = |column: &str, mode| Some(TokensSpec { column: column.to_owned(), length: 8, mode, pad_id: 0 });
        assert!(check(&FeedSpec { tokens: tokens("ids", TokensMode::Pad), ..spec() }, &schema()).is_empty());
        assert_eq!(check(&FeedSpec { tokens: tokens("delay", TokensMode::Pad), ..spec() }, &schema()).len(), 1);
        assert_eq!(check(&FeedSpec { tokens: tokens("ids", TokensMode::Pack), ..spec() }, &schema())[0].at, "/tokens/mode");
    }

    #[test]
    fn without_features_all_columns_are_given() {
        let all = FeedSpec { features: vec![], ..spec() };
        let c = Columns::resolve(&all, &[], Some(&schema())).unwrap();
        assert_eq!(c.others.iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["delay", "carrier", "ids"]);
    }
}
