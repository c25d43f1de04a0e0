//! Rule 5: a kill at any moment costs only time.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Bench, table};

const SPEC: &str = "
apiVersion: feedline/v1
name: kill
sources: { raw: { uri: raw } }
stages:
  - dedup: { keys: [name], keep: first }
  - split: { by: hash, key: id, into: { train: 0.8, test: 0.2 } }
  - clean: { outliers: { x: { method: zscore, threshold: 3, action: drop } }, fill_null: { x: mean } }
  - normalize: { standard: [x] }
sink: { uri: out, shard_bytes: 64KiB, row_group_rows: 1000 }
resources: { threads: 2 }
";

fn feedline(bench: &Bench, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
    command.current_dir(bench.path()).args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn twenty_kills_leave_no_partial_version_and_the_same_hash() {
    let bench = Bench::new();
    for part in 0..12 {
        bench.parquet(&format!("raw/part-{part:02}.parquet"), &table(part * 3000, 4000));
    }
    std::fs::write(bench.path().join("spec.yaml"), SPEC).unwrap();
    let whole = Instant::now();
    assert!(feedline(&bench, &["run", "spec.yaml"]).status().unwrap().success());
    let whole = whole.elapsed();
    let expected = bench.newest("out").unwrap();
    std::fs::remove_dir_all(bench.path().join("out")).unwrap();

    let mut killed = 0;
    for moment in 0..20 {
        let mut run = feedline(&bench, &["run", "spec.yaml", "--force"]).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(f64::from(moment) / 20.0).max(Duration::from_millis(5)));
        killed += usize::from(run.try_wait().unwrap().is_none());
        run.kill().unwrap();
        run.wait().unwrap();
        // Whatever a reader sees now is whole.
        if let Some(seen) = bench.newest("out") {
            assert_eq!(seen.hash, expected.hash);
            let check = feedline(&bench, &["verify", "out"]).status().unwrap();
            assert!(check.success(), "a reader saw a broken version after kill {moment}");
        }
    }
    assert!(killed >= 10, "only {killed} of 20 runs were still alive when they were killed");
    assert!(feedline(&bench, &["run", "spec.yaml", "--force"]).status().unwrap().success());
    let after = bench.newest("out").unwrap();
    assert_eq!((after.hash, after.shards), (expected.hash, expected.shards));
    assert!(feedline(&bench, &["verify", "out"]).status().unwrap().success());
    // What the killed runs left is no version's, and can be cleared away.
    assert!(feedline(&bench, &["gc", "out", "--keep", "1", "--older-than-hours", "0"]).status().unwrap().success());
    let left: Vec<_> = bench.files("out").into_iter().filter(|f| f.contains("staging") || f.contains('#')).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(feedline(&bench, &["verify", "out"]).status().unwrap().success());
}

/// A run whose log can be read, a JSON object a line.
fn logged(bench: &Bench) -> Child {
    let mut command = feedline(bench, &["--log-format", "json", "run", "spec.yaml", "--force"]);
    command.env("RUST_LOG", "feedline=info").stderr(Stdio::piped()).spawn().unwrap()
}

fn log(run: &mut Child) -> impl Iterator<Item = Value> + use<> {
    BufReader::new(run.stderr.take().unwrap()).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

/// The passes that a log tells of, by number: `true` where the pass was run, `false` where it was taken up.
fn passes(log: &[Value]) -> BTreeMap<u64, bool> {
    let of = |line: &Value| Some((line["pass"].as_u64()?, !line["message"].as_str()?.starts_with("taken up: ")));
    log.iter().filter_map(of).collect()
}

fn checkpoints(bench: &Bench) -> Vec<u64> {
    let number = |path: &String| path.rsplit_once("/pass-")?.1.strip_suffix(".json")?.parse().ok();
    let mut found: Vec<u64> = bench.files("out/_feedline/staging").iter().filter_map(number).collect();
    found.sort_unstable();
    found
}

fn warnings(bench: &Bench, version: u64) -> Value {
    let path = bench.path().join(format!("out/_feedline/reports/{version:08}/report.json"));
    serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap()["warnings"].take()
}

fn forget(bench: &Bench) {
    std::fs::remove_dir_all(bench.path().join("out")).unwrap();
}

/// The numbers agree in the end even where a run does everything again: this looks at what it did.
#[test]
fn passes_that_a_killed_run_finished_are_not_run_again() {
    let bench = Bench::new();
    for part in 0..3 {
        bench.parquet(&format!("raw/part-{part:02}.parquet"), &table(part * 800, 1000));
    }
    // A stage with a remark: what it said is kept with its checkpoint.
    let remark = "- derive: { none: \"CASE WHEN id < 0 THEN 1 END\" }\n  - balance: { column: none, method: undersample }\n  - normalize:";
    std::fs::write(bench.path().join("spec.yaml"), SPEC.replace("- normalize:", remark)).unwrap();
    let mut run = logged(&bench);
    let lines: Vec<Value> = log(&mut run).collect();
    assert!(run.wait().unwrap().success());
    let whole = passes(&lines);
    assert!(whole.len() >= 4 && whole.values().all(|ran| *ran), "{whole:?}");
    let labels: Vec<&Value> = lines.iter().filter(|line| line["pass"].is_u64()).map(|line| &line["message"]).collect();
    let expected = bench.newest("out").unwrap();
    let told = warnings(&bench, 1);
    assert!(told.to_string().contains("no row has a label in `none`"), "{told}");
    let mut looked_at = 0;
    for until in whole.keys() {
        forget(&bench);
        let mut run = logged(&bench);
        // A phase is done when the next one begins: after the pass's checkpoint was written.
        let done = log(&mut run).filter(|line| line["message"] == "phase done" && labels.contains(&&line["phase"])).nth(*until as usize);
        run.kill().unwrap();
        run.wait().unwrap();
        assert!(done.is_some(), "the run ended before pass {until}");
        if bench.newest("out").is_some() {
            continue; // It was faster than the signal.
        }
        looked_at += 1;
        let found = checkpoints(&bench);
        assert!(found.len() as u64 > *until, "pass {until} left no checkpoint: {found:?}");
        let mut run = logged(&bench);
        let resumed = passes(&log(&mut run).collect::<Vec<_>>());
        assert!(run.wait().unwrap().success());
        let only_the_rest: BTreeMap<u64, bool> = whole.keys().map(|pass| (*pass, !found.contains(pass))).collect();
        assert_eq!(resumed, only_the_rest, "killed after pass {until}");
        assert_eq!(bench.newest("out").unwrap().hash, expected.hash);
        assert_eq!(warnings(&bench, 1), told, "killed after pass {until}");
    }
    assert!(looked_at >= 2, "only {looked_at} runs were killed in time");
}

#[test]
fn shards_that_a_killed_run_delivered_are_not_written_again() {
    let bench = Bench::new();
    for part in 0..12 {
        bench.parquet(&format!("raw/part-{part:02}.parquet"), &table(part * 3000, 4000));
    }
    std::fs::write(bench.path().join("spec.yaml"), SPEC).unwrap();
    let records = || bench.files("out/_feedline/staging").into_iter().filter(|f| f.contains("/delivered/") && f.ends_with(".json"));
    let mut run = feedline(&bench, &["run", "spec.yaml"]).spawn().unwrap();
    while records().next().is_none() {
        assert!(run.try_wait().unwrap().is_none(), "it ended before it delivered a group");
        std::thread::sleep(Duration::from_millis(1));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(bench.newest("out").is_none(), "it was killed too late to show anything");
    let delivered: Vec<Value> = records().map(|f| serde_json::from_slice(&std::fs::read(f).unwrap()).unwrap()).collect();
    let paths = delivered.iter().flat_map(|d| d["shards"].as_array().unwrap()).map(|s| s["path"].as_str().unwrap().to_owned());
    let written = |path: &String| {
        let meta = std::fs::metadata(bench.path().join("out").join(path)).unwrap();
        (path.clone(), (meta.ino(), meta.mtime(), meta.mtime_nsec()))
    };
    let before: BTreeMap<String, _> = paths.map(|path| written(&path)).collect();
    assert!(!before.is_empty());
    assert!(feedline(&bench, &["run", "spec.yaml"]).status().unwrap().success());
    let after = bench.newest("out").unwrap();
    assert!(after.shards.len() > before.len(), "there was nothing left to deliver");
    for (path, stamp) in &before {
        assert!(after.shards.iter().any(|s| s.path == *path), "{path} is not in the version");
        assert_eq!(written(path).1, *stamp, "{path} was written again");
    }
    assert!(feedline(&bench, &["verify", "out"]).status().unwrap().success());
}
