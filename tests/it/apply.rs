//! A version applied to new data: `_SUCCESS` alone says that a result is whole.

use std::path::Path;
use std::process::Stdio;

use feedline::engine::apply::{Applied, SUCCESS};

use crate::support::{Bench, Said, feedline, table};

const SPEC: &str = "
apiVersion: feedline/v1
name: applied
sources: { raw: { uri: raw } }
stages:
  - split: { by: hash, key: id, into: { train: 0.8, test: 0.2 } }
  - clean: { fill_null: { x: mean } }
  - normalize: { standard: [x] }
sink: { uri: out }
resources: { threads: 2 }
";

fn bench(shards: i64) -> Bench {
    let bench = Bench::new();
    bench.parquet("raw/a.parquet", &table(0, 1000));
    bench.run(SPEC).unwrap();
    for shard in 0..shards {
        bench.parquet(&format!("new/{shard:03}.parquet"), &table(shard * 3000, 3000));
    }
    bench
}

fn apply(bench: &Bench, args: &[&str]) -> Said {
    Said::by(&mut feedline(bench, &[&["-q", "apply", "out", "new"], args].concat()))
}

fn result(folder: &Path) -> Option<Applied> {
    Some(serde_json::from_slice(&std::fs::read(folder.join(SUCCESS)).ok()?).unwrap())
}

#[test]
fn a_killed_apply_is_no_result_and_is_replaced_only_where_that_is_asked_for() {
    let shards = 30;
    let bench = bench(shards);
    apply(&bench, &["--to", "whole"]).expect("whole", 0, &[]);
    let whole = result(&bench.path().join("whole")).unwrap();
    assert_eq!((whole.rows, whole.files.len(), whole.version), (3000 * shards as u64, shards as usize, 1));

    let folder = bench.path().join("scored");
    let mut child = feedline(&bench, &["-q", "apply", "out", "new", "--to", "scored"]).stdout(Stdio::null()).spawn().unwrap();
    while !folder.join("part-00001.parquet").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it wrote a file");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(folder.join("part-00000.parquet").exists(), "files have their final names from the beginning");
    assert!(!folder.join("part-00029.parquet").exists(), "it was killed too late to show anything");
    assert_eq!(result(&folder), None);

    apply(&bench, &["--to", "scored"]).expect("on top", 64, &["an apply left that did not end: there is no `_SUCCESS`", "--overwrite"]);
    assert_eq!(result(&folder), None);
    apply(&bench, &["--to", "scored", "--overwrite"]).expect("anew", 0, &[]);
    assert_eq!(result(&folder).unwrap(), whole, "the same files, whatever lay there before");

    // A whole result is safe from a slip of the hand, and fewer files leave none of the old ones behind.
    apply(&bench, &["--to", "scored"]).expect("whole on top", 64, &["holds an earlier result", "--overwrite"]);
    std::fs::remove_dir_all(bench.path().join("new")).unwrap();
    bench.parquet("new/a.parquet", &table(0, 10));
    apply(&bench, &["--to", "scored", "--overwrite"]).expect("fewer", 0, &[]);
    let mut left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.retain(|name| !name.contains('#') && name != "_feedline");
    left.sort();
    assert_eq!(left, [SUCCESS, "part-00000.parquet"]);
}

/// `$${x}` is the text `${x}`, and a path is a path: neither is read a second time.
#[test]
fn what_was_resolved_once_is_not_resolved_again() {
    let bench = Bench::new();
    bench.parquet("raw/a.parquet", &table(0, 100));
    let spec = SPEC.replace("stages:", "description: costs $${x}\nstages:\n  - derive: { price: \"'$${x} ' || name\" }");
    bench.run(&spec).unwrap();
    bench.parquet("${odd}/: new.parquet", &table(0, 10));
    let apply =
        |args: &[&str]| Said::by(feedline(&bench, &[&["-q", "apply", "../out"], args].concat()).current_dir(bench.path().join("${odd}")));
    apply(&["*.parquet", "--to", "../a: b"]).expect("glob", 0, &[]);
    let rows = bench.batch("a: b/part-00000.parquet");
    let price = arrow::compute::cast(rows.column_by_name("price").unwrap(), &arrow::datatypes::DataType::Utf8).unwrap();
    assert_eq!(arrow::array::AsArray::as_string::<i32>(&price).value(3), "${x} row 3");
}

#[test]
fn a_result_does_not_mix_with_other_files() {
    let bench = bench(1);
    std::fs::create_dir(bench.path().join("mine")).unwrap();
    std::fs::write(bench.path().join("mine/notes.txt"), "mine").unwrap();
    for args in [&["--to", "mine"][..], &["--to", "mine", "--overwrite"]] {
        apply(&bench, args).expect("foreign", 64, &["holds other files, such as `notes.txt`", "new folder"]);
    }
    apply(&bench, &["--to", "out", "--overwrite"]).expect("the dataset itself", 64, &["holds other files"]);
    Said::by(&mut feedline(&bench, &["verify", "out"])).expect("untouched", 0, &[]);
    // `_SUCCESS` is no shard: a result is read like any folder of Parquet.
    apply(&bench, &["--to", "scored"]).expect("applied", 0, &[]);
    let read = bench.run(&SPEC.replace("uri: raw", "uri: scored").replace("uri: out", "uri: again")).unwrap();
    assert_eq!(read.manifest.rows.input, 3000);
}
