//! What a run tells: how far it is, what is odd, where an error lies; to people, and to programs.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, new_null_array};
use arrow::datatypes::DataType;
use feedline::engine::run::RunOptions;
use feedline::progress::Progress;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::support::{Bench, Said, feedline, table};

fn spec(stages: &str) -> String {
    format!(
        "apiVersion: feedline/v1\nname: told\nsources: {{ s: {{ uri: in }} }}\nstages: [{stages}]\nsink: {{ uri: out }}\n\
         resources: {{ threads: 2 }}\n"
    )
}

fn run(bench: &Bench, stages: &str, args: &[&str]) -> Said {
    std::fs::write(bench.path().join("told.yaml"), spec(stages)).unwrap();
    Said::by(&mut feedline(bench, &[&["run", "told.yaml", "--force"], args].concat()))
}

/// Quantiles, exact samples and balanced classes read their rows more than once.
#[test]
fn progress_ends_at_its_total_and_never_passes_it() {
    let bench = Bench::new();
    for part in 0..3 {
        bench.parquet(&format!("in/{part}.parquet"), &table(part * 1000, 1000));
    }
    let stages = "{ dedup: { keys: [name] } }, { split: { by: stratified, column: k, into: { train: 0.8, test: 0.2 } } }, \
                  { clean: { outliers: { x: { method: iqr, action: clip } }, fill_null: { x: median, name: mode } } }, \
                  { sample: { rows: 2000 } }, { balance: { column: k, method: oversample } }, { normalize: { robust: [x], minmax: [id] } }";
    let progress = Arc::<Progress>::default();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (progress, done) = (progress.clone(), done.clone());
        move || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                if let Some(now) = progress.now() {
                    assert!(now.rows <= now.rows_total || now.rows_total == 0, "{now:?}");
                }
                std::thread::yield_now();
            }
        }
    });
    let outcome = bench.run_as(&spec(stages), &[], &RunOptions { force: true, progress: progress.clone() });
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    outcome.unwrap();
    watcher.join().unwrap();
    let phases = progress.done(0);
    for phase in &phases {
        assert_eq!(phase.rows, phase.rows_total, "{phase:?}");
    }
    let readings = |label: &str| phases.iter().find(|p| p.label == label).unwrap_or_else(|| panic!("{label}: {phases:?}")).rows / 3000;
    assert_eq!((readings("profile"), readings("decide dedup"), readings("deliver")), (1, 1, 1));
    assert_eq!((readings("decide split"), readings("decide sample")), (4, 4));
    // Two quantile fits, each counted and sorted, and the frequencies of a name.
    assert!(phases.iter().any(|p| p.label.starts_with("learn clean") && p.rows / 3000 >= 2), "{phases:?}");
}

fn with_column(name: &str, column: ArrayRef) -> RecordBatch {
    let table = table(0, column.len() as i64);
    let schema = table.schema();
    let mut columns: Vec<(&str, ArrayRef)> = schema.fields().iter().map(|f| f.name().as_str()).zip(table.columns().to_vec()).collect();
    columns.push((name, column));
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}

#[test]
fn what_a_stage_could_not_do_is_told_everywhere() {
    let bench = Bench::new();
    bench.parquet("in/a.parquet", &with_column("empty", new_null_array(&DataType::Int64, 300)));
    let split = "{ split: { by: hash, key: id, into: { train: 0.8, test: 0.2 } } }";
    let cases = [
        ("{ balance: { column: empty, method: undersample, only: all } }", "no row has a label in `empty`"),
        (&format!("{split}, {{ balance: {{ column: empty, method: oversample }} }}"), "no row has a label in `empty`"),
        (&format!("{split}, {{ balance: {{ column: empty, method: weights }} }}"), "no row of `train` has a value in `empty`"),
        (&format!("{split}, {{ normalize: {{ standard: [empty] }} }}"), "no row of `train` has a value in `empty`"),
    ];
    for (stages, words) in cases {
        let said = run(&bench, stages, &[]);
        said.expect(stages, 0, &["WARN", words]);
        assert!(said.out.contains("look at") && said.out.contains(words), "{stages}: {}", said.out);
        let summary = run(&bench, stages, &["--json"]).json();
        let told = summary["warnings"].as_array().unwrap().iter().filter(|w| w["message"].as_str().unwrap().contains(words)).count();
        assert_eq!(told, 1, "{stages}: {summary:#}");
        let page = std::fs::read_to_string(bench.path().join(summary["report"].as_str().unwrap()).join("report.html")).unwrap();
        assert!(page.contains("nothing"), "{stages}: the page does not tell");
    }
}

#[test]
fn a_version_without_rows_is_told_of_and_can_be_looked_at() {
    let bench = Bench::new();
    bench.parquet("in/a.parquet", &table(0, 300));
    let learn = "{ split: { by: hash, key: id, into: { train: 0.8, test: 0.2 } } }, { clean: { fill_null: { x: mean } } }";
    for stages in ["{ filter: id < 0 }", &format!("{{ filter: id < 0 }}, {learn}"), &format!("{learn}, {{ filter: id < 0 }}")] {
        let said = run(&bench, stages, &[]);
        said.expect(stages, 0, &["WARN", "every row was rejected"]);
        for words in ["look at rows: all of 300 rows were rejected: the version is empty", "delivered 0 rows"] {
            assert!(said.out.split_whitespace().collect::<Vec<_>>().join(" ").contains(words), "{stages}: {}", said.out);
        }
        for command in ["verify", "feed", "report", "ls"] {
            Said::by(&mut feedline(&bench, &[command, "out"])).expect(command, 0, &[]);
        }
    }
}

/// The shard has two units of several row groups each, and is not the first one: only its own numbers help who has to look at the row.
#[test]
fn a_value_that_cannot_be_cast_is_named_with_its_file_and_row() {
    let bench = Bench::new();
    bench.parquet("in/a.parquet", &table(0, 300));
    let at = bench.path().join("in/b.parquet");
    let bad = 1_100_123;
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values((0..1_200_000).map(|i| if i == bad { 70_000 } else { i % 100 })));
    let batch = RecordBatch::try_from_iter_with_nullable([("id", ids, true)]).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(350_000)).build();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&at).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let said = run(&bench, "{ cast: { columns: { id: int16 } } }", &[]);
    let place = "stage `cast`, in row 1100123 (from 0) of `b.parquet` of source `s`";
    said.expect("cast", 3, &["cannot cast id to int16: the value is `70000`", place]);
}

#[test]
fn programs_get_json_come_what_may() {
    let bench = Bench::new();
    bench.parquet("in/a.parquet", &table(0, 300));
    let ask = |args: &[&str]| Said::by(&mut feedline(&bench, args));
    let write = |text: &str| std::fs::write(bench.path().join("told.yaml"), text).unwrap();

    // Mistakes that the text shows, and mistakes that only the columns show: one form.
    for (stages, at) in [("{ filterr: id }", "/stages/0/filterr"), ("{ dedup: { keys: [idd] } }", "/stages/0/dedup/keys/0")] {
        write(&spec(stages));
        let said = ask(&["validate", "told.yaml", "--json"]);
        assert_eq!((said.code, said.err.as_str()), (Some(78), ""));
        let mistakes = said.json();
        let [one] = mistakes.as_array().unwrap().as_slice() else { panic!("{mistakes}") };
        assert_eq!((one["file"].as_str(), one["line"].as_u64(), one["at"].as_str()), (Some("told.yaml"), Some(4), Some(at)));
        assert!(one["help"].as_str().unwrap().starts_with("did you mean"), "{one}");
        let said = ask(&["run", "told.yaml", "--json"]);
        said.expect("run", 78, &["1 mistake in told.yaml"]);
        let error = &said.json()["error"];
        assert_eq!((&error["mistakes"], error["message"].as_str()), (&mistakes, Some("1 mistake in told.yaml")));
        assert_eq!((error["kind"].as_str(), error["exit_code"].as_u64()), (Some("spec"), Some(78)));
    }

    write(&spec("").replace("uri: in", "uri: nowhere"));
    for args in [
        &["validate", "told.yaml", "--json"][..],
        &["run", "told.yaml", "--json"],
        &["ls", "nowhere", "--json"],
        &["diff", "nowhere", "--json"],
        &["verify", "nowhere", "--json"],
        &["feed", "nowhere", "--json"],
    ] {
        let said = ask(args);
        said.expect(args[0], 3, &["nowhere"]);
        let error = &said.json()["error"];
        assert!(error["message"].is_string() && error["place"].as_str().unwrap().contains("nowhere"), "{}: {error}", args[0]);
        assert_eq!((error["kind"].as_str(), error["exit_code"].as_u64()), (Some("input"), Some(3)), "{}", args[0]);
        assert!(error["hint"].is_string(), "{}: {error}", args[0]);
    }
    write(&spec(""));
    assert_eq!(ask(&["validate", "told.yaml", "--json"]).json(), serde_json::json!([]));
}
