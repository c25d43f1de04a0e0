//! The loader from the outside, with a small registry of its own.

use proptest::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;

use super::*;
use crate::stages::step::{Scope, Step};
use crate::stages::{StageContext, def};

/// Options of the test stages, with every shape that real ones have.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Dedup {
    /// Columns that make two rows the same. More text.
    #[schemars(length(min = 1))]
    keys: Vec<String>,
    /// Which row stays.
    #[serde(default)]
    keep: Keep,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Keep {
    /// The first.
    #[default]
    First,
    /// The last.
    Last,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Clean {
    /// Column to filling.
    #[serde(default)]
    fill_null: indexmap::IndexMap<String, Fill>,
    /// Column to rule.
    #[serde(default)]
    outliers: indexmap::IndexMap<String, Outlier>,
    /// Which rows it learns from.
    #[serde(default)]
    fit_on: Option<Scope>,
}

/// A way of filling, or a value.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)]
enum Fill {
    Way(Way),
    Number(f64),
    Text { text: String },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Way {
    /// The mean.
    Mean,
    /// The median.
    Median,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
#[allow(dead_code)]
enum Outlier {
    Zscore {
        #[schemars(range(min = 0.5))]
        threshold: f64,
    },
    Iqr {
        factor: f64,
    },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Shuffle {
    /// Another seed.
    #[serde(default)]
    seed: u64,
}

macro_rules! inert {
    ($($t:ty),*) => { $(impl Stage for $t {
        fn lower(&self, _: &StageContext<'_>) -> Result<Vec<Step>, Vec<Mistake>> {
            Ok(Vec::new())
        }
    })* };
}
inert!(Dedup, Clean, Shuffle);

static TEST: &[StageDef] = &[
    def::<Dedup>("dedup", "Keeps one of equal rows.", "Keeps one of equal rows."),
    def::<Clean>("clean", "Fills and mends.", "Fills and mends."),
    def::<Shuffle>("shuffle", "Another order.", "Another order."),
];

const GOOD: &str = r#"# a comment
apiVersion: feedline/v1
name: flights
vars: { raw: data/flights, out: out/flights, keys: [carrier, flight], threads: 2, deep: "${raw}/deep" }
sources:
  flights: { uri: "${raw}/**/*.parquet", on_bad_shard: quarantine }
  planes: { uri: "${deep}/planes.parquet" }
stages:
  - dedup: { keys: "${keys}", keep: last }
  - clean:
      fill_null: { air_time: median, dep_delay: 0, tail: { text: none } }
      outliers: { arr_delay: { method: zscore, threshold: 4 } }
  - shuffle
  - dedup: { keys: [tailnum] }
sink: { uri: "${out}", shard_bytes: 64MiB }
feed: { batch_rows: 1024, features: [dep_delay], label: delayed }
resources: { memory: "${MEMORY:-1GiB}", threads: "${threads}" }
seed: ${SEED:-7}
"#;

fn no_env(_: &str) -> Option<String> {
    None
}

fn load_text(text: &str) -> std::result::Result<Loaded, SpecErrors> {
    load_with(TEST, text, "pipeline.yaml", &[], &no_env)
}

fn load_set(text: &str, set: &[(&str, &str)]) -> std::result::Result<Loaded, SpecErrors> {
    let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    load_with(TEST, text, "pipeline.yaml", &set, &no_env)
}

fn complaints(text: &str) -> String {
    load_text(text).expect_err("the spec is wrong").plain()
}

/// A minimal spec, for tests about a few lines that follow.
const HEAD: &str = "apiVersion: feedline/v1\nname: t\nsources: { a: { uri: in/*.parquet } }\nsink: { uri: out }\n";

#[test]
fn a_good_spec_loads_with_its_types() {
    let loaded = load_text(GOOD).unwrap_or_else(|e| panic!("{e}"));
    let labels: Vec<_> = loaded.stages.iter().map(|s| (s.label.as_str(), s.pointer.as_str())).collect();
    let wanted =
        [("dedup", "/stages/0/dedup"), ("clean", "/stages/1/clean"), ("shuffle", "/stages/2/shuffle"), ("dedup#2", "/stages/3/dedup")];
    assert_eq!(labels, wanted);
    assert_eq!(loaded.pipeline.seed, 7);
    assert_eq!(loaded.pipeline.resources.threads, 2);
    assert_eq!(loaded.pipeline.resources.memory.as_u64(), 1 << 30);
    assert_eq!(loaded.pipeline.sources["planes"].uri, "data/flights/deep/planes.parquet");
    assert_eq!(loaded.resolved.pointer("/stages/0/dedup/keys").unwrap(), &serde_json::json!(["carrier", "flight"]));
    assert_eq!(loaded.resolved.pointer("/vars/deep").unwrap(), "data/flights/deep");
    assert_eq!(loaded.source.line_col("/stages/1/clean/fill_null/dep_delay"), Some((11, 49)));
    // a pointer that does not exist stands for its nearest parent; the line is the key's, because the value is long
    assert_eq!(loaded.source.line_col("/stages/1/clean/outliers/arr_delay/nope/0"), Some((12, 19)));
    assert_eq!(loaded.source.line_col("/stages/2/shuffle"), Some((13, 5)));
}

#[test]
fn planning_reports_through_the_source() {
    let loaded = load_text(GOOD).unwrap();
    let mistakes = vec![
        Mistake::new("/stages/1/clean/fill_null/air_time", "no column `air_time` reaches this stage").help("did you mean `airtime`?"),
        Mistake::new("/stages/3/dedup/keys/0", "no column `tailnum` reaches this stage"),
    ];
    insta::assert_snapshot!(loaded.source.errors(mistakes).fancy(false));
}

#[test]
fn unknown_keys_are_all_reported_with_the_nearest() {
    let text = "apiVersion: feedline/v1\nname: t\nsource: { a: { uri: x } }\nsources:\n  a: { url: in/*.parquet, uri: in/*.parquet }\nsink: { uri: out, shardbytes: 1MiB }\n\
                contract: c.yaml\nstages:\n  - dedup: { key: [a], keys: [a] }\n  - clean: { outliers: { x: { method: zscore, treshold: 4 } } }\n";
    insta::assert_snapshot!(load_text(text).unwrap_err().fancy(false));
    insta::assert_snapshot!(complaints(text));
}

#[test]
fn wrong_types_ranges_and_values() {
    let text = "apiVersion: feedline/v2\nname: [t]\nsources:\n  a: { uri: 5, hive: yes, on_bad_shard: skipp, columns: { x: integer } }\n\
                sink: { uri: out, shard_bytes: 12 apples, compression: gzip, compression_level: 99, row_group_rows: 0 }\n\
                feed: { batch_rows: abc, features: dep_delay, drop_last: 1 }\nresources:\nseed: -1\n\
                stages:\n  - dedup: { keys: id, keep: lsat }\n  - dedup: { keys: [] }\n  - clean:\n      fill_null: { a: medain, b: [1], c: { txt: x } }\n\
                \x20     outliers: { x: { method: zscor, threshold: 4 }, y: { method: iqr }, z: { method: zscore, threshold: 0.1 }, w: zscore }\n\
                \x20     fit_on: test\n  - shuffle: { seed: 1.5 }\n";
    insta::assert_snapshot!(complaints(text));
}

#[test]
fn stages_that_are_none() {
    let text = format!(
        "{HEAD}stages:\n  - deduplicate: {{ keys: [a] }}\n  - dedupe\n  - dedup\n  - {{ dedup: {{ keys: [a] }}, clean: {{}} }}\n  - dedup:\n    keys: [a]\n  - {{}}\n  - [dedup]\n  - 5\n"
    );
    insta::assert_snapshot!(complaints(&text));
    insta::assert_snapshot!(complaints(&format!("{HEAD}stages: {{ dedup: {{ keys: [a] }} }}\n")));
}

#[test]
fn texts_that_are_no_spec() {
    insta::assert_snapshot!(
        [
            "",
            "# nothing\n",
            "- a\n- b\n",
            "hello",
            "a: [1, 2\nb: 3\n",
            "a:\n\t- b\n",
            "---\na: 1\n---\nb: 2\n",
            "{}",
            "? [a]\n: 1\n",
            "\u{feff}"
        ]
        .map(|text| format!("{text:?}\n{}", complaints(text)))
        .join("\n")
    );
    insta::assert_snapshot!(load_text("- dedup: { keys: [a] }\n- clean\n").unwrap_err().fancy(false));
}

#[test]
fn duplicate_keys_name_both_lines() {
    let text = format!("{HEAD}seed: 1\nfeed:\n  batch_rows: 3\n  batch_rows: 4\nseed: 2\n");
    insta::assert_snapshot!(load_text(&text).unwrap_err().fancy(false));
}

#[test]
fn bombs_are_stopped_while_they_unfold() {
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for i in 1..12 {
        let before = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs.push_str(&format!("a{i}: &a{i} [{before}]\n"));
    }
    let variables: String = (1..40).map(|i| format!("  v{i}: \"${{v{}}}${{v{}}}\"\n", i - 1, i - 1)).collect();
    let variables = format!("{HEAD}vars:\n  v0: xxxxxxxxxxxxxxxx\n{variables}name2: x\n");
    let lists: String = (1..40).map(|i| format!("  v{i}: [\"${{v{}}}\", \"${{v{}}}\"]\n", i - 1, i - 1)).collect();
    let lists = format!("{HEAD}vars:\n  v0: [x]\n{lists}");
    let chain: String = (0..5000).map(|i| format!("  v{i}: \"${{v{}}}\"\n", i + 1)).collect();
    let chain = format!("{HEAD}vars:\n{chain}");
    let deep = "[".repeat(5000);
    let nested = format!("{HEAD}description: \"{}\"\n", "${a:-".repeat(5000));
    let all = [laughs.as_str(), &variables, &lists, &chain, &deep, &nested];
    let first = |text: &str| complaints(text).lines().take(2).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(all.map(first).join("\n"));
    assert!(complaints(&"x".repeat(2 << 20)).contains("larger than 1 MiB"));
}

#[test]
fn variables_that_fail() {
    let text = format!(
        "{HEAD}vars: {{ a: \"${{b}}\", b: \"x${{c}}\", c: \"${{a}}\", list: [1], raw: data }}\n\
         description: \"${{rwa}} and ${{list}}\"\nfeed: {{ label: \"${{LABEL:?name the column to learn}}\" }}\n\
         seed: \"${{\"\nreport: {{ label: \"${{a b}}\" }}\n"
    );
    insta::assert_snapshot!(load_text(&text).unwrap_err().fancy(false));
}

#[test]
fn variables_take_the_type_that_is_asked_for() {
    let env = |name: &str| match name {
        "NAME" => Some("007".to_owned()),
        "ROWS" => Some("64".to_owned()),
        "YES" => Some("true".to_owned()),
        "EMPTY" => Some(String::new()),
        "raw" => Some("from the environment".to_owned()),
        _ => None,
    };
    let text = "apiVersion: feedline/v1\nname: ${NAME}\nvars: { raw: in, n: 3, none: null }\nsources: { a: { uri: \"${raw}/*.parquet\", hive: \"${YES}\" } }\n\
                sink: { uri: out }\ndescription: \"$${raw} costs $5, ${n}$${n} ${EMPTY:-${none:-nothing}} $\"\nfeed: { batch_rows: \"${ROWS}\" }\nseed: \"${n}\"\n\
                stages:\n  - clean: { fill_null: { a: \"${ZERO:-0}\", b: \"${WAY:-mean}\" } }\n";
    let loaded = load_with(TEST, text, "p", &[], &env).unwrap_or_else(|e| panic!("{e}"));
    let p = &loaded.pipeline;
    assert_eq!((p.name.as_str(), p.sources["a"].uri.as_str(), p.seed), ("007", "in/*.parquet", 3));
    assert_eq!(p.description.as_deref(), Some("${raw} costs $5, 3${n} nothing $"));
    assert_eq!(p.feed.as_ref().unwrap().batch_rows, 64);
    assert_eq!(loaded.resolved.pointer("/stages/0/clean/fill_null/a"), Some(&serde_json::json!(0)));
}

#[test]
fn overrides_reach_every_place() {
    let set = [
        ("vars.raw", "s3://bucket/x"),
        ("stages.0.dedup.keep", "first"),
        ("stages.2.shuffle.seed", "5"),
        ("stages.4", "{ dedup: { keys: [x] } }"),
        ("feed.columns", "[a, b]"),
        ("stages.1.clean.fill_null.\"a.b\"", "1"),
        ("report.profile", "sample"),
    ];
    let loaded = load_set(GOOD, &set).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(loaded.pipeline.sources["flights"].uri, "s3://bucket/x/**/*.parquet");
    assert_eq!(loaded.resolved.pointer("/stages/0/dedup/keep").unwrap(), "first");
    assert_eq!(loaded.resolved.pointer("/stages/2/shuffle/seed").unwrap(), 5);
    assert_eq!(loaded.resolved.pointer("/stages/1/clean/fill_null/a.b").unwrap(), 1);
    assert_eq!(loaded.stages[4].label, "dedup#3");
    let wrong = [
        ("stages.0.dedup.keep", "lsat"),
        ("stages.9.x", "1"),
        ("feed.batch_rwos", "1"),
        ("name.x", "1"),
        ("a..b", "1"),
        ("seed", "[1"),
        ("resources.threads", "many"),
    ];
    insta::assert_snapshot!(load_set(GOOD, &wrong).unwrap_err().fancy(false));
}

#[test]
fn meaning_is_checked_too() {
    let text = "apiVersion: feedline/v1\nname: my pipeline\nsources: { 1a: { uri: \"out/**/*.parquet\" }, b: { uri: \"\", delimiter: ü } }\nsink: { uri: out/x, shard_bytes: 0 }\n\
                stages: [shuffle]\nfeed: { features: [x, y, x], label: y }\n\
                tests:\n  - { name: one, given: { c: [] }, expect: { rejected: { shufle: 1 } } }\n  - { name: one, given: {}, expect: {} }\n";
    insta::assert_snapshot!(complaints(text));
    assert!(complaints("apiVersion: feedline/v1\nname: t\nsources: {}\nsink: { uri: out }\n").contains("there is no source"));
}

#[test]
fn canonical_is_what_shapes_the_data() {
    let of = |text: &str, set: &[(&str, &str)]| canonical(&load_set(text, set).unwrap_or_else(|e| panic!("{e}")).pipeline);
    let base = of(GOOD, &[]);
    let same: &[(&str, &str)] = &[
        ("sink.shard_bytes", "67108864"),
        ("vars.raw", "elsewhere"),
        ("vars.out", "there"),
        ("resources.threads", "64"),
        ("name", "other"),
        ("sources.flights.on_bad_shard", "skip"),
        ("stages.2", "{ shuffle: {} }"),
        ("quarantine.keep_rows", "true"),
        ("feed.batch_rows", "1"),
    ];
    for (path, value) in same {
        assert_eq!(of(GOOD, &[(path, value)]), base, "{path} does not shape the data");
    }
    let other: &[(&str, &str)] = &[
        ("seed", "8"),
        ("sink.compression", "lz4"),
        ("sink.shard_bytes", "65MiB"),
        ("stages.0.dedup.keep", "first"),
        ("sources.flights.hive", "false"),
        ("stages.1.clean.fill_null", "{ dep_delay: 0, air_time: median, tail: { text: none } }"),
    ];
    for (path, value) in other {
        let changed = of(GOOD, &[(path, value)]);
        assert_ne!(crate::dataset::manifest::hash_json(&changed), crate::dataset::manifest::hash_json(&base), "{path} shapes the data");
    }
}

#[test]
fn the_published_schema_is_fresh() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(SCHEMA_FILE);
    let wanted = json_schema_text();
    if std::env::var_os("FEEDLINE_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{SCHEMA_FILE} is stale: run `cargo run -- schema > {SCHEMA_FILE}`, or this test with FEEDLINE_BLESS=1");
}

#[test]
fn the_schema_names_stages_and_admits_variables() {
    let schema = schema::json_schema_of(TEST);
    let stage = schema.pointer("/$defs/Stage/anyOf/0/properties").unwrap();
    assert_eq!(stage.as_object().unwrap().keys().collect::<Vec<_>>(), ["dedup", "clean", "shuffle"]);
    assert!(!schema.to_string().contains("available_parallelism"));
    // `threads` is a number or a variable, and has no default of this machine
    let threads = schema.pointer("/$defs/Resources/properties/threads").unwrap();
    assert_eq!(threads.pointer("/anyOf/0/type").unwrap(), "integer");
    assert_eq!(threads.pointer("/anyOf/1/$ref").unwrap(), "#/$defs/Variable");
    assert_eq!(threads.get("default"), None);
    // every reference has a target
    fn references(value: &serde_json::Value, out: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                out.extend(map.get("$ref").and_then(|r| r.as_str()).map(str::to_owned));
                map.values().for_each(|v| references(v, out));
            }
            serde_json::Value::Array(list) => list.iter().for_each(|v| references(v, out)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&schema, &mut found);
    assert!(found.len() > 20);
    for reference in found {
        assert!(schema.pointer(&reference[1..]).is_some(), "{reference} leads nowhere");
    }
}

/// The YAML blocks of a stage's page as lists of stages; other YAML (sources, say) is left out.
fn examples(page: &str) -> Vec<String> {
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let stages = |block: &str| match block.trim_start() {
        b if b.starts_with("- ") => Some(block.to_owned()),
        b => b
            .split_once("stages:\n")
            .map(|(_, list)| list.lines().take_while(|l| l.starts_with([' ', '-'])).map(|l| format!("{l}\n")).collect()),
    };
    blocks.filter_map(stages).collect()
}

#[test]
fn every_stages_page_has_an_example_that_loads() {
    for def in REGISTRY {
        let examples = examples(def.page);
        assert!(examples.iter().any(|e| e.contains(&format!("- {}", def.name))), "the page of `{}` has no example", def.name);
        for example in examples {
            let text = format!("{HEAD}stages:\n{example}");
            if let Err(e) = load(&text, def.name, &[], &no_env) {
                panic!("an example on the page of `{}` is wrong:\n{e}\n{text}", def.name);
            }
        }
    }
}

#[test]
fn examples_are_found_in_pages() {
    let page = "Text.\n```yaml\n- a: { x: 1 }\n```\n```yaml\nsources: {}\nstages:\n  - b: {}\n  - c\nsink: {}\n```\n```yaml\nvars: {}\n```";
    assert_eq!(examples(page), ["- a: { x: 1 }\n", "  - b: {}\n  - c\n"]);
}

/// Bytes that YAML, variables and paths care about.
const SALT: &[&str] = &[
    "${", "}", "$${", ":-", ":?", "*a", "&a", "<<:", "[", "]", "{", "}", "- ", "\n", "\t", "'", "\"", "|", ">", "#", "~", "0x", "1e999",
    "ü", "\u{0}", "---", "!!str", "? ",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_is_a_panic(text in "\\PC{0,200}") {
        if let Err(e) = load_text(&text) {
            prop_assert!(e.count() > 0);
            prop_assert!(!e.fancy(false).is_empty() && !e.plain().is_empty());
        }
    }

    #[test]
    fn no_mutation_is_a_panic(cuts in proptest::collection::vec((0usize..1200, 0usize..6, 0usize..SALT.len()), 1..6)) {
        let mut text = GOOD.to_owned();
        for (at, remove, salt) in cuts {
            let start = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
            let end = (start + remove.min(text.len() - start)..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(start);
            text.replace_range(start..end, SALT[salt]);
        }
        if let Err(e) = load_text(&text) {
            prop_assert!(e.count() > 0);
            prop_assert!(!e.fancy(true).is_empty() && !e.plain().is_empty());
        }
    }

    #[test]
    fn no_override_is_a_panic(path in "[a-z.0-9\"]{0,20}", value in "\\PC{0,40}") {
        let _ = load_set(GOOD, &[(&path, &value)]).map_err(|e| e.fancy(false));
    }
}

/// A manifest keeps a resolved spec as JSON: what comes back is the same, whatever its texts look like.
#[test]
fn a_resolved_spec_is_loaded_as_it_is() {
    let set = [("description".to_owned(), "\"$${HOME} \\u007f \\u0001 : *a\"".to_owned()), ("vars.\u{7f}".to_owned(), "'1'".to_owned())];
    let text = "apiVersion: feedline/v1\nname: x\nsources: { s: { uri: a } }\nstages: []\nsink: { uri: b }\n";
    let loaded = load(text, "p", &set, &no_env).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(loaded.resolved["description"], "${HOME} \u{7f} \u{1} : *a");
    let again = reload(&loaded.resolved, "the manifest", &[]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again.resolved, loaded.resolved);
    let e = reload(&serde_json::json!({ "name": "x", "sources": 5 }), "the manifest", &[]).unwrap_err();
    assert!(e.plain().starts_with("the manifest:"), "{e}");
}
