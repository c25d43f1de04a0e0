//! The JSON Schema of a spec, for editors and for the check itself.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

use super::Pipeline;
use crate::stages::{REGISTRY, StageDef};

/// Where the published schema lies in the repository. A test compares it.
pub const SCHEMA_FILE: &str = "schemas/pipeline.schema.json";
/// The schema's name.
const ID: &str = "urn:feedline:schema:pipeline:v1";

/// The schemas that a spec is checked against: the pipeline's, and the options' of each stage, with shared `$defs`.
pub(crate) struct Schemas {
    /// The pipeline's; its `$defs` serve the stages too. Entries of `stages` are free here: they are checked by name.
    pub root: Json,
    /// One for each entry of the registry.
    pub stages: Vec<Json>,
}

/// The schemas of the pipeline and of a registry's stages.
pub(crate) fn schemas(registry: &[StageDef]) -> Schemas {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let stages = registry.iter().map(|def| (def.schema)(&mut generator).to_value()).collect();
    let mut root = generator.into_root_schema_for::<Pipeline>().to_value();
    remove_machine_defaults(&mut root);
    Schemas { root, stages }
}

/// The JSON Schema (draft 2020-12) of a spec with every stage: what `feedline schema` prints and what yaml-language-server completes from.
pub fn json_schema() -> Json {
    json_schema_of(REGISTRY)
}

pub(crate) fn json_schema_of(registry: &[StageDef]) -> Json {
    let Schemas { mut root, stages } = schemas(registry);
    let mut entries = Map::new();
    for (def, options) in registry.iter().zip(stages) {
        entries.insert(def.name.to_owned(), described(options, def));
    }
    let names: Vec<&str> = registry.iter().map(|d| d.name).collect();
    let stage = json!({
        "title": "Stage",
        "description": "One stage: its name with its options, or its name alone where the defaults will do.",
        "anyOf": [
            { "type": "object", "properties": entries, "additionalProperties": false, "minProperties": 1, "maxProperties": 1 },
            { "type": "string", "enum": names },
        ],
    });
    if let Some(list) = root.pointer_mut("/properties/stages").and_then(Json::as_object_mut) {
        list.insert("items".to_owned(), json!({ "$ref": "#/$defs/Stage" }));
    }
    admit_variables(&mut root);
    let mut stage = stage;
    admit_variables(&mut stage);
    if let Some(root) = root.as_object_mut() {
        let defs = root.entry("$defs").or_insert_with(|| json!({}));
        if let Some(defs) = defs.as_object_mut() {
            defs.insert("Stage".to_owned(), stage);
            let text = "A value from `vars` or the environment: `${name}`, `${NAME:-default}` or `${NAME:?message}`.";
            defs.insert("Variable".to_owned(), json!({ "description": text, "type": "string", "pattern": "\\$\\{" }));
        }
        root.insert("$id".to_owned(), ID.into());
        root.insert("title".to_owned(), "Feedline pipeline".into());
        for word in ["description", "title", "$id", "$schema"] {
            if let Some(value) = root.shift_remove(word) {
                root.shift_insert(0, word.to_owned(), value);
            }
        }
    }
    root
}

/// The JSON Schema of one stage's options, with the `$defs` it refers to.
pub fn stage_schema(def: &StageDef) -> Json {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = (def.schema)(&mut generator).to_value();
    if let Some(map) = schema.as_object_mut() {
        map.insert("$defs".to_owned(), Json::Object(generator.take_definitions(true)));
    }
    schema
}

/// The published file's text.
pub fn json_schema_text() -> String {
    let mut text = format!("{:#}", json_schema());
    text.push('\n');
    text
}

fn described(options: Json, def: &StageDef) -> Json {
    let text = format!("{}\n\n{}", def.summary, def.page.trim());
    match options {
        // `feedline stages NAME` prints the same page
        Json::Object(mut map) => {
            map.insert("description".to_owned(), text.into());
            Json::Object(map)
        }
        other => json!({ "allOf": [other], "description": text }),
    }
}

/// `threads` defaults to this machine's cores: a schema must be the same everywhere.
fn remove_machine_defaults(root: &mut Json) {
    for parent in ["/properties/resources", "/$defs/Resources/properties/threads"] {
        if let Some(schema) = root.pointer_mut(parent).and_then(Json::as_object_mut) {
            schema.remove("default");
        }
    }
}

/// An editor sees the spec before `${…}` is resolved, so wherever a value is no text it may be a variable as well.
fn admit_variables(schema: &mut Json) {
    let Some(map) = schema.as_object_mut() else {
        if let Some(list) = schema.as_array_mut() {
            list.iter_mut().for_each(admit_variables);
        }
        return;
    };
    for word in ["properties", "$defs"] {
        for (_, child) in map.get_mut(word).and_then(Json::as_object_mut).into_iter().flatten() {
            admit_variables(child);
            if word == "properties" {
                or_variable(child);
            }
        }
    }
    for word in ["items", "additionalProperties"] {
        if let Some(child) = map.get_mut(word) {
            admit_variables(child);
            or_variable(child);
        }
    }
    for word in ["anyOf", "oneOf", "allOf", "prefixItems"] {
        if let Some(child) = map.get_mut(word) {
            admit_variables(child);
        }
    }
}

/// Wraps the schema of a value that is not simply text. Constants (they tell alternatives apart), maps and references to them stay.
fn or_variable(schema: &mut Json) {
    let Some(map) = schema.as_object_mut() else { return };
    let types = match map.get("type") {
        Some(Json::String(one)) => vec![one.clone()],
        Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let plain_text = types.iter().any(|t| t == "string") && !map.contains_key("enum");
    let scalar = ["integer", "number", "boolean", "array"].iter().any(|w| types.iter().any(|t| t == w)) || map.contains_key("enum");
    let choice = map.contains_key("anyOf") || map.contains_key("oneOf") || map.contains_key("$ref");
    if plain_text || !(scalar || choice) || map.contains_key("const") {
        return;
    }
    let mut outer = Map::new();
    let mut inner = std::mem::take(map);
    for word in ["title", "description", "default"] {
        if let Some(value) = inner.shift_remove(word) {
            outer.insert(word.to_owned(), value);
        }
    }
    // one `$ref` alone needs no company of its own
    outer.insert("anyOf".to_owned(), json!([Json::Object(inner), { "$ref": "#/$defs/Variable" }]));
    *map = outer;
}
