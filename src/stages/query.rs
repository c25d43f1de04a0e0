//! SQL in specs, for `filter` and `sql`: a session to plan in, mistakes with the nearest name, and no functions that change from run to run.

use std::fmt;
use std::sync::Arc;

use datafusion::catalog::MemoryCatalogProviderList;
use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::Volatility;
use datafusion::prelude::{Expr, SessionConfig, SessionContext};

use serde::Deserializer;
use serde::de::{Error as _, MapAccess, Visitor};

use crate::error::{Mistake, nearest};

/// Reads an option that is a text, or a map with the text under one key: the text, and where in the options it stands.
///
/// # Errors
/// It is neither; or the map has another key.
pub fn read_text<'de, D: Deserializer<'de>>(
    deserializer: D,
    key: &'static str,
    example: &'static str,
) -> Result<(String, String), D::Error> {
    struct TextOrMap(&'static str, &'static str);
    impl<'de> Visitor<'de> for TextOrMap {
        type Value = (String, String);
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a text such as \"{}\", or {{ {}: … }}", self.1, self.0)
        }
        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok((text.to_owned(), String::new()))
        }
        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut text = None;
            while let Some(key) = map.next_key::<String>()? {
                if key != self.0 {
                    return Err(M::Error::custom(format!("unknown field `{key}`, expected `{}`", self.0)));
                }
                text = Some(map.next_value()?);
            }
            let text = text.ok_or_else(|| M::Error::missing_field(self.0))?;
            Ok((text, format!("/{}", self.0)))
        }
    }
    deserializer.deserialize_any(TextOrMap(key, example))
}

/// The JSON Schema of [`read_text`].
pub fn text_schema(key: &'static str, what: &str) -> schemars::Schema {
    schemars::json_schema!({
        "description": what,
        "anyOf": [
            { "type": "string", "description": what },
            { "type": "object", "properties": { (key): { "type": "string", "description": what } }, "required": [key], "additionalProperties": false },
        ]
    })
}

/// A session with the functions, memory and settings of another and a catalog of its own, in which column names mean what is written:
/// `depDelay` is not `depdelay`.
pub fn own_session(state: SessionState, configure: impl FnOnce(SessionConfig) -> SessionConfig) -> SessionContext {
    let mut config = state.config().clone();
    config.options_mut().sql_parser.enable_ident_normalization = false;
    config.options_mut().sql_parser.parse_float_as_decimal = false;
    // a projection above the sort would be dealt out to several partitions, and the order lost where they meet
    let config = configure(config).with_round_robin_repartition(false);
    let config = config.with_create_default_catalog_and_schema(true).with_information_schema(false);
    let builder = SessionStateBuilder::new_from_existing(state).with_catalog_list(Arc::new(MemoryCatalogProviderList::new()));
    SessionContext::new_with_state(builder.with_config(config).build())
}

/// A planning error as a mistake in a spec, with the nearest of the names that are known.
pub fn mistake(at: &str, error: &DataFusionError, tables: &[&str]) -> Mistake {
    let root = error.find_root();
    if let DataFusionError::SchemaError(schema, _) = root {
        return schema_mistake(at, schema);
    }
    let text = root.strip_backtrace();
    let text = text.strip_prefix("Error during planning: ").or(text.strip_prefix("SQL error: ")).unwrap_or(&text).trim().to_owned();
    let missing = text.strip_prefix("table '").and_then(|rest| rest.split_once("' not found"));
    if let Some((full, _)) = missing {
        let name = full.rsplit('.').next().unwrap_or(full);
        return Mistake::new(at, format!("there is no table `{name}`")).help(nearest(name, tables.iter().copied()));
    }
    let (message, help) = match root {
        DataFusionError::SQL(..) => (format!("this is no valid SQL: {}", parser_text(&text)), "see the SQL reference of Apache DataFusion"),
        DataFusionError::NotImplemented(..) => (format!("this SQL is not supported: {text}"), "write it in another way"),
        _ => (text, "see the SQL reference of Apache DataFusion"),
    };
    Mistake::new(at, message).help(help)
}

/// `ParserError("Expected …")` without its wrapping.
fn parser_text(text: &str) -> &str {
    text.trim_start_matches("ParserError(\"").trim_start_matches("TokenizerError(\"").trim_end_matches("\")")
}

fn schema_mistake(at: &str, error: &SchemaError) -> Mistake {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<&str> = valid_fields.iter().map(Column::name).collect();
            Mistake::new(at, format!("there is no column `{}`", field.flat_name())).help(nearest(field.name(), names))
        }
        SchemaError::AmbiguousReference { field } => {
            Mistake::new(at, format!("column `{}` is in more than one table", field.name)).help("say whose it is: `input.…`")
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            Mistake::new(at, format!("two columns are called `{name}`")).help("name one with AS")
        }
    }
}

/// The first function of an expression, named, whose value changes from run to run or with the clock.
pub fn unsteady(expr: &Expr) -> Option<String> {
    use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
    let mut found = None;
    let walked = expr.apply(|e| {
        if let Expr::ScalarFunction(f) = e
            && f.func.signature().volatility != Volatility::Immutable
        {
            found = Some(f.func.name().to_owned());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.ok().and(found)
}

/// The mistake that a function is not the same in every run.
pub fn unsteady_mistake(at: &str, function: &str) -> Mistake {
    Mistake::new(at, format!("`{function}()` is different in every run, and a dataset must not be"))
        .help("write the value into the spec, as a variable: `${name}`; for random rows use `sample`")
}
