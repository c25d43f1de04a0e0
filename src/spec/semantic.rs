//! What a schema cannot say: names, references within the spec, and places that exclude each other.

use std::collections::BTreeSet;

use globset::GlobBuilder;

use super::Pipeline;
use super::pipeline::Format;
use super::tree::join;
use crate::error::{Mistake, nearest};
use crate::storage::{is_registered, uri};

/// Every such mistake, without any I/O. `labels` are the stages'.
pub(crate) fn check(pipeline: &Pipeline, labels: &[String]) -> Vec<Mistake> {
    let mut out = Vec::new();
    check_names(pipeline, &mut out);
    check_sink(pipeline, &mut out);
    check_stores(pipeline, &mut out);
    check_feed(pipeline, &mut out);
    check_tests(pipeline, labels, &mut out);
    out
}

fn check_names(pipeline: &Pipeline, out: &mut Vec<Mistake>) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if pipeline.name.is_empty() || !pipeline.name.chars().all(allowed) {
        out.push(Mistake::new("/name", format!("`{}` is not a pipeline's name", pipeline.name)).help("use letters, digits, `-` and `_`"));
    }
    if pipeline.sources.is_empty() {
        out.push(Mistake::new("/sources", "there is no source").help("for example `sources: { flights: { uri: \"data/*.parquet\" } }`"));
    }
    for name in pipeline.sources.keys() {
        let first = name.chars().next();
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_') || !name.chars().all(word) {
            let help = "use letters, digits and `_`, a letter first: it is a table's name in SQL";
            out.push(Mistake::new(join("/sources", name), format!("`{name}` is not a source's name")).help(help));
        }
    }
    for (name, source) in &pipeline.sources {
        if source.uri.trim().is_empty() {
            out.push(Mistake::new(join(&join("/sources", name), "uri"), "this location is empty").help("name a file, a folder or a glob"));
        }
        if let Some(d) = source.delimiter.filter(|d| !d.is_ascii() || matches!(d, '\n' | '\r' | '"')) {
            let place = join(&join("/sources", name), "delimiter");
            out.push(Mistake::new(place, format!("{d:?} cannot stand between fields")).help("use one ASCII character, such as `;`"));
        }
        if let Some(keys) = &source.decryption {
            let place = join(&join("/sources", name), "decryption");
            if source.format.is_some_and(|f| f != Format::Parquet) {
                out.push(Mistake::new(&place, "only Parquet shards have encryption of their own").help("leave `decryption` out"));
            }
            if keys.footer_key.is_none() && keys.column_keys.is_empty() {
                out.push(Mistake::new(&place, "no key is named").help("name one, for example `footer_key: env:FOOTER_KEY`"));
            }
        }
    }
}

/// URIs and options of stores: no secrets in them, and nothing that names no store.
fn check_stores(pipeline: &Pipeline, out: &mut Vec<Mistake>) {
    let mut uris: Vec<(String, &str)> =
        pipeline.sources.iter().map(|(name, s)| (join(&join("/sources", name), "uri"), s.uri.as_str())).collect();
    uris.push(("/sink/uri".to_owned(), &pipeline.sink.uri));
    for (at, text) in uris {
        // From its first glob character on, a URI is a pattern.
        let plain = text.split(['*', '?', '[', '{']).next().unwrap_or_default();
        // A program may have brought a store of its own, under a scheme of its own.
        if is_registered(plain) {
            continue;
        }
        if let Err(e) = uri::parse(plain) {
            out.push(Mistake::new(at, e.message()).help(e.to_do().unwrap_or_default()));
        }
    }
    for (prefix, store) in &pipeline.stores {
        let at = join("/stores", prefix);
        let scheme = prefix.split_once("://").map(|(scheme, _)| scheme);
        if !scheme.is_some_and(|s| ["s3", "s3a", "hdfs", "gs", "az", "abfs", "abfss"].contains(&s)) || prefix.contains('@') {
            out.push(
                Mistake::new(at.clone(), "this is not the beginning of a store's URI")
                    .help("for example `s3://`, `s3://bucket` or `hdfs://name`"),
            );
        }
        if store.endpoint.as_ref().is_some_and(|e| e.contains('@') || e.contains('?')) {
            out.push(
                Mistake::new(join(&at, "endpoint"), "credentials do not belong into a spec")
                    .help("set AWS_ACCESS_KEY_ID …, or name a `credentials_file`"),
            );
        }
    }
}

fn check_sink(pipeline: &Pipeline, out: &mut Vec<Mistake>) {
    let sink = pipeline.sink.uri.trim_end_matches('/');
    if sink.trim().is_empty() {
        out.push(Mistake::new("/sink/uri", "this location is empty").help("name the folder for the dataset"));
        return;
    }
    if pipeline.sink.shard_bytes.as_u64() == 0 {
        out.push(Mistake::new("/sink/shard_bytes", "a shard cannot have 0 bytes").help("for example `shard_bytes: 128MiB`"));
    }
    // The next run would read what this one wrote.
    let written = format!("{sink}/data/split=train/part-0.parquet");
    for (name, source) in &pipeline.sources {
        let folder = source.uri.trim_end_matches('/');
        let is_glob = folder.contains(['*', '?', '[', '{']);
        let glob = GlobBuilder::new(folder).literal_separator(true).build().ok().filter(|_| is_glob);
        let reads_it = match glob {
            Some(glob) => glob.compile_matcher().is_match(&written),
            None => !is_glob && written.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')),
        };
        if reads_it {
            out.push(
                Mistake::new(
                    "/sink/uri",
                    format!("the sink lies within the source `{name}`: a second run would read what the first wrote"),
                )
                .help("give the dataset a folder of its own"),
            );
        }
    }
}

fn check_feed(pipeline: &Pipeline, out: &mut Vec<Mistake>) {
    let Some(feed) = &pipeline.feed else { return };
    let mut seen = BTreeSet::new();
    for (at, list) in [("/feed/features", &feed.features), ("/feed/columns", &feed.columns)] {
        for (i, column) in list.iter().enumerate().filter(|(_, c)| !seen.insert(c.as_str())) {
            out.push(Mistake::new(join(at, &i.to_string()), format!("the column `{column}` is listed twice")).help("keep one of them"));
        }
    }
    if let Some(label) = feed.label.as_ref().filter(|l| feed.features.contains(l)) {
        out.push(
            Mistake::new("/feed/label", format!("`{label}` is a feature too: a model would be given the answer"))
                .help("take it out of `features`"),
        );
    }
    if feed.tokens.as_ref().is_some_and(|t| t.length == 0) {
        out.push(Mistake::new("/feed/tokens/length", "0 is out of range").help("it must be at least 1"));
    }
}

fn check_tests(pipeline: &Pipeline, labels: &[String], out: &mut Vec<Mistake>) {
    let mut names = BTreeSet::new();
    for (i, test) in pipeline.tests.iter().enumerate() {
        let at = format!("/tests/{i}");
        if !names.insert(&test.name) {
            out.push(Mistake::new(join(&at, "name"), format!("another test has the name `{}` too", test.name)).help("rename one"));
        }
        for source in test.given.keys().filter(|s| !pipeline.sources.contains_key(*s)) {
            let help = nearest(source, pipeline.sources.keys().map(String::as_str));
            out.push(Mistake::new(join(&join(&at, "given"), source), format!("there is no source `{source}`")).help(help));
        }
        for stage in test.expect.rejected.keys().filter(|s| !labels.contains(s)) {
            let help = nearest(stage, labels.iter().map(String::as_str));
            out.push(Mistake::new(join(&join(&at, "expect/rejected"), stage), format!("there is no stage `{stage}`")).help(help));
        }
    }
}
