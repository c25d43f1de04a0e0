//! What each fuzz target does with its bytes. None of them may panic, hang, or use memory out of proportion; some check more.

pub mod seeds;

use std::path::Path;
use std::sync::LazyLock;

use feedline::crypt::{FileKeys, Vault};
use feedline::dataset::Manifest;
use feedline::dataset::diff::Diff;
use feedline::feed::{FeedState, spec_of};
use feedline::quality::html;
use feedline::quality::report::Report;
use feedline::source::{Source, discover, ingest::ingest};
use feedline::spec;
use feedline::spec::pipeline::SourceSpec;
use tokio::runtime::Runtime;

/// A target's work.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("spec", spec),
    ("overrides", overrides),
    ("csv", csv),
    ("jsonl", jsonl),
    ("arrow_ipc", arrow_ipc),
    ("parquet", parquet),
    ("manifest", manifest),
    ("state", state),
    ("report", report),
];

/// An environment that answers some names, one of them with what looks like a variable.
fn env(name: &str) -> Option<String> {
    match name {
        "HOME" => Some("/home/someone".to_owned()),
        "ODD" => Some("${HOME} $${x} : [".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

/// A spec's mistakes in every form; a spec that is right survives being kept in a manifest.
fn load(text: &str, set: &[(String, String)]) {
    match spec::load(text, "fuzz.yaml", set, &env) {
        Err(errors) => {
            assert!(errors.count() > 0);
            let (plain, json, fancy) = (errors.plain(), errors.to_json(), errors.fancy(false));
            assert!(!plain.is_empty() && !fancy.is_empty());
            assert_eq!(json.as_array().map(Vec::len), Some(errors.count()));
        }
        Ok(loaded) => {
            let _ = spec::canonical(&loaded.pipeline);
            match spec::reload(&loaded.resolved, "resolved", &[]) {
                Ok(again) => assert_eq!(again.resolved, loaded.resolved),
                Err(errors) => panic!("{}\n{}", loaded.resolved, errors.plain()),
            }
        }
    }
}

/// A spec's text.
pub fn spec(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        load(text, &[]);
    }
}

/// Values given beside a spec: a line each, `path=value`.
pub fn overrides(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let set: Vec<_> = text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    load(seeds::SPEC, &set);
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().unwrap());
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// Opens a file as `validate` does: of Parquet the footer, of other formats the first records.
fn read(data: &[u8], name: &str, options: serde_json::Value) {
    let mut spec = serde_json::json!({ "uri": name });
    if let (Some(spec), Some(options)) = (spec.as_object_mut(), options.as_object()) {
        spec.extend(options.clone());
    }
    let spec: SourceSpec = serde_json::from_value(spec).unwrap();
    let folder: &Path = FOLDER.path();
    std::fs::write(folder.join(name), data).unwrap();
    let shard = RUNTIME.block_on(async {
        let found = discover("fuzz", &spec, folder, &Default::default()).await?.remove(0);
        ingest(&found, &spec, None, &FileKeys::default(), &Vault::default()).await
    });
    match shard {
        Ok(shard) => {
            let rows = shard.rows;
            if let Ok(source) = Source::new("fuzz", &spec, vec![shard], Vec::new()) {
                let units = std::sync::Arc::new(source).units(0, 0);
                assert_eq!(units.iter().map(|u| u64::from(u.rows)).sum::<u64>(), rows);
            }
        }
        // A panic is caught and told of as damage. What reads text is Feedline's own and has no reason to; the libraries of the others have.
        Err(e) => assert!(!e.message().contains("its reader gave up") || name.contains("arrow") || name.contains("parquet"), "{e}"),
    }
}

/// A CSV file; the first byte chooses how it is read.
pub fn csv(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    let delimiter = [",", ";", "\t", "|"][usize::from(how & 3)];
    let mut options = serde_json::json!({ "delimiter": delimiter, "header": how & 4 == 0 });
    if how & 8 != 0 {
        options["columns"] = serde_json::json!({ "a": "int64", "b": "utf8", "c": "timestamp" });
    }
    read(data, if how & 16 == 0 { "fuzz.csv" } else { "fuzz.csv.gz" }, options);
}

/// A JSON Lines file; the first byte chooses how it is read.
pub fn jsonl(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    let options = if how & 1 == 0 { serde_json::json!({}) } else { serde_json::json!({ "columns": { "a": "float64", "b": "date" } }) };
    let name = match how & 6 {
        2 => "fuzz.jsonl.gz",
        4 => "fuzz.jsonl.zst",
        _ => "fuzz.jsonl",
    };
    read(data, name, options);
}

/// An Arrow IPC file or stream.
pub fn arrow_ipc(data: &[u8]) {
    read(data, "fuzz.arrow", serde_json::json!({}));
}

/// A Parquet file, as far as it is opened.
pub fn parquet(data: &[u8]) {
    read(data, "fuzz.parquet", serde_json::json!({}));
}

/// A manifest, and what readers do with it first.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(data) else { return };
    let _ = manifest.content_hash();
    let _ = spec_of(&manifest);
    assert!(Diff::of(&manifest, &manifest).to_string().len() < 1 << 20);
    let again: Manifest = serde_json::from_value(serde_json::to_value(&manifest).unwrap()).unwrap();
    assert_eq!(again.content_hash().ok(), manifest.content_hash().ok());
}

/// Where a feed stands.
pub fn state(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(state) = FeedState::from_json(text) {
        assert_eq!(FeedState::from_json(&state.to_json().unwrap()).unwrap(), state);
        let _ = state.next_epoch();
    }
}

/// A report, and its page.
pub fn report(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(report) = Report::from_json(text) {
        let page = html::render(&report);
        assert!(!page.contains("<script>alert"), "a value became markup");
        let _ = (report.to_string(), report.to_json_pretty(), report.find_warnings());
    }
}
