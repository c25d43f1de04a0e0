//! Rule 5: a kill at any moment costs only time.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
