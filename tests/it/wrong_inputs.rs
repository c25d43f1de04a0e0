//! What people get wrong, through the real program: each is a clear error with its exit code, or a row that is told of; never a panic.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::array_value_to_string;
use feedline::dataset::Manifest;

use crate::support::{Bench, Said, feedline, table};

const SPLIT: &str = "{ split: { by: hash, key: id, into: { train: 0.8, test: 0.2 } } }";

fn spec_of(source: &str, stages: &str) -> String {
    format!(
        "apiVersion: feedline/v1\nname: wrong\nsources:\n  s: {{ {source} }}\n  side: {{ uri: side }}\nstages: [{stages}]\n\
         sink: {{ uri: out }}\nresources: {{ threads: 2 }}\n"
    )
}

/// A spec over the folder `in` with a small side input.
fn spec(stages: &str) -> String {
    spec_of("uri: in", stages)
}

fn run(bench: &Bench, spec: &str) -> Said {
    std::fs::write(bench.path().join("wrong.yaml"), spec).unwrap();
    Said::by(&mut feedline(bench, &["-q", "run", "wrong.yaml"]))
}

/// A bench with a good shard `in/a.parquet` of 300 rows and the side input.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.parquet("in/a.parquet", &table(0, 300));
    bench.parquet("side/a.parquet", &table(0, 100));
    bench
}

/// The table of `support` with one column made anew.
fn with(first: i64, name: &str, array: ArrayRef) -> RecordBatch {
    let table = table(first, array.len() as i64);
    let schema = table.schema();
    let names = schema.fields().iter().map(|f| f.name().clone());
    let mut columns: Vec<(String, ArrayRef)> = names.zip(table.columns().to_vec()).collect();
    match columns.iter_mut().find(|(n, _)| n == name) {
        Some((_, old)) => *old = array,
        None => columns.push((name.to_owned(), array)),
    }
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}

fn without(table: &RecordBatch, name: &str) -> RecordBatch {
    let keep: Vec<usize> = (0..table.num_columns()).filter(|i| table.schema().field(*i).name() != name).collect();
    table.project(&keep).unwrap()
}

fn manifest(bench: &Bench) -> Manifest {
    serde_json::from_slice(&std::fs::read(bench.path().join("out/_feedline/versions/00000001.json")).unwrap()).unwrap()
}

fn text(batch: &RecordBatch, column: &str, row: usize) -> String {
    array_value_to_string(batch.column_by_name(column).unwrap(), row).unwrap()
}

type Change = fn(&mut Vec<u8>);

/// Overwrites a part of a Parquet file, given its size and where its footer begins.
fn noise(bytes: &mut [u8], part: fn(usize, usize) -> std::ops::Range<usize>) {
    let n = bytes.len();
    let footer = n - 8 - u32::from_le_bytes(bytes[n - 8..n - 4].try_into().unwrap()) as usize;
    bytes[part(n, footer)].fill(0xff);
}

fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn broken_shards_stop_the_run_or_are_left_out() {
    let cases: [(&str, Change, &str); 6] = [
        ("text", |b| *b = b"I am text, not Parquet".repeat(9), "not a Parquet file"),
        ("empty file", Vec::clear, "only 0 bytes long"),
        ("truncated", |b| b.truncate(b.len() / 2), "cut short"),
        ("footer too long", |b| noise(b, |n, _| n - 8..n - 4), "longer than the file"),
        ("footer of noise", |b| noise(b, |n, footer| footer..n - 8), "the Parquet footer cannot be read"),
        ("pages of noise", |b| noise(b, |_, footer| footer / 4..footer / 2), "the shard is damaged"),
    ];
    for (case, change, words) in cases {
        let bench = bench();
        damage(&bench.parquet("in/b.parquet", &table(300, 3000)), change);
        run(&bench, &spec("")).expect(case, 3, &[words, "in/b.parquet", "on_bad_shard: quarantine"]);
        assert!(!bench.path().join("out/_feedline/versions/00000001.json").exists(), "{case}: a failed run published");
        for policy in ["skip", "quarantine"] {
            let said = run(&bench, &spec_of(&format!("uri: in, on_bad_shard: {policy}"), "{ dedup: { keys: [name] } }"));
            said.expect(case, 0, &[]);
            let m = manifest(&bench);
            assert_eq!((m.rows.input, m.rows.output), (300, 300), "{case}, {policy}");
            assert_eq!((m.bad_inputs.len(), m.bad_inputs[0].path.as_str()), (1, "b.parquet"), "{case}, {policy}");
            assert_eq!(m.bad_inputs[0].action, policy, "{case}");
            assert!(m.bad_inputs[0].reason.contains(words), "{case}: {}", m.bad_inputs[0].reason);
            std::fs::remove_dir_all(bench.path().join("out")).unwrap();
        }
    }
}

#[test]
fn sources_without_rows_or_of_many_kinds_say_so() {
    let bench = bench();
    std::fs::create_dir_all(bench.path().join("empty")).unwrap();
    bench.parquet("zero/a.parquet", &table(0, 0));
    bench.parquet("mixed/a.parquet", &table(0, 10));
    std::fs::write(bench.path().join("mixed/b.csv"), "id,k\n1,2\n").unwrap();
    let cases = [
        ("uri: empty", 3, ["no shards found", "the folder is empty"]),
        ("uri: nowhere", 3, ["there is no such file or folder", "nowhere"]),
        ("uri: \"in/*.csv\"", 3, ["no shards found", "a.parquet"]),
        ("uri: zero", 3, ["there are no rows to read", "source `s`"]),
        ("uri: mixed", 3, ["`a.parquet` and `b.csv` have different formats", "concat"]),
        ("uri: \"in/[a\"", 78, ["the glob `[a` is wrong", "source `s`"]),
        ("uri: \"gopher://x/y\"", 78, ["gopher://", "gopher://x/y"]),
    ];
    for (source, code, words) in cases {
        run(&bench, &spec_of(source, "")).expect(source, code, &words);
    }
}

#[test]
fn shards_of_different_schemas_are_bridged_or_refused() {
    let floats: ArrayRef = Arc::new((0..300).map(|i| Some(f64::from(i) / 4.0)).collect::<Float64Array>());
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["u"; 300]));
    let reordered = table(300, 300).project(&[3, 2, 1, 0]).unwrap();
    // (second shard, a value of its second row, as it must come out)
    let cases = [
        ("missing column", without(&table(300, 300), "x"), ("x", "")),
        ("int and float", with(300, "k", floats), ("k", "0.25")),
        ("reordered", reordered, ("name", "row 301")),
    ];
    for (case, second, (column, value)) in cases {
        let bench = bench();
        bench.parquet("in/b.parquet", &second);
        run(&bench, &spec("")).expect(case, 0, &[]);
        let rows = bench.rows("out", &manifest(&bench), "all");
        let names: Vec<String> = rows.schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!((rows.num_rows(), names.join(" ").as_str()), (600, "id k x name"), "{case}");
        assert_eq!((text(&rows, "id", 301), text(&rows, column, 301)), ("301".to_owned(), value.to_owned()), "{case}");
    }
    let bench = bench();
    bench.parquet("in/b.parquet", &with(300, "k", texts));
    run(&bench, &spec("")).expect("int and text", 3, &["column `k` is Int64 in `a.parquet`", "`b.parquet`", "cast"]);
}

#[test]
fn column_names_that_cannot_be_kept_apart_are_refused() {
    let bench = bench();
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let twice = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("a", DataType::Int64, true)]);
    bench.parquet("in/a.parquet", &RecordBatch::try_new(Arc::new(twice), vec![ids.clone(), ids.clone()]).unwrap());
    run(&bench, &spec("")).expect("two of one name", 3, &["two columns are named `a`", "in/a.parquet"]);
    bench.parquet("in/a.parquet", &with(0, "_row", ids));
    run(&bench, &spec("")).expect("our own name", 3, &["`_row` is Feedline's own", "rename"]);
}

#[test]
fn odd_values_and_names_pass_through_every_stage() {
    let odd = "we\"ird `col' umn";
    let bench = bench();
    let values: ArrayRef = Arc::new((0..300).map(|i| Some(i % 3)).collect::<Int64Array>());
    bench.parquet("in/a.parquet", &with(0, odd, values));
    let quoted = format!("'{}'", odd.replace('\'', "''"));
    let stages = format!(
        "{{ filter: '\"we\"\"ird `col'' umn\" > 0' }}, {{ dedup: {{ keys: [id, {quoted}] }} }}, \
         {{ split: {{ by: stratified, column: {quoted}, into: {{ train: 0.8, test: 0.2 }} }} }}, {{ normalize: {{ minmax: [{quoted}] }} }}"
    );
    run(&bench, &spec(&stages)).expect("name", 0, &[]);
    let m = manifest(&bench);
    assert_eq!((m.rows.output, m.rows.by_split["train"]), (200, 160));

    let bench = Bench::new();
    bench.parquet("side/a.parquet", &table(0, 3));
    let long: ArrayRef = Arc::new(StringArray::from(vec![Some("a".repeat(10_000_000)), Some("b".to_owned()), None]));
    bench.parquet("in/a.parquet", &with(0, "name", long));
    run(&bench, &spec("{ dedup: { text: name } }, { clean: { text: { columns: [name] } } }")).expect("10 MB", 0, &[]);
    let rows = bench.rows("out", &manifest(&bench), "all");
    assert_eq!((rows.num_rows(), text(&rows, "name", 0).len()), (3, 10_000_000));
}

#[test]
fn columns_of_nulls_are_told_of_and_nothing_is_learned_from_infinities() {
    let learn = format!(
        "{SPLIT}, {{ clean: {{ outliers: {{ x: {{ method: zscore, action: clip }} }}, fill_null: {{ x: median }} }} }}, \
         {{ normalize: {{ standard: [x] }} }}"
    );
    let bench = bench();
    bench.parquet("in/a.parquet", &with(0, "x", new_null_array(&DataType::Float64, 300)));
    let said = run(&bench, &spec(&learn));
    said.expect("null", 0, &[]);
    assert!(said.out.contains("x: every value is null"), "{}", said.out);
    assert_eq!(manifest(&bench).rows.output, 300);

    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0, 3.0];
    let bench = self::bench();
    bench.parquet("in/a.parquet", &with(0, "x", Arc::new((0..300).map(|i| Some(odd[i % 5])).collect::<Float64Array>())));
    for stage in ["normalize: { standard: [x] }", "normalize: { minmax: [x] }", "clean: { fill_null: { x: mean } }"] {
        let words = ["column `x`", "infinite values", "method: bounds"];
        run(&bench, &spec(&format!("{SPLIT}, {{ {stage} }}"))).expect(stage, 3, &words);
    }
    // What the message says to do helps: NaN and infinities are filled, and the report has nothing left to warn of.
    let mended = "{ clean: { outliers: { x: { method: bounds, lower: -1e100, upper: 1e100, action: null } }, fill_null: { x: mean } } }";
    let said = run(&bench, &spec(&format!("{SPLIT}, {mended}, {{ normalize: {{ standard: [x] }} }}")));
    said.expect("mended", 0, &[]);
    assert!(!said.out.contains("NaN or infinite"), "{}", said.out);
    let rows = bench.rows("out", &manifest(&bench), "test");
    let x = rows.column_by_name("x").unwrap().as_any().downcast_ref::<Float64Array>().unwrap();
    assert!(x.null_count() == 0 && x.iter().flatten().all(|v| v.is_finite() && v.abs() < 10.0));
}

#[test]
fn stages_that_meet_data_they_cannot_work_on_name_stage_and_remedy() {
    let bench = bench();
    bench.parquet("in/a.parquet", &with(0, "one", Arc::new(Int64Array::from(vec![1; 300]))));
    let balance = format!("{SPLIT}, {{ balance: {{ column: one, method: undersample }} }}");
    bench.parquet("side/a.parquet", &with(0, "k", Arc::new(Int64Array::from(vec![0; 100]))));
    let cases: [(&str, &[&str]); 5] = [
        (&balance, &["column `one` has only one class", "balance"]),
        ("{ join: { with: side, on: [k] } }", &["source `side` has several rows with one key: k = 0", "stage `join`", "many: first"]),
        ("{ filter: name > 5 }", &["fails on a row", "stage `filter`, in `a.parquet` of source `s`", "try_cast"]),
        ("{ filter: 1 / (id - id) > 0 }", &["Divide by zero", "stage `filter`"]),
        ("{ cast: { columns: { name: int32 } } }", &["cannot cast name to int32", "row 0", "a.parquet", "on_fail"]),
    ];
    for (stages, words) in cases {
        run(&bench, &spec(stages)).expect(stages, 3, words);
    }
}

#[test]
fn stages_that_do_not_fit_the_columns_are_mistakes_of_the_spec() {
    let bench = bench();
    bench.parquet("side/a.parquet", &with(0, "k", Arc::new(StringArray::from(vec!["u"; 50]))));
    let cases: [(&str, &str); 22] = [
        ("{ filter: idd > 1 }", "did you mean `id`?"),
        ("{ filter: id > }", "no valid SQL"),
        ("{ filter: id + 1 }", "not true or false"),
        ("{ dedup: { keys: [idd] } }", "no column `idd` reaches this stage"),
        ("{ near_dedup: { column: namee } }", "did you mean `name`?"),
        ("{ split: { by: hash, key: idd, into: { train: 1 } } }", "no column `idd`"),
        ("{ split: { by: hash, key: id, into: { train: 0.8, test: 0.3 } } }", "add up to 1.1 and not to 1"),
        ("{ split: { by: hash, key: id, into: { \"../x\": 1 } } }", "no name for a split"),
        ("{ split: { by: hash, key: id, into: { train: 1 } } }, { split: { by: hash, key: id, into: { train: 1 } } }", "one at most"),
        ("{ normalize: { standard: [x] } }", "no `split` with a `train` part"),
        ("{ balance: { column: k, method: undersample } }", "no `split` with such a part"),
        ("{ normalize: { standard: [name], fit_on: all } }", "not a number"),
        ("{ clean: { fill_null: { xx: 0 } } }", "did you mean `x`?"),
        ("{ cast: { columns: { idd: int32 } } }", "no column `idd`"),
        ("{ select: [idd] }", "did you mean `id`?"),
        ("{ rename: { idd: z } }", "did you mean `id`?"),
        ("{ derive: { z: idd + 1 } }", "there is no column `idd`"),
        ("{ concat: { with: sidee } }", "did you mean `side`?"),
        ("{ join: { with: side, on: [k] } }", "key `k` is Int64 here"),
        ("{ sql: selec id fro input }", "no valid SQL"),
        ("{ sql: drop table input }", "no SELECT"),
        ("{ filterr: id > 1 }", "did you mean `filter`?"),
    ];
    for (stages, words) in cases {
        run(&bench, &spec(stages)).expect(stages, 78, &[words, "wrong.yaml:6:"]);
    }
}

#[test]
fn texts_that_are_no_spec_are_refused_in_few_words() {
    let bench = bench();
    let bomb = (1..10).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, i| {
        text + &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", "))
    });
    let cycle = spec("").replace("name: wrong", "name: wrong\nvars: { a: \"${b}\", b: \"${a}\" }").replace("uri: out", "uri: \"${a}\"");
    let deep = "[".repeat(100_000);
    let cases = [
        ("a list", "- a\n- b\n", "but this is a list"),
        ("empty", "", "the spec is empty"),
        ("text", "just text", "but this is text"),
        ("no YAML", "a: [unclosed", "this is not YAML"),
        ("a bomb", bomb.as_str(), "the spec grows beyond"),
        ("a cycle", cycle.as_str(), "the variable `a` stands for itself: a → b → a"),
        ("deep", deep.as_str(), "nested more than 64 deep"),
    ];
    for (case, text, words) in cases {
        let started = Instant::now();
        let said = run(&bench, text);
        assert_eq!(said.code, Some(78), "{case}: {}", said.err);
        assert!(said.err.contains(words), "{case}: {}", said.err);
        assert!(said.err.len() < 4000, "{case}: {} bytes of message", said.err.len());
        assert!(started.elapsed() < Duration::from_secs(20), "{case} took {:?}", started.elapsed());
    }
    std::fs::write(bench.path().join("noise.yaml"), [0xff, 0xfe, 0, 1, 2]).unwrap();
    Said::by(&mut feedline(&bench, &["run", "noise.yaml"])).expect("noise", 78, &["not UTF-8"]);
    Said::by(&mut feedline(&bench, &["run", "absent.yaml"])).expect("absent", 64, &["cannot read the spec", "absent.yaml"]);
}

#[test]
fn a_second_run_gives_way_and_a_killed_one_is_taken_up() {
    let bench = bench();
    std::fs::create_dir_all(bench.path().join("out/_feedline")).unwrap();
    let lease = std::fs::File::create(bench.path().join("out/_feedline/lease")).unwrap();
    lease.lock().unwrap();
    run(&bench, &spec("")).expect("lease", 75, &["another run is writing to this dataset", "run again"]);
    lease.unlock().unwrap();
    run(&bench, &spec("")).expect("lease free again", 0, &[]);

    let (whole, killed) = (self::bench(), self::bench());
    let spec = spec("{ dedup: { keys: [name] } }");
    for bench in [&whole, &killed] {
        bench.parquet("in/b.parquet", &table(300, 50_000));
    }
    run(&whole, &spec).expect("whole", 0, &[]);
    std::fs::write(killed.path().join("wrong.yaml"), &spec).unwrap();
    let mut child = feedline(&killed, &["-q", "run", "wrong.yaml"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let staging = killed.path().join("out/_feedline/staging");
    while !staging.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    run(&killed, &spec).expect("taken up", 0, &[]);
    assert_eq!(manifest(&killed).hash, manifest(&whole).hash);
}

/// Sets modes that shut out the one who runs the program, and runs it. `None` where that cannot be arranged here.
fn run_shut_out(bench: &Bench, shut: &Path, mode: u32, spec: &str) -> Option<Said> {
    std::fs::write(bench.path().join("wrong.yaml"), spec).unwrap();
    std::fs::set_permissions(bench.path(), Permissions::from_mode(0o777)).unwrap();
    let before = std::fs::metadata(shut).unwrap().permissions();
    std::fs::set_permissions(shut, Permissions::from_mode(mode)).unwrap();
    let probe = bench.path().join("probe");
    std::fs::write(&probe, "x").unwrap();
    std::fs::set_permissions(&probe, Permissions::from_mode(0o000)).unwrap();
    let mut command = feedline(bench, &["-q", "run", "wrong.yaml"]);
    // Modes mean nothing to root: then the program runs as nobody.
    if std::fs::read(&probe).is_ok() {
        command.uid(65534).gid(65534);
    }
    let runs = command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    let said = runs.then(|| Said::by(command.stdout(Stdio::piped()).stderr(Stdio::piped())));
    std::fs::set_permissions(shut, before).unwrap();
    said
}

#[test]
fn folders_and_files_without_permission_are_named() {
    let cases = [("in", 0o000), ("in/a.parquet", 0o000), ("out", 0o555)];
    for (shut, mode) in cases {
        let bench = bench();
        std::fs::create_dir_all(bench.path().join("out")).unwrap();
        std::fs::set_permissions(bench.path().join("out"), Permissions::from_mode(0o777)).unwrap();
        match run_shut_out(&bench, &bench.path().join(shut), mode, &spec("")) {
            Some(said) => said.expect(shut, 3, &["Permission denied", shut]),
            None => eprintln!("skipped {shut}: the program cannot be started as another user here"),
        }
    }
}

/// A small file system, gone when the test ends.
struct Small<'a>(&'a Path);

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_and_the_run_can_go_on_later() {
    let bench = bench();
    bench.parquet("in/b.parquet", &table(300, 300_000));
    let out = bench.path().join("out");
    std::fs::create_dir_all(&out).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=192k", "tmpfs"]).arg(&out).stderr(Stdio::null()).status();
    if !mount.is_ok_and(|status| status.success()) {
        eprintln!("skipped: a small file system cannot be mounted here");
        return;
    }
    let small = Small(&out);
    run(&bench, &spec("")).expect("full", 3, &["the disk is full", "free space"]);
    assert!(!out.join("_feedline/versions/00000001.json").exists());
    assert!(Command::new("mount").args(["-o", "remount,size=64m"]).arg(&out).status().unwrap().success());
    run(&bench, &spec("")).expect("with space", 0, &[]);
    assert_eq!(manifest(&bench).rows.output, 300_300);
    drop(small);
}
