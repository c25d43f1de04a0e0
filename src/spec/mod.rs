//! YAML to a typed [`Pipeline`]. No I/O.
//!
//! ```text
//!  text ─ yaml ─▶ tree with places ─ overrides ─ variables ─▶ tree ─ check (JSON Schema) ─▶ typed Pipeline + stages ─ semantic ─▶ Loaded
//!                    └───────────── every step adds its mistakes; they are reported together, each at its place ─────────────┘
//! ```
//!
//! Every mistake is found at once, with two exceptions: after a YAML syntax error nothing more is read, and what is wrong with
//! columns is found later, by planning, which reports through the same [`SpecSource`].

mod canonical;
mod check;
mod overrides;
pub mod pipeline;
mod schema;
mod secrets;
mod semantic;
mod source;
pub mod stores;
#[cfg(test)]
mod tests;
mod tree;
mod variables;
mod yaml;

pub use canonical::canonical;
pub use pipeline::Pipeline;
pub use schema::{SCHEMA_FILE, json_schema, json_schema_text, stage_schema};
pub use source::{SpecErrors, SpecSource};

use crate::error::{Mistake, nearest};
use crate::stages::{REGISTRY, Stage, StageDef};
use check::Checker;
use schema::Schemas;
pub(crate) use tree::join;
use tree::{Budget, Flaw, Node, Place, Value};

/// A spec that is right as far as it can be known without data.
#[derive(Debug)]
pub struct Loaded {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// Its stages, in order.
    pub stages: Vec<ParsedStage>,
    /// The spec with variables resolved and overrides applied, as JSON. It may hold what came from the environment.
    pub resolved: serde_json::Value,
    /// Where everything was written, for mistakes that planning finds.
    pub source: SpecSource,
}

/// One stage of a pipeline.
pub struct ParsedStage {
    /// The stage's name; `name#2` for the second of that name.
    pub label: String,
    /// What it is.
    pub def: &'static StageDef,
    /// The stage with its options.
    pub stage: Box<dyn Stage>,
    /// JSON pointer to its options, for example `/stages/2/dedup`.
    pub pointer: String,
}

impl std::fmt::Debug for ParsedStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}: {:?}", self.label, self.pointer, self.stage)
    }
}

/// Loads a spec.
///
/// `name` is the file's name in messages. `overrides` are pairs of a dotted path (`vars.raw`, `stages.2.dedup.keep`) and a YAML value.
/// `env` gives environment variables. Errors hold every mistake at once.
pub fn load(
    text: &str,
    name: &str,
    overrides: &[(String, String)],
    env: &dyn Fn(&str) -> Option<String>,
) -> std::result::Result<Loaded, SpecErrors> {
    load_with(REGISTRY, text, name, overrides, env)
}

/// Loads what [`Loaded::resolved`] kept, for example in a manifest: its variables are resolved already, and `${…}` in it or in an override is text.
/// Errors hold every mistake at once.
pub fn reload(resolved: &serde_json::Value, name: &str, overrides: &[(String, String)]) -> std::result::Result<Loaded, SpecErrors> {
    // Not by way of text: JSON holds characters that YAML does not.
    settle(REGISTRY, SpecSource::new(name, &resolved.to_string()), Node::from(resolved), Budget::default(), Vec::new(), overrides, None)
}

/// Gives the value of an environment variable.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// [`load`] with the stages given.
pub(crate) fn load_with(
    registry: &'static [StageDef],
    text: &str,
    name: &str,
    overrides: &[(String, String)],
    env: Env<'_>,
) -> std::result::Result<Loaded, SpecErrors> {
    let source = SpecSource::new(name, text);
    let mut budget = Budget::default();
    let parsed = yaml::parse(text, 0, 0, &mut budget);
    let mut flaws = parsed.flaws;
    let Some(root) = parsed.root else {
        if flaws.is_empty() {
            flaws.push(Flaw::new(Place::default(), Mistake::new("", "the spec is empty").help(BEGIN)));
        }
        return Err(SpecErrors::new(source, flaws));
    };
    settle(registry, source, root, budget, flaws, overrides, Some(env))
}

/// A tree to a spec. Without an environment, `${…}` is text.
fn settle(
    registry: &'static [StageDef],
    mut source: SpecSource,
    mut root: Node,
    mut budget: Budget,
    mut flaws: Vec<Flaw>,
    overrides: &[(String, String)],
    env: Option<Env<'_>>,
) -> std::result::Result<Loaded, SpecErrors> {
    if !matches!(root.value, Value::Map(_)) {
        let message = format!("a spec is a map of keys such as `sources`, `stages` and `sink`, but this is {}", root.words());
        flaws.push(Flaw::new(root.at, Mistake::new("", message).help(BEGIN)));
        return Err(SpecErrors::new(source, flaws));
    }
    overrides::apply(&mut root, overrides, &mut source, &mut budget, &mut flaws);
    if let Some(env) = env {
        variables::resolve(&mut root, env, &mut budget, &mut flaws);
    }
    secrets::refuse(&mut root, &mut source, &mut flaws);
    let schemas = schema::schemas(registry);
    let (stages, mut mistakes) = check_all(registry, &schemas, &mut root);
    source.index(&root);
    // Only a tree without flaws can be trusted to mean what it says.
    let mut pipeline = None;
    if mistakes.is_empty() && flaws.is_empty() {
        match serde_json::from_value::<Pipeline>(root.to_json()) {
            Ok(typed) => {
                let labels: Vec<String> = stages.iter().map(|s| s.label.clone()).collect();
                mistakes.extend(semantic::check(&typed, &labels));
                pipeline = Some(typed);
            }
            Err(e) => mistakes.push(Mistake::new("", e.to_string())),
        }
    }
    match pipeline {
        Some(pipeline) if mistakes.is_empty() => Ok(Loaded { pipeline, stages, resolved: root.to_json(), source }),
        _ => {
            let errors = source.errors(mistakes);
            Err(errors.with(flaws))
        }
    }
}

const BEGIN: &str = "a spec begins with `apiVersion: feedline/v1`; `feedline quickstart` writes one to start from";

/// Checks the tree against the schemas and parses the stages.
fn check_all(registry: &'static [StageDef], schemas: &Schemas, root: &mut Node) -> (Vec<ParsedStage>, Vec<Mistake>) {
    let checker = Checker::new(&schemas.root);
    let mut mistakes = Vec::new();
    checker.check(&schemas.root, root, "", &mut mistakes);
    let mut stages = Vec::new();
    let Value::Map(map) = &mut root.value else { return (stages, mistakes) };
    let Some(Node { value: Value::List(items), .. }) = map.get_mut("stages") else { return (stages, mistakes) };
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for (i, item) in items.iter_mut().enumerate() {
        let mut found = Vec::new();
        if let Some((index, pointer, stage)) = check_stage(registry, schemas, &checker, item, i, &mut found) {
            let def = &registry[index];
            let count = seen.entry(def.name).and_modify(|n| *n += 1).or_insert(1);
            let label = if *count == 1 { def.name.to_owned() } else { format!("{}#{count}", def.name) };
            stages.push(ParsedStage { label, def, stage, pointer });
        }
        mistakes.append(&mut found);
    }
    (stages, mistakes)
}

/// One entry of `stages`: which stage it is, the pointer to its options, and the stage; or mistakes.
fn check_stage(
    registry: &'static [StageDef],
    schemas: &Schemas,
    checker: &Checker<'_>,
    item: &mut Node,
    number: usize,
    out: &mut Vec<Mistake>,
) -> Option<(usize, String, Box<dyn Stage>)> {
    let at = format!("/stages/{number}");
    let item_at = item.at;
    let mut no_options = Node::new(Value::Map(Default::default()), item_at);
    let (name, options) = match &mut item.value {
        Value::Broken => return None,
        Value::Text(name) => (name.clone(), &mut no_options),
        Value::Map(map) if map.len() == 1 => {
            let (name, options) = map.iter_mut().next()?;
            // `- shuffle:` without options is `- shuffle: {}`
            let options = if matches!(options.value, Value::Null) { &mut no_options } else { options };
            (name.clone(), options)
        }
        Value::Map(map) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            out.push(not_one_key(registry, &at, &keys));
            return None;
        }
        _ => {
            let message = format!("expected a stage, found {}", item.words());
            out.push(Mistake::new(at, message).help("an entry is a stage's name with its options, for example `- dedup: { keys: [id] }`"));
            return None;
        }
    };
    let pointer = join(&at, &name);
    let Some(index) = registry.iter().position(|d| d.name == name) else {
        let place = if matches!(item.value, Value::Text(_)) { at } else { pointer };
        out.push(Mistake::new(place, format!("there is no stage `{name}`")).help(nearest(&name, registry.iter().map(|d| d.name))));
        return None;
    };
    checker.check(schemas.stages.get(index)?, options, &pointer, out);
    if !out.is_empty() || has_broken(options) {
        return None;
    }
    match (registry[index].parse)(options.to_json()) {
        Ok(stage) => Some((index, pointer, stage)),
        Err(mistake) => {
            out.push(mistake.under(&pointer));
            None
        }
    }
}

fn has_broken(node: &Node) -> bool {
    let mut broken = false;
    node.walk("", &mut |_, n| broken |= matches!(n.value, Value::Broken));
    broken
}

fn not_one_key(registry: &[StageDef], at: &str, keys: &[String]) -> Mistake {
    let known = |key: &String| registry.iter().any(|d| d.name == key);
    match keys {
        [] => Mistake::new(at, "this entry of `stages` is empty")
            .help("an entry is a stage's name with its options, for example `- dedup: { keys: [id] }`"),
        [first, rest @ ..] if known(first) && !rest.iter().any(known) => {
            let names: Vec<String> = rest.iter().map(|k| format!("`{k}`")).collect();
            Mistake::new(
                at,
                format!("an entry of `stages` has one key, the stage's name; beside `{first}` this one has {}", names.join(", ")),
            )
            .help(format!("indent options further than `{first}:`, or write `{first}: {{ … }}`"))
        }
        keys => {
            let names: Vec<String> = keys.iter().take(8).map(|k| format!("`{k}`")).collect();
            Mistake::new(
                at,
                format!("an entry of `stages` has one key, the stage's name; this one has {}: {}", keys.len(), names.join(", ")),
            )
            .help("begin each stage with a `-` of its own")
        }
    }
}
