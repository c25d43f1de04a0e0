//! Encryption, through the real program: nothing lies in the clear, and who has no key is told which one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, StructArray};
use arrow::util::display::array_value_to_string;
use feedline::dataset::Manifest;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::encryption::decrypt::FileDecryptionProperties;
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::file::properties::WriterProperties;

use crate::support::{Bench, table};

/// What stands in every secret value: as text, and as the first digits of numbers.
const MARKER: &str = "MARKER";
const NUMBER: i64 = 987_654_321_000;
/// Keys by the variables that hold them: in hex, in base64, raw.
const KEYS: [(&str, &str); 4] = [
    ("FOOTER", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"),
    ("SECRET", "MDEyMzQ1Njc4OTAxMjM0NQ=="),
    ("AMOUNT", "sixteen bytes --"),
    ("OTHER", "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"),
];

fn feedline(bench: &Bench, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("feedline"));
    command.current_dir(bench.path()).args(args).env("NO_COLOR", "1").env_remove("RUST_LOG").envs(KEYS);
    command
}

/// Runs a command to its end: its exit code and what it said, white space made one. It must not have panicked or shown a key.
fn said(command: &mut Command) -> (i32, String) {
    let done = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    assert!(!text.contains("panicked"), "{text}");
    KEYS.iter().for_each(|(_, key)| assert!(!text.contains(key), "{text}"));
    (done.status.code().unwrap(), text.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" "))
}

fn run(bench: &Bench, spec: &str) -> (i32, String) {
    std::fs::write(bench.path().join("spec.yaml"), spec).unwrap();
    said(&mut feedline(bench, &["-q", "run", "spec.yaml", "--force"]))
}

/// Rows with secrets as JSON Lines, some of them broken: every column but `id` and `open` is one.
fn secrets(bench: &Bench) {
    for part in 0..3 {
        let lines = (0..2000).map(|i| {
            let id = part * 2000 + i;
            match i % 500 {
                7 => format!("{{\"id\": {MARKER}\n"),
                8 => format!("\"{MARKER}\"\n"),
                9 => format!("{{\"secret\": \"{MARKER}\", {MARKER}: 1}}\n"),
                _ => format!(
                    "{{\"id\": {id}, \"secret\": \"{MARKER}-{}\", \"amount\": {}, \"open\": \"open {}\", \"label\": \"{MARKER}-class-{}\"}}\n",
                    id / 2,
                    NUMBER + id % 300,
                    id % 9,
                    id % 3
                ),
            }
        });
        std::fs::create_dir_all(bench.path().join("raw")).unwrap();
        std::fs::write(bench.path().join(format!("raw/part-{part}.jsonl")), lines.collect::<String>()).unwrap();
    }
}

fn spec(encryption: &str) -> String {
    format!(
        "apiVersion: feedline/v1\nname: secrets\nsources: {{ raw: {{ uri: raw }} }}\nstages:\n  - dedup: {{ keys: [secret], keep: first }}\n  - shuffle\n  \
         - split: {{ by: hash, key: id, into: {{ train: 0.8, test: 0.2 }} }}\n  - clean: {{ outliers: {{ amount: {{ method: zscore, threshold: 1.5, action: drop }} }} }}\n  \
         - encode: {{ ordinal: [label] }}\nsink: {{ uri: out, shard_bytes: 64KiB, row_group_rows: 500{encryption} }}\n\
         feed: {{ batch_rows: 64, features: [id], columns: [open] }}\nreport: {{ label: label, leakage_keys: [secret, amount] }}\nquarantine: {{ keep_rows: true }}\n\
         resources: {{ threads: 2 }}\n"
    )
}

const UNIFORM: &str = ", encryption: { footer_key: env:FOOTER }";
const COLUMNS: &str = ", encryption: { footer_key: env:FOOTER, column_keys: { secret: env:SECRET, amount: env:AMOUNT, label: env:SECRET }, plaintext_footer: true }";

/// What in the files below `out` shows a secret: raw bytes, what zstd unpacks to, and the values of Parquet that opens without a key.
fn leaks(bench: &Bench, out: &str, allowed: &dyn Fn(&str) -> bool) -> Vec<String> {
    let number = NUMBER.to_string();
    let shows = |bytes: &[u8]| {
        let has = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
        has(MARKER.as_bytes()) || has(&number.as_bytes()[..9]) || has(&NUMBER.to_le_bytes()[2..6])
    };
    let leaky = |file: &String| {
        let bytes = std::fs::read(file).unwrap_or_default();
        let unpacked = zstd::decode_all(bytes.as_slice()).unwrap_or_default();
        shows(&bytes) || shows(&unpacked) || plain_values(Path::new(file)).iter().any(|v| shows(v.as_bytes()))
    };
    bench.files(out).into_iter().filter(|f| leaky(f) && !allowed(f)).collect()
}

/// All values that a reader without keys can read, column by column.
fn plain_values(file: &Path) -> Vec<String> {
    let Ok(file) = std::fs::File::open(file) else { return Vec::new() };
    let Ok(builder) = ParquetRecordBatchReaderBuilder::try_new(file.try_clone().unwrap()) else { return Vec::new() };
    let mut values = Vec::new();
    for root in 0..builder.schema().fields().len() {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file.try_clone().unwrap()).unwrap();
        let mask = parquet::arrow::ProjectionMask::roots(builder.parquet_schema(), [root]);
        let Ok(reader) = builder.with_projection(mask).build() else { continue };
        for batch in reader.map_while(Result::ok) {
            values.extend((0..batch.num_rows()).map(|i| array_value_to_string(batch.column(0), i).unwrap()));
        }
    }
    values
}

/// Statistics of fitted stages stand in the manifest, which `apply` needs; nothing else may.
fn but_for_fits(bench: &Bench) -> impl Fn(&str) -> bool + '_ {
    move |file| {
        if !file.contains("/_feedline/versions/") {
            return false;
        }
        let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert!(!manifest["fits"].as_object().unwrap().is_empty());
        manifest["fits"] = serde_json::Value::Null;
        let _ = bench;
        let text = manifest.to_string();
        !text.contains(MARKER) && !text.contains(&NUMBER.to_string()[..9])
    }
}

#[test]
fn nothing_lies_in_the_clear_not_even_of_a_killed_run() {
    for (case, encryption) in [("uniform", UNIFORM), ("columns", COLUMNS)] {
        let bench = Bench::new();
        secrets(&bench);
        let begun = Instant::now();
        let (code, text) = run(&bench, &spec(encryption));
        let whole = begun.elapsed();
        assert_eq!(code, 0, "{case}: {text}");
        assert!(text.contains("amount: encrypted, but what stages learned") && text.contains("label: encrypted, but"), "{text}");
        assert!(!text.contains(MARKER), "{text}");
        let first = bench.newest("out").unwrap();
        assert!(first.rows.rejected.len() >= 3 && !first.quarantine.is_empty(), "{:?}", first.rows);
        assert_eq!(leaks(&bench, "out", &but_for_fits(&bench)), Vec::<String>::new(), "{case}");
        // The scan can find what lies in the clear.
        assert!(!leaks(&bench, "raw", &|_| false).is_empty());

        let report = std::fs::read_to_string(bench.path().join("out/_feedline/reports/00000001/report.json")).unwrap();
        assert_eq!(report.contains("open 3"), case == "columns", "columns in the clear are shown, others are not");
        assert!(report.contains("class 1 (encrypted)"), "counts may stand");

        // Killed at any moment, a run leaves no secret, and the next one makes the same version of other bytes.
        std::fs::remove_dir_all(bench.path().join("out")).unwrap();
        let (mut killed, mut span) = (0, whole);
        for moment in (1..8).cycle().take(40) {
            let mut child =
                feedline(&bench, &["-q", "run", "spec.yaml", "--force"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(span.mul_f64(f64::from(moment) / 8.0).max(Duration::from_millis(5)));
            let ended = child.try_wait().unwrap().is_some();
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(leaks(&bench, "out", &but_for_fits(&bench)), Vec::<String>::new(), "{case}, killed at {moment}/8");
            if ended {
                // The first run was slower: what else the machine did then, it does no more.
                span = span.mul_f64(0.7);
            } else {
                killed += 1;
            }
            if killed == 6 {
                break;
            }
        }
        assert_eq!(killed, 6);
        assert_eq!(run(&bench, &spec(encryption)).0, 0);
        let second = bench.newest("out").unwrap();
        assert_eq!(second.hash, first.hash, "{case}");
        let (a, b) = (&first.shards[0], &second.shards[0]);
        assert_eq!(a.rows_sha256, b.rows_sha256);
        assert_ne!(a.sha256, b.sha256);
        assert_eq!(said(&mut feedline(&bench, &["verify", "out", "--rows"])).0, 0);
    }
}

#[test]
fn a_second_run_leaves_the_first_version_as_it_was() {
    let bench = Bench::new();
    bench.parquet("raw/a.parquet", &table(0, 900));
    let spec =
        "apiVersion: feedline/v1\nname: x\nsources: { raw: { uri: raw } }\nsink: { uri: out, encryption: { footer_key: env:FOOTER } }\n";
    assert_eq!(run(&bench, spec).0, 0);
    let first = bench.newest("out").unwrap();
    assert_eq!(run(&bench, spec).0, 0);
    let second = bench.newest("out").unwrap();
    assert_eq!((second.version, &second.hash), (2, &first.hash));
    for version in ["1", "2"] {
        assert_eq!(said(&mut feedline(&bench, &["verify", "out", "--rows", "--version", version])).0, 0);
    }
    // Verifying needs no key, hashing the rows does.
    let keyless = |args: &[&str]| said(feedline(&bench, args).env_remove("FOOTER"));
    assert_eq!(keyless(&["verify", "out"]).0, 0);
    let (code, text) = keyless(&["verify", "out", "--rows"]);
    assert!(code == 3 && text.contains("the environment variable `FOOTER` is not set"), "{text}");
    // Without encryption it is another dataset.
    assert_eq!(run(&bench, &spec.replace(", encryption: { footer_key: env:FOOTER }", "")).0, 0);
    let open = bench.newest("out").unwrap();
    assert!(open.hash != first.hash && open.shards[0].rows_sha256.is_none());
}

#[test]
fn readers_need_the_keys_of_what_they_read() {
    let bench = Bench::new();
    secrets(&bench);
    let columns = ", encryption: { footer_key: env:FOOTER, column_keys: { secret: env:SECRET, amount: env:AMOUNT } }";
    assert_eq!(run(&bench, &spec(columns)).0, 0);
    let feed = ["feed", "out", "--split", "train"];
    assert_eq!(said(&mut feedline(&bench, &feed)).0, 0);
    // The feed reads `id` and `open` alone.
    assert_eq!(said(feedline(&bench, &feed).env_remove("SECRET").env_remove("AMOUNT")).0, 0);
    let (code, text) = said(feedline(&bench, &feed).env_remove("FOOTER"));
    assert!(code == 3 && text.contains("part-") && text.contains("`FOOTER` is not set") && text.contains("hint:"), "{text}");
    let (code, text) = said(feedline(&bench, &feed).env("FOOTER", KEYS[3].1));
    assert!(code == 3 && text.contains("the footer key is not the one"), "{text}");

    let all = spec(columns).replace("features: [id], columns: [open]", "columns: [open, secret]");
    assert_eq!(run(&bench, &all).0, 0);
    assert_eq!(said(&mut feedline(&bench, &feed)).0, 0);
    let (code, text) = said(feedline(&bench, &feed).env_remove("SECRET"));
    assert!(code == 3 && text.contains("column `secret`") && text.contains("`SECRET` is not set") && text.contains("part-"), "{text}");
    let (code, text) = said(feedline(&bench, &feed).env("SECRET", KEYS[3].1));
    assert!(code == 3 && text.contains("the key of the column `secret` is not the one"), "{text}");

    // What reads no shard needs no key.
    for args in [&["report", "out"][..], &["ls", "out"], &["verify", "out"], &["diff", "out"]] {
        let (code, text) = said(feedline(&bench, args).env_remove("FOOTER").env_remove("SECRET").env_remove("AMOUNT"));
        assert!(code == 0 && !text.contains(MARKER), "{args:?}: {text}");
    }
}

#[test]
fn apply_writes_what_it_makes_under_the_same_keys() {
    let bench = Bench::new();
    bench.parquet("raw/a.parquet", &table(0, 900));
    bench.parquet("new/a.parquet", &table(5000, 300));
    let spec = "apiVersion: feedline/v1\nname: x\nsources: { raw: { uri: raw } }\nstages: [{ normalize: { standard: [x], fit_on: all } }]\n\
                sink: { uri: out, encryption: { footer_key: env:FOOTER } }\n";
    assert_eq!(run(&bench, spec).0, 0);
    let apply = ["apply", "out", "new/*.parquet", "--to", "scored"];
    let (code, text) = said(&mut feedline(&bench, &apply));
    assert!(code == 0 && text.contains("300 rows"), "{text}");
    assert!(plain_values(&bench.path().join("scored/part-00000.parquet")).is_empty());
    let (code, text) = said(feedline(&bench, &apply).env_remove("FOOTER"));
    assert!(code == 3 && text.contains("`FOOTER` is not set"), "{text}");
}

/// Writes a shard as other programs would.
fn encrypted(bench: &Bench, path: &str, batch: &RecordBatch, how: Arc<FileEncryptionProperties>) {
    let at = bench.path().join(path);
    std::fs::create_dir_all(at.parent().unwrap()).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(100)).with_file_encryption_properties(how).build();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&at).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn source(decryption: &str) -> String {
    format!(
        "apiVersion: feedline/v1\nname: x\nsources:\n  raw: {{ uri: raw, on_bad_shard: quarantine{decryption} }}\nsink: {{ uri: out, encryption: {{ footer_key: env:FOOTER }} }}\n"
    )
}

#[test]
fn a_missing_or_wrong_key_is_never_taken_for_damage() {
    let footer = hex::decode(KEYS[0].1).unwrap();
    let uniform = || FileEncryptionProperties::builder(footer.clone());
    let by_column = || uniform().with_column_key("name", b"0123456789012345".to_vec());
    let all = ", decryption: { footer_key: env:FOOTER, column_keys: { name: env:SECRET } }";
    let cases = [
        ("uniform", uniform(), ", decryption: { footer_key: env:FOOTER }"),
        ("uniform, plaintext footer", uniform().with_plaintext_footer(true), ", decryption: { footer_key: env:FOOTER }"),
        ("columns", by_column(), all),
        ("columns, plaintext footer", by_column().with_plaintext_footer(true), all),
    ];
    for (case, how, right) in cases {
        let bench = Bench::new();
        bench.parquet("raw/open.parquet", &table(0, 300));
        encrypted(&bench, "raw/locked.parquet", &table(300, 300), how.build().unwrap());
        let fails = |decryption: &str, words: &[&str]| {
            let (code, text) = run(&bench, &source(decryption));
            assert_eq!(code, 3, "{case}: {text}");
            words.iter().chain(&["locked.parquet", "hint:"]).for_each(|w| assert!(text.contains(w), "{case}: `{w}` is not in {text}"));
            assert!(!text.contains("damaged:") && bench.newest("out").is_none(), "{case}: {text}");
        };
        fails("", &["encrypted"]);
        if case.starts_with("uniform") {
            fails(", decryption: { footer_key: env:OTHER }", &["the footer key is not the one"]);
        } else {
            fails(", decryption: { footer_key: env:FOOTER }", &["column `name`", "no key is named", "column_keys: { name: env:NAME }"]);
            fails(
                ", decryption: { footer_key: env:FOOTER, column_keys: { name: env:OTHER } }",
                &["the key of the column `name` is not the one", "decryption.column_keys.name"],
            );
        }
        let (code, text) = run(&bench, &source(right));
        assert_eq!(code, 0, "{case}: {text}");
        let made = bench.newest("out").unwrap();
        assert_eq!((made.rows.output, made.bad_inputs.len()), (600, 0), "{case}");
        // Damage behind a footer that opens is damage, and goes the way of damage.
        let at = bench.path().join("raw/locked.parquet");
        let mut bytes = std::fs::read(&at).unwrap();
        for at in (200..1200).step_by(50) {
            bytes[at] ^= 0x55;
        }
        std::fs::write(&at, &bytes).unwrap();
        let (code, text) = run(&bench, &source(right));
        assert_eq!(code, 0, "{case}: {text}");
        assert_eq!(bench.newest("out").unwrap().bad_inputs.len(), 1, "{case}");
        // So is an end that is gone.
        std::fs::write(&at, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(run(&bench, &source(right)).0, 0, "{case}");
    }
}

#[test]
fn keys_that_are_not_there_are_mistakes_at_their_places() {
    let bench = Bench::new();
    bench.parquet("raw/a.parquet", &table(0, 100));
    std::fs::write(bench.path().join("short"), "0123").unwrap();
    std::fs::write(bench.path().join("aes192"), [7; 24]).unwrap();
    let spec = |source: &str, sink: &str| {
        format!(
            "apiVersion: feedline/v1\nname: x\nsources:\n  raw:\n    uri: raw\n    decryption: {source}\nsink:\n  uri: out\n  encryption: {sink}\n"
        )
    };
    let good = "{ footer_key: env:FOOTER }";
    let (code, text) = run(
        &bench,
        &spec(
            "{ footer_key: env:NOT_SET, column_keys: { name: file:none } }",
            "{ footer_key: file:short, column_keys: { id: file:aes192 } }",
        ),
    );
    assert_eq!(code, 78, "{text}");
    for words in [
        "4 mistakes",
        "`NOT_SET` is not set",
        "the file `none` cannot be read",
        "the file `short` holds 4 bytes",
        "AES-192",
        "spec.yaml:6:",
    ] {
        assert!(text.contains(words), "`{words}` is not in {text}");
    }
    let (code, text) = run(&bench, &spec(good, "{ footer_key: env:FOOTER, column_keys: { nmae: env:SECRET } }"));
    assert!(code == 78 && text.contains("no column `nmae` comes out") && text.contains("did you mean `name`?"), "{text}");
    let (code, text) = run(&bench, &spec("{ footer_key: env:FOOTER, column_keys: { nmae: env:SECRET } }", good));
    assert!(code == 78 && text.contains("no shard has a column `nmae`") && text.contains("did you mean `name`?"), "{text}");
    let (code, text) = run(&bench, &spec(good, &format!("{{ footer_key: \"{}\" }}", KEYS[0].1)));
    assert!(code == 78 && text.contains("a key does not stand in a spec"), "{text}");
}

/// The 200 rows of `tests/golden/encrypted/make.py`.
fn golden_rows() -> RecordBatch {
    let n = 0..200_i64;
    let city: ArrayRef = Arc::new(n.clone().map(|i| Some(format!("city {}", i % 5))).collect::<StringArray>());
    let zip: ArrayRef = Arc::new(n.clone().map(Some).collect::<Int64Array>());
    let field = |name: &str, a: &ArrayRef| Arc::new(arrow::datatypes::Field::new(name, a.data_type().clone(), true));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", zip.clone()),
        ("name", Arc::new(n.clone().map(|i| (i % 7 != 0).then(|| format!("row {i}"))).collect::<StringArray>())),
        ("x", Arc::new(n.map(|i| Some(i as f64 / 4.0)).collect::<Float64Array>())),
        ("place", Arc::new(StructArray::from(vec![(field("city", &city), city.clone()), (field("zip", &zip), zip)]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}

#[test]
fn files_of_other_programs_are_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/encrypted");
    let keys: serde_json::Value = serde_json::from_slice(&std::fs::read(golden.join("keys.json")).unwrap()).unwrap();
    let files = keys["files"].as_object().unwrap();
    assert!(files.len() >= 6);
    for (file, keys) in files {
        let bench = Bench::new();
        std::fs::create_dir_all(bench.path().join("raw")).unwrap();
        std::fs::copy(golden.join(file), bench.path().join("raw").join(file)).unwrap();
        let key = |name: &str, key: &serde_json::Value| {
            std::fs::write(bench.path().join(name), key.as_str().unwrap()).unwrap();
            format!("file:{name}")
        };
        let mut decryption = serde_json::json!({ "footer_key": key("footer", &keys["footer_key"]) });
        for (column, found) in keys["column_keys"].as_object().into_iter().flatten() {
            decryption["column_keys"][column] = key(column, found).into();
        }
        if let Some(prefix) = keys.get("aad_prefix") {
            decryption["aad_prefix"] = prefix.clone();
        }
        let spec = format!(
            "apiVersion: feedline/v1\nname: x\nsources: {{ raw: {{ uri: raw, decryption: {decryption} }} }}\nsink: {{ uri: out }}\n"
        );
        if file.starts_with("duckdb") {
            let e = bench.run(&spec).unwrap_err();
            assert!(e.kind() == feedline::error::Kind::Key && e.message().contains("lacks the file identifier"), "{e}");
            continue;
        }
        let outcome = bench.run(&spec).unwrap_or_else(|e| panic!("{file}: {e} {:?}", e.to_do()));
        let rows = bench.rows("out", &outcome.manifest, "all");
        let expected = golden_rows();
        for (column, field) in expected.columns().iter().zip(expected.schema().fields()) {
            let got = rows.column_by_name(field.name()).unwrap();
            for row in 0..200 {
                assert_eq!(
                    array_value_to_string(got, row).unwrap(),
                    array_value_to_string(column, row).unwrap(),
                    "{file}: {}",
                    field.name()
                );
            }
        }
        // Without its AAD prefix, or a key, a file stays shut.
        for part in ["footer_key", "column_keys", "aad_prefix"] {
            let mut less = decryption.clone();
            if less.as_object_mut().unwrap().remove(part).is_some()
                && !less.as_object().unwrap().is_empty()
                && less.get("aad_prefix").is_none()
            {
                let spec = spec.replace(&decryption.to_string(), &less.to_string());
                let result = bench.run(&spec);
                // Readable footers of keys by column need no footer key.
                if !(part == "footer_key" && file.contains("columns-plaintext")) {
                    assert_eq!(result.unwrap_err().kind(), feedline::error::Kind::Key, "{file} without {part}");
                }
            }
        }
    }
}

#[test]
fn shards_open_in_any_reader_that_has_the_keys() {
    let bench = Bench::new();
    bench.parquet("raw/a.parquet", &table(0, 300));
    let spec = |more: &str| {
        format!(
            "apiVersion: feedline/v1\nname: x\nsources: {{ raw: {{ uri: raw }} }}\nsink: {{ uri: out, encryption: {{ footer_key: env:FOOTER{more} }} }}\n"
        )
    };
    let footer = hex::decode(KEYS[0].1).unwrap();
    let open = |manifest: &Manifest, name_key: Option<&[u8]>| {
        let mut keys = FileDecryptionProperties::builder(footer.clone());
        if let Some(key) = name_key {
            keys = keys.with_column_key("name", key.to_vec());
        }
        let options = ArrowReaderOptions::new().with_file_decryption_properties(keys.build().unwrap());
        let file = std::fs::File::open(bench.path().join("out").join(&manifest.shards[0].path)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap().build().unwrap();
        reader.map(|b| b.unwrap().num_rows()).sum::<usize>()
    };
    assert_eq!(run(&bench, &spec("")).0, 0);
    assert_eq!(open(&bench.newest("out").unwrap(), None), 300);
    assert_eq!(run(&bench, &spec(", column_keys: { name: env:SECRET }")).0, 0);
    assert_eq!(open(&bench.newest("out").unwrap(), Some(b"0123456789012345")), 300);
    // A readable footer shows all that is not encrypted to everybody.
    assert_eq!(run(&bench, &spec(", column_keys: { name: env:SECRET }, plaintext_footer: true")).0, 0);
    let values = plain_values(&bench.path().join("out").join(&bench.newest("out").unwrap().shards[0].path));
    assert!(values.contains(&"299".to_owned()) && !values.iter().any(|v| v.contains("row ")));
}
