//! Runs over real servers: S3, HDFS and Azure's emulator as `tests/servers/start` starts them. Without them these tests say so and end.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use feedline::dataset::{Dataset, Manifest};
use feedline::storage::Location;
use object_store::ObjectStoreExt;
use parquet::arrow::ArrowWriter;

use crate::support::{Bench, table};

/// A runtime for one test.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A folder of this test's own on each real server that is up.
pub fn real_stores() -> Vec<String> {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let of = |name: &str| match std::env::var(name) {
        Ok(uri) if !uri.is_empty() => Some(format!("{uri}/test-{}-{number}", std::process::id())),
        _ => {
            eprintln!("left out: {name} is not set (start the servers with `eval \"$(tests/servers/start)\"`)");
            None
        }
    };
    ["FEEDLINE_TEST_S3", "FEEDLINE_TEST_AZURE", "FEEDLINE_TEST_HDFS"].into_iter().filter_map(of).collect()
}

/// Copies a folder of this disk to a store.
fn upload(from: &Path, to: &str) {
    let from = Location::open(from.to_str().unwrap(), Path::new("/")).unwrap();
    let to = Location::open(to, Path::new("/")).unwrap();
    runtime().block_on(async {
        for meta in from.list().await.unwrap() {
            let path: Vec<_> = meta.location.prefix_match(&from.path).unwrap().map(|p| p.as_ref().to_owned()).collect();
            let path = path.join("/");
            let bytes = from.child(&path).read().await.unwrap().unwrap();
            to.child(&path).write(bytes).await.unwrap();
        }
    });
}

fn newest(dataset: &str) -> Manifest {
    let root = Location::open(dataset, Path::new("/")).unwrap();
    runtime().block_on(Dataset::new(root).manifest(None)).unwrap()
}

fn feedline(args: &[&str], env: &[(&str, &str)]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
    command.args(args).envs(env.iter().copied()).env("RUST_LOG", "warn").stdin(Stdio::null());
    command.output().unwrap()
}

/// The raw data for `pipelines/`, where there is some.
fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("FEEDLINE_DATA").map(PathBuf::from).filter(|f| f.join("flights").is_dir());
    if folder.is_none() {
        eprintln!("the pipelines over real data are left out: FEEDLINE_DATA names no folder with flights");
    }
    folder
}

/// Read here, written there: the same version as on the local disk.
#[test]
fn every_pipeline_makes_the_same_version_from_and_to_every_store() {
    let stores = real_stores();
    let (Some(data), [first, .., last]) = (data(), stores.as_slice()) else { return };
    for uri in [first, last] {
        for part in ["flights", "docs"] {
            upload(&data.join(part), &format!("{uri}/raw/{part}"));
        }
        std::fs::read(data.join("planes.parquet"))
            .map(|bytes| {
                let at = Location::open(&format!("{uri}/raw/planes.parquet"), Path::new("/")).unwrap();
                runtime().block_on(at.write(bytes)).unwrap();
            })
            .unwrap();
    }
    let local = tempfile::tempdir().unwrap();
    let here = (data.display().to_string(), local.path().join("out").display().to_string());
    let there = (format!("{first}/raw"), format!("{last}/out"));
    let back = (format!("{last}/raw"), format!("{first}/out"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    for spec in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "yaml")) {
        let name = spec.file_stem().unwrap().to_str().unwrap().to_owned();
        let hashes = [&here, &there, &back].map(|(raw, out)| {
            let done = feedline(&["run", spec.to_str().unwrap()], &[("FEEDLINE_DATA", raw), ("FEEDLINE_OUT", out)]);
            assert!(done.status.success(), "{name} from {raw} to {out}: {}", String::from_utf8_lossy(&done.stderr));
            let dataset = format!("{out}/{name}");
            let check = feedline(&["verify", &dataset], &[]);
            assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
            let fed = feedline(&["feed", &dataset, "--batches", "3"], &[]);
            assert!(fed.status.success(), "{}", String::from_utf8_lossy(&fed.stderr));
            newest(&dataset).hash
        });
        assert!(hashes.iter().all(|h| *h == hashes[0]), "{name}: {hashes:?}");
    }
}

/// A run from `${FROM}` to `${TO}` with a decision, fits and a split.
pub const SPEC: &str = "
apiVersion: feedline/v1
name: small
sources: { raw: { uri: \"${FROM}/raw/*.parquet\" } }
stages:
  - dedup: { keys: [name], keep: first }
  - split: { by: hash, key: id, into: { train: 0.8, test: 0.2 } }
  - clean: { outliers: { x: { method: zscore, threshold: 3, action: drop } }, fill_null: { x: mean } }
  - normalize: { standard: [x] }
sink: { uri: \"${TO}\", shard_bytes: 64KiB, row_group_rows: 1000 }
quarantine: { keep_rows: true }
resources: { threads: 2 }
";

/// A spec and generated shards, here and below `uri`; with the version that a run on this disk makes.
fn small(uri: &str) -> (Bench, Manifest) {
    let bench = Bench::new();
    for part in 0..6 {
        bench.parquet(&format!("raw/part {part}, ü.parquet"), &table(part * 3000, 4000));
    }
    std::fs::write(bench.path().join("spec.yaml"), SPEC).unwrap();
    upload(&bench.path().join("raw"), &format!("{uri}/raw"));
    let here = bench.path().display().to_string();
    let out = format!("{here}/out");
    let done = run(&bench, &here, &out, true);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let manifest = newest(&out);
    (bench, manifest)
}

fn run(bench: &Bench, from: &str, to: &str, force: bool) -> std::process::Output {
    let spec = bench.path().join("spec.yaml");
    let args = ["run", spec.to_str().unwrap(), "--force"];
    feedline(&args[..if force { 3 } else { 2 }], &[("FROM", from), ("TO", to)])
}

#[test]
fn generated_shards_make_the_same_version_on_every_store() {
    for uri in real_stores() {
        let (bench, expected) = small(&uri);
        let out = format!("{uri}/out");
        let done = run(&bench, &uri, &out, false);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let made = newest(&out);
        assert_eq!((&made.hash, &made.shards), (&expected.hash, &expected.shards), "{uri}");
        assert_eq!(made.quarantine.iter().map(|q| q.rows).sum::<u64>(), expected.quarantine.iter().map(|q| q.rows).sum::<u64>());
        for args in [&["verify", &out][..], &["ls", &out], &["report", &out], &["gc", &out, "--older-than-hours", "0"], &["verify", &out]] {
            let done = feedline(args, &[]);
            assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
        // The lease was given back, so the next run begins at once.
        assert!(run(&bench, &uri, &out, true).status.success());
        assert_eq!(newest(&out).hash, expected.hash);
    }
}

/// Kills while shards are being written; nothing partial is seen, the next run ends with the same hash, and gc leaves nothing behind.
#[test]
fn a_kill_leaves_nothing_visible_on_any_store() {
    for uri in real_stores() {
        let (bench, expected) = small(&uri);
        let out = format!("{uri}/out");
        let begin = std::time::Instant::now();
        assert!(run(&bench, &uri, &out, false).status.success());
        let whole = begin.elapsed();
        for moment in 1..6 {
            let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
            command.args(["run", bench.path().join("spec.yaml").to_str().unwrap(), "--force"]).env("FROM", &uri).env("TO", &out);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(whole.mul_f64(f64::from(moment) / 6.0));
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(newest(&out).hash, expected.hash, "after kill {moment}");
            assert!(feedline(&["verify", &out], &[]).status.success());
        }
        // The lease of the killed process does not hold up the next one on this machine.
        let done = run(&bench, &uri, &out, true);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(newest(&out).shards, expected.shards);
        assert!(feedline(&["gc", &out, "--keep", "1", "--older-than-hours", "0"], &[]).status.success());
        let root = Location::open(&out, Path::new("/")).unwrap();
        let left = runtime().block_on(root.list()).unwrap();
        let strange = |path: &str| path.contains("staging") || path.contains(".tmp.");
        assert!(!left.iter().any(|m| strange(m.location.as_ref())), "{left:?}");
        if let Some(bucket) = root.bucket() {
            assert!(runtime().block_on(bucket.unfinished(&root.path)).unwrap().is_empty());
        }
        assert!(feedline(&["verify", &out], &[]).status.success());
    }
}

/// A run killed while a shard is half uploaded: no object, no version; gc aborts the upload.
#[test]
fn a_kill_in_mid_upload_leaves_nothing_visible_and_gc_aborts_the_upload() {
    let Some(uri) = real_stores().into_iter().find(|u| u.starts_with("s3")) else { return };
    let bench = Bench::new();
    let numbers = |seed: u64| {
        (0..1_200_000_u64).map(move |i| f64::from_bits(0x3ff0_0000_0000_0000 | ((i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12)))
    };
    let columns: Vec<(&str, ArrayRef)> =
        vec![("a", Arc::new(Float64Array::from_iter_values(numbers(1)))), ("b", Arc::new(Float64Array::from_iter_values(numbers(2))))];
    std::fs::create_dir(bench.path().join("raw")).unwrap();
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(bench.path().join("raw/a.parquet")).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let out = format!("{uri}/out");
    let text = "apiVersion: feedline/v1\nname: large\nsources: { raw: { uri: raw } }\nreport: { profile: \"off\" }\n\
                sink: { uri: \"${TO}\", compression: none }\n";
    let spec = bench.path().join("spec.yaml");
    std::fs::write(&spec, text).unwrap();
    let root = Location::open(&out, Path::new("/")).unwrap();
    let bucket = root.bucket().unwrap();
    let unfinished = || runtime().block_on(bucket.unfinished(&root.path)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
    command.args(["run", spec.to_str().unwrap()]).env("TO", &out).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let open = loop {
        let open = unfinished();
        assert!(child.try_wait().unwrap().is_none(), "the run ended before an upload was seen");
        if !open.is_empty() {
            break open;
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(unfinished(), open);
    let visible = runtime().block_on(root.child("data").list()).unwrap();
    assert!(visible.is_empty(), "{visible:?}");
    assert!(runtime().block_on(Dataset::new(root.clone()).versions()).unwrap().is_empty());
    let kept = feedline(&["gc", &out], &[]);
    assert!(kept.status.success() && unfinished() == open, "one that may be under way stays: {}", String::from_utf8_lossy(&kept.stderr));
    let swept = feedline(&["gc", &out, "--older-than-hours", "0"], &[]);
    assert!(String::from_utf8_lossy(&swept.stdout).contains("unfinished upload"));
    assert!(unfinished().is_empty());
    let done = feedline(&["run", spec.to_str().unwrap()], &[("TO", &out)]);
    assert!(done.status.success() && unfinished().is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(newest(&out).shards.iter().any(|s| s.bytes > 11 << 20), "the shard is large enough to be uploaded in parts");
    assert!(feedline(&["verify", &out], &[]).status.success());
}

/// Keys of S3 stand in no file and no message.
#[test]
fn secrets_are_nowhere() {
    let Some(uri) = real_stores().into_iter().find(|u| u.starts_with("s3")) else { return };
    let secret = std::env::var("AWS_SECRET_ACCESS_KEY").unwrap();
    let (bench, _) = small(&uri);
    let out = format!("{uri}/out");
    let spec = bench.path().join("spec.yaml");
    let env = [("FROM", uri.as_str()), ("TO", out.as_str()), ("RUST_LOG", "trace"), ("FEEDLINE_LOG_FORMAT", "json")];
    let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
    let done = command.args(["run", spec.to_str().unwrap()]).envs(env).output().unwrap();
    assert!(done.status.success());
    let mut texts = vec![done.stdout, done.stderr];
    let root = Location::open(&out, Path::new("/")).unwrap();
    runtime().block_on(async {
        for meta in root.list().await.unwrap() {
            texts.push(root.store.get(&meta.location).await.unwrap().bytes().await.unwrap().to_vec());
        }
    });
    let leaks = texts.iter().filter(|t| String::from_utf8_lossy(t).contains(&secret)).count();
    assert!(leaks == 0 && texts.len() > 5, "{leaks} of {} texts hold the key", texts.len());
}

/// Exit code and stderr of a run that must fail.
fn fails(bench: &Bench, from: &str, to: &str, env: &[(&str, &str)]) -> (i32, String) {
    let spec = bench.path().join("spec.yaml");
    let mut all = vec![("FROM", from), ("TO", to)];
    all.extend(env);
    let done = feedline(&["run", spec.to_str().unwrap(), "--set", "stores={s3://: {retry_s: 3}, hdfs://: {retry_s: 3}}"], &all);
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!text.contains("panicked") && !text.contains("\tat org."), "{text}");
    (done.status.code().unwrap(), text)
}

#[test]
fn wrong_inputs_on_s3_end_in_words() {
    let Some(uri) = real_stores().into_iter().find(|u| u.starts_with("s3")) else { return };
    let (bench, _) = small(&uri);
    let out = format!("{uri}/out");
    let ends = |from: &str, to: &str, env: &[(&str, &str)], exit: i32, words: &[&str]| {
        let (code, text) = fails(&bench, from, to, env);
        assert_eq!(code, exit, "{text}");
        assert!(words.iter().all(|w| text.contains(w)), "{words:?} not in: {text}");
    };
    ends("s3://no-such-bucket-here", &out, &[], 3, &["no such bucket", "s3://no-such-bucket-here", "hint"]);
    ends(&uri, "s3://no-such-bucket-here/x", &[], 3, &["no such bucket"]);
    ends(&uri, &out, &[("AWS_SECRET_ACCESS_KEY", "wrong")], 3, &["secret key", "AWS_SECRET_ACCESS_KEY"]);
    ends(&uri, &out, &[("AWS_ACCESS_KEY_ID", "nobody")], 3, &["access key", "AWS_ACCESS_KEY_ID"]);
    ends(&uri, &out, &[("AWS_SESSION_TOKEN", "expired")], 3, &["session token"]);
    ends(&uri, &out, &[("AWS_REGION", "eu-north-1")], 3, &["another region", "AWS_REGION"]);
    ends(&uri, &out, &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")], 3, &["cannot be reached", "endpoint"]);
    ends(&uri, &out, &[("AWS_ALLOW_HTTP", "false")], 78, &["plain HTTP", "allow_http"]);
    ends(&uri, &out, &[("AWS_PROFILE", "nobody")], 3, &["AWS profile `nobody`"]);
    ends(&format!("{uri}/nothing-here"), &out, &[], 3, &["no shards found", "nothing lies below"]);
    ends("s3://key:HUSH-HUSH@bucket", &out, &[], 78, &["credentials do not belong into a URI"]);
    let (_, text) = fails(&bench, "s3://key:HUSH-HUSH@bucket", &out, &[]);
    assert!(!text.contains("HUSH"), "{text}");
    if let Ok(stranger) = std::env::var("FEEDLINE_TEST_S3_STRANGER") {
        let (id, key) = stranger.split_once(':').unwrap();
        ends(&uri, &out, &[("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", key)], 3, &["denies access"]);
    }
}

#[test]
fn wrong_inputs_on_hdfs_end_in_words() {
    let Some(uri) = real_stores().into_iter().find(|u| u.starts_with("hdfs")) else { return };
    let (bench, _) = small(&uri);
    let out = format!("{uri}/out");
    let root = std::env::var("FEEDLINE_TEST_HDFS").unwrap();
    let ends = |from: &str, to: &str, exit: i32, words: &[&str]| {
        let (code, text) = fails(&bench, from, to, &[]);
        assert_eq!(code, exit, "{text}");
        assert!(words.iter().all(|w| text.contains(w)), "{words:?} not in: {text}");
    };
    ends(&format!("{root}/private"), &out, 3, &["permission denied", "HADOOP_USER_NAME"]);
    ends(&uri, &format!("{root}/private/out"), 3, &["permission denied"]);
    ends("hdfs://no-such-service", &out, 3, &["hdfs-site.xml"]);
    ends("hdfs://127.0.0.1:1", &out, 3, &["cannot be reached", "hdfs://127.0.0.1:1"]);
    ends(&uri, &format!("{uri}/raw/part 0, ü.parquet"), 3, &["a file lies where a folder should be"]);
    let nodes = std::env::var("FEEDLINE_TEST_HDFS_NAMENODES").unwrap_or_default();
    if let Some((_, standby)) = nodes.split_once(',') {
        ends(&format!("hdfs://{standby}/x"), &out, 75, &["standby", "name service"]);
    }
}
