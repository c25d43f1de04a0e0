//! `feedline stages`

use clap::Args;
use serde_json::{Map, Value as Json};

use super::print;
use crate::error::{Error, Result, nearest};
use crate::spec::stage_schema;
use crate::stages::{REGISTRY, StageDef, find};

/// Options of `feedline stages`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  feedline stages
  feedline stages dedup")]
pub struct StagesArgs {
    /// The stage whose page is shown.
    name: Option<String>,
}

pub(super) fn run(args: &StagesArgs) -> Result<u8> {
    let Some(name) = &args.name else {
        print(&list(REGISTRY))?;
        return Ok(0);
    };
    let def = find(name)
        .ok_or_else(|| Error::usage(format!("there is no stage `{name}`")).hint(nearest(name, REGISTRY.iter().map(|d| d.name))))?;
    print(&page(def))?;
    Ok(0)
}

fn list(registry: &[StageDef]) -> String {
    let width = registry.iter().map(|d| d.name.len()).max().unwrap_or(0);
    registry.iter().map(|d| format!("{:width$}  {}\n", d.name, d.summary)).collect()
}

fn page(def: &StageDef) -> String {
    let schema = stage_schema(def);
    let reference = Reference { defs: schema.get("$defs") };
    let options = reference.options(&schema, 0);
    let options = if options.is_empty() { "None.\n".to_owned() } else { options };
    format!("{} — {}\n\n{}\n\nOptions\n\n{options}", def.name, def.summary, def.page.trim())
}

/// Options as a list, from their schema.
struct Reference<'a> {
    defs: Option<&'a Json>,
}

impl<'a> Reference<'a> {
    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let target = schema.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix("#/$defs/"));
        target.and_then(|name| self.defs?.get(name)).unwrap_or(schema)
    }

    /// The options that a schema has, or those of each variant. Three levels are as deep as a page is readable.
    fn options(&self, schema: &'a Json, level: usize) -> String {
        let schema = self.resolve(schema);
        let indent = "  ".repeat(level);
        let variants = alternatives(schema).filter(|v| self.resolve(v).get("properties").is_some());
        let mut out = String::new();
        for variant in variants {
            let variant = self.resolve(variant);
            let meaning = variant.get("description").and_then(Json::as_str).map(first_line).unwrap_or_default();
            out += &format!("{indent}{meaning}\n{}", self.properties(variant, level + 1));
        }
        out + &self.properties(schema, level)
    }

    fn properties(&self, schema: &'a Json, level: usize) -> String {
        let Some(properties) = schema.get("properties").and_then(Json::as_object) else { return String::new() };
        let required: Vec<&str> = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
        properties.iter().map(|(name, option)| self.option(name, option, required.contains(&name.as_str()), level)).collect()
    }

    fn option(&self, name: &str, schema: &'a Json, required: bool, level: usize) -> String {
        let indent = "  ".repeat(level);
        if let Some(value) = schema.get("const").and_then(Json::as_str) {
            return format!("{indent}- {name}: {value}\n");
        }
        let mut notes = vec![self.kind(schema)];
        if required {
            notes.push("required".to_owned());
        } else if let Some(default) = schema.get("default").filter(|d| !d.is_null() && !is_empty(d)) {
            notes.push(format!("default {}", default.as_str().map_or_else(|| default.to_string(), str::to_owned)));
        }
        let target = self.resolve(schema);
        let meaning = schema.get("description").or_else(|| target.get("description")).and_then(Json::as_str).unwrap_or_default();
        let mut out = format!("{indent}- {name} ({}): {}\n", notes.join(", "), meaning.replace('\n', " "));
        for (value, meaning) in self.constants(schema) {
            out += &format!("{indent}  - {value}: {meaning}\n");
        }
        let inner = [target.get("additionalProperties"), target.get("items"), Some(target)];
        let nested = inner.into_iter().flatten().map(|s| self.nested(s)).find(|s| has_options(s));
        if let Some(nested) = nested.filter(|_| level < 3) {
            out += &self.options(nested, level + 1);
        }
        out
    }

    /// The schema below references and a lone `anyOf: [X, null]`.
    fn nested(&self, schema: &'a Json) -> &'a Json {
        let schema = self.resolve(schema);
        let mut rest = alternatives(schema).filter(|a| a.get("type").and_then(Json::as_str) != Some("null"));
        match (rest.next(), rest.next()) {
            (Some(only), None) => self.resolve(only),
            _ => schema,
        }
    }

    /// Named values with their meanings.
    fn constants(&self, schema: &'a Json) -> Vec<(&'a str, &'a str)> {
        let schema = self.nested(schema);
        let named = |s: &'a Json| {
            let meaning = s.get("description").and_then(Json::as_str).map(first_line).unwrap_or_default();
            let own = s.get("const").and_then(Json::as_str);
            let listed = s.get("enum").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
            own.into_iter().chain(listed).map(move |value| (value, meaning))
        };
        alternatives(schema).map(|a| self.resolve(a)).flat_map(|a| alternatives(a).chain([a])).flat_map(named).collect()
    }

    /// A type in words.
    fn kind(&self, schema: &'a Json) -> String {
        let schema = self.nested(schema);
        let Some(map) = schema.as_object() else { return "anything".to_owned() };
        let types: Vec<&str> = match map.get("type") {
            Some(Json::String(one)) => vec![one],
            Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).filter(|t| *t != "null").collect(),
            _ => Vec::new(),
        };
        if !types.is_empty() && !map.contains_key("enum") {
            return types.iter().map(|t| self.type_words(t, map)).collect::<Vec<_>>().join(" or ");
        }
        let mut kinds: Vec<String> = alternatives(schema)
            .map(|a| self.resolve(a))
            .map(|a| if a.get("const").is_some() || a.get("enum").is_some() { "a name".to_owned() } else { self.kind(a) })
            .collect();
        kinds.dedup();
        if kinds.is_empty() { "a value".to_owned() } else { kinds.join(" or ") }
    }

    fn type_words(&self, name: &str, schema: &'a Map<String, Json>) -> String {
        match name {
            "string" => "text".to_owned(),
            "integer" => "whole number".to_owned(),
            "boolean" => "true or false".to_owned(),
            "array" => schema.get("items").map_or_else(|| "list".to_owned(), |items| format!("list of {}", self.kind(items))),
            "object" => match schema.get("additionalProperties").filter(|a| a.is_object()) {
                Some(values) => format!("map to {}", self.kind(values)),
                None => "map".to_owned(),
            },
            other => other.to_owned(),
        }
    }
}

fn alternatives(schema: &Json) -> impl Iterator<Item = &Json> {
    ["anyOf", "oneOf"].into_iter().filter_map(|word| schema.get(word)?.as_array()).flatten()
}

fn has_options(schema: &Json) -> bool {
    schema.get("properties").is_some() || alternatives(schema).any(|a| a.get("properties").is_some())
}

fn is_empty(value: &Json) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;
    use crate::error::Mistake;
    use crate::stages::step::Step;
    use crate::stages::{Stage, StageContext, def};

    #[derive(Debug, Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Options {
        /// The columns.
        keys: Vec<String>,
        /// Which one.
        #[serde(default)]
        keep: Keep,
        /// By column.
        #[serde(default)]
        rules: indexmap::IndexMap<String, Rule>,
        /// How many.
        at_most: Option<u64>,
    }

    #[derive(Debug, Default, Deserialize, JsonSchema, serde::Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Keep {
        /// The first.
        #[default]
        First,
        /// The last.
        Last,
    }

    /// A rule.
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(tag = "method", rename_all = "snake_case")]
    #[allow(dead_code)]
    enum Rule {
        /// Too far out.
        Zscore {
            /// How far.
            threshold: f64,
        },
    }

    impl Stage for Options {
        fn lower(&self, _: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_page_holds_every_option() {
        insta::assert_snapshot!(page(&def::<Options>("thin", "keep some rows", "Keeps some rows.\n")));
    }

    #[test]
    fn every_stage_is_listed_and_has_a_page() {
        let text = list(REGISTRY);
        assert_eq!(text.lines().count(), REGISTRY.len());
        for def in REGISTRY {
            assert!(page(def).contains(def.page.trim()), "{}", def.name);
        }
        assert_eq!(run(&StagesArgs { name: Some("no such stage".to_owned()) }).unwrap_err().exit_code(), 64);
    }
}
