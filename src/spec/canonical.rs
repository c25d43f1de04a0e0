//! What in a spec shapes the data.

use serde_json::{Value as Json, json};

use super::Pipeline;

/// The part of a resolved spec that shapes the data, for the spec's hash: the sources in order without their URIs, keys and `on_bad_shard`, the
/// stages with their options as given, the sink without its URI, and the seed. Two specs with equal canonical values make the same dataset
/// from the same input.
///
/// Maps are written as lists of pairs, because their order can shape the data (it is the order of new columns) while a hash over JSON
/// sorts keys. Sizes are numbers of bytes, so `128MiB` and `134217728` are the same.
pub fn canonical(pipeline: &Pipeline) -> Json {
    let sources: Vec<Json> = pipeline
        .sources
        .iter()
        .map(|(name, s)| {
            let columns: Vec<Json> = s.columns.iter().map(|(c, t)| json!([c, t])).collect();
            json!({ "name": name, "format": s.format, "columns": columns, "hive": s.hive, "delimiter": s.delimiter, "header": s.header })
        })
        .collect();
    let sink = &pipeline.sink;
    let mut written = json!({
        "shard_bytes": sink.shard_bytes.as_u64(),
        "compression": sink.compression,
        "compression_level": sink.compression_level,
        "row_group_rows": sink.row_group_rows,
    });
    if let Some(e) = &sink.encryption {
        let columns: Vec<Json> = e.column_keys.iter().map(|(c, k)| json!([c, k])).collect();
        written["encryption"] = json!({ "footer_key": e.footer_key, "column_keys": columns, "plaintext_footer": e.plaintext_footer });
    }
    json!({
        "format": "feedline-spec/v1",
        "sources": sources,
        "stages": pipeline.stages.iter().map(stage).collect::<Vec<_>>(),
        "sink": written,
        "seed": pipeline.seed,
    })
}

/// `- shuffle`, `- shuffle:` and `- shuffle: {}` are one.
fn stage(entry: &Json) -> Json {
    match entry {
        Json::String(name) => json!([[name, []]]),
        Json::Object(map) => map.iter().map(|(name, o)| if o.is_null() { json!([name, []]) } else { json!([name, ordered(o)]) }).collect(),
        other => ordered(other),
    }
}

fn ordered(value: &Json) -> Json {
    match value {
        Json::Object(map) => map.iter().map(|(k, v)| json!([k, ordered(v)])).collect(),
        Json::Array(list) => list.iter().map(ordered).collect(),
        other => other.clone(),
    }
}
