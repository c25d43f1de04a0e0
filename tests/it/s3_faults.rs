//! Whole runs over a real S3 protocol whose server fails, stops, or sees its client killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use feedline::engine::run::Outcome;
use feedline::error::Result;
use feedline::storage::Location;

use crate::fault_data::{SHARDS, Size, run_spec, shard, shard_path, spec, wrong_version};
use crate::s3_server::{ACCESS_KEY, Asked, BUCKET, HttpFault, HttpPlan, S3Server, SECRET_KEY};
use crate::support::Said;

/// A server with input shards, and the keys' file.
struct Bench {
    dir: tempfile::TempDir,
    server: S3Server,
}

impl Bench {
    fn new(size: Size) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = S3Server::start(&dir.path().join("s3"));
        // Written without the server's own notes beside them, so that ETags follow from their content.
        for i in 0..SHARDS {
            let file = server.file(shard_path(i).as_ref());
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, shard(i, size, false)).unwrap();
        }
        let keys = format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
        std::fs::write(dir.path().join("keys"), keys).unwrap();
        Self { dir, server }
    }

    fn stores(&self, retry_s: u64, timeout_s: u64) -> String {
        let endpoint = self.server.endpoint();
        format!(
            "{{ 's3://': {{ endpoint: '{endpoint}', region: us-east-1, allow_http: true, credentials_file: keys, retry_s: {retry_s}, \
             timeout_s: {timeout_s} }} }}"
        )
    }

    fn run(&self, out: &str, size: Size, retry_s: u64) -> Result<Outcome> {
        self.run_within(out, size, retry_s, 30)
    }

    fn run_within(&self, out: &str, size: Size, retry_s: u64, timeout_s: u64) -> Result<Outcome> {
        let text = spec(&format!("s3://{BUCKET}"), out, size, &format!("stores: {}\n", self.stores(retry_s, timeout_s)));
        let base = self.dir.path();
        block_on(async { run_spec(&text, base).await })
    }

    /// What is wrong with a dataset, as it lies on the server's disk.
    fn wrong(&self, out: &str, expected: &str) -> Option<String> {
        let root = Location::open(out, &self.server.file("")).unwrap();
        block_on(wrong_version(root, expected))
    }

    /// The objects below a folder.
    fn objects(&self, folder: &str) -> Vec<PathBuf> {
        fn walk(at: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
                if entry.path().is_dir() { walk(&entry.path(), found) } else { found.push(entry.path()) }
            }
        }
        let mut found = Vec::new();
        walk(&self.server.file(folder), &mut found);
        found
    }

    /// The command in a process of its own, with keys and endpoint from its environment.
    fn spawn(&self, args: &[&str]) -> Child {
        let env = [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_ENDPOINT_URL", &self.server.endpoint()),
            ("AWS_ALLOW_HTTP", "true"),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
        command.current_dir(self.dir.path()).args(args).envs(env).env_remove("AWS_SESSION_TOKEN").env_remove("AWS_PROFILE");
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

fn wait_for(what: &str, mut seen: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !seen() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn expected(bench: &Bench, size: Size) -> String {
    let hash = bench.run("clean", size, 20).unwrap().manifest.hash;
    assert_eq!(bench.wrong("clean", &hash), None);
    hash
}

#[test]
fn s3_runs_with_passing_faults_make_the_same_version() {
    let hash = expected(&Bench::new(Size::Small), Size::Small);
    // They mostly wait: each with a server of its own, at the same time.
    let one = |seed: u64| {
        let bench = Bench::new(Size::Small);
        bench.server.plan(HttpPlan { seed, percent: 8, ..Default::default() });
        bench.run("out", Size::Small, 30).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{:?}", e.to_do()));
        assert_eq!(bench.wrong("out", &hash), None, "seed {seed}");
        bench.server.faults()
    };
    let faults: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (1..=12)
            .map(|seed| {
                let one = &one;
                scope.spawn(move || one(seed))
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let met: std::collections::BTreeSet<_> = faults.into_iter().flatten().map(|((_, fault), _)| fault).collect();
    use HttpFault::{After, Before, Cut, Gone, GoneAfter, Slow, Throttle};
    let all = [Throttle, Before, After, Gone, GoneAfter, Cut, Slow];
    assert!(all.iter().all(|fault| met.contains(fault)), "only {met:?}");
}

#[test]
fn s3_uploads_in_parts_survive_faults() {
    let bench = Bench::new(Size::Large);
    let hash = expected(&bench, Size::Large);
    assert!(bench.server.count(Asked::Complete, "/data/split") > 0, "nothing was uploaded in parts");
    for seed in 1..=2 {
        bench.server.plan(HttpPlan { seed, percent: 15, ..Default::default() });
        bench.run(&format!("out-{seed}"), Size::Large, 20).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(bench.wrong(&format!("out-{seed}"), &hash), None, "seed {seed}");
    }
    // Completed, and the answer lost each time: the server does not know the upload any more.
    bench.server.plan(HttpPlan { seed: 1, broken: Some((Asked::Complete, "/data/split", HttpFault::After)), ..Default::default() });
    let e = bench.run("lost", Size::Large, 1).unwrap_err();
    assert!(e.to_string().contains("lost/data/") && e.exit_code() == 3, "{e}");
    assert!(bench.objects("lost/_feedline/versions").is_empty());
    bench.server.plan(HttpPlan::default());
    bench.run("lost", Size::Large, 20).unwrap();
    assert_eq!(bench.wrong("lost", &hash), None);
}

#[test]
fn s3_faults_that_stay_are_named_and_the_next_run_succeeds() {
    let bench = Bench::new(Size::Small);
    let hash = expected(&bench, Size::Small);
    let broken = [
        (Asked::Get, "in/part-1", HttpFault::Before, "in/part-1.parquet", "S3 failed inside", 3),
        (Asked::Get, "in/part-2", HttpFault::Gone, "in/part-2.parquet", "", 3),
        (Asked::Get, "in/part-0", HttpFault::Expired, "in/part-0.parquet", "the session token has expired", 3),
        (Asked::Put, "/data/split", HttpFault::After, "/data/split=", "S3 failed inside", 3),
        (Asked::Put, "/data/split", HttpFault::Expired, "/data/split=", "the session token has expired", 3),
        (Asked::Put, "/versions/", HttpFault::Throttle, "/versions/00000001.json", "the store asks to slow down", 75),
    ];
    for (i, (asked, part, fault, named, cause, exit)) in broken.into_iter().enumerate() {
        bench.server.plan(HttpPlan { seed: 1, broken: Some((asked, part, fault)), ..Default::default() });
        let out = format!("out-{i}");
        let e = bench.run(&out, Size::Small, 1).unwrap_err();
        let said = e.to_string();
        assert!(said.contains(named) && said.contains(cause) && e.exit_code() == exit && e.to_do().is_some(), "{i}: {said} ({exit})");
        assert!(bench.objects(&format!("{out}/_feedline/versions")).is_empty());
        bench.server.plan(HttpPlan::default());
        bench.run(&out, Size::Small, 20).unwrap();
        assert_eq!(bench.wrong(&out, &hash), None);
    }
}

#[test]
fn silence_is_what_counts_not_how_long_an_s3_transfer_takes() {
    let bench = Bench::new(Size::Large);
    let hash = expected(&bench, Size::Large);
    // A part takes longer than the server may be silent, as on a slow link.
    let parts = bench.server.count(Asked::Part, "/data/split");
    bench.server.plan(HttpPlan { delay_of: Some((Asked::Part, Duration::from_secs(2))), ..Default::default() });
    bench.run_within("out", Size::Large, 3, 1).unwrap();
    assert_eq!(bench.wrong("out", &hash), None);
    assert_eq!(bench.server.count(Asked::Part, "/data/split"), parts, "parts were sent more than once");
    // A server that falls silent in mid-body is asked again for the rest.
    bench.server.plan(HttpPlan { broken: Some((Asked::Get, "in/part-1", HttpFault::Stalled)), ..Default::default() });
    bench.run_within("stalled", Size::Large, 10, 1).unwrap();
    assert_eq!(bench.wrong("stalled", &hash), None);
    assert!(bench.server.faults().keys().any(|(_, fault)| *fault == HttpFault::Stalled));
    // One that says nothing at all is given up, in words.
    bench.server.plan(HttpPlan { delay_of: Some((Asked::Get, Duration::from_secs(60))), ..Default::default() });
    let e = bench.run_within("silent", Size::Large, 2, 1).unwrap_err();
    assert!(e.to_string().contains("no answer within 1.0 s") && e.to_string().contains("in/part-"), "{e}");
}

#[test]
fn an_s3_input_replaced_while_it_is_read_is_reported() {
    let bench = Bench::new(Size::Small);
    let mut hashes = Vec::new();
    for from in [1, 3, 9] {
        let (key, old, new) = (shard_path(1).to_string(), shard(1, Size::Small, false), shard(1, Size::Small, true));
        std::fs::write(bench.server.file(&key), old).unwrap();
        bench.server.plan(HttpPlan { replaced: Some((key, from, new)), ..Default::default() });
        let out = format!("out-{from}");
        let e = bench.run(&out, Size::Small, 2).unwrap_err();
        assert!(e.to_string().contains("replaced") && e.to_string().contains("in/part-1.parquet"), "{e}");
        assert!(bench.objects(&format!("{out}/_feedline/versions")).is_empty());
        bench.server.plan(HttpPlan::default());
        hashes.push(bench.run(&out, Size::Small, 2).unwrap().manifest.hash);
    }
    assert!(hashes.iter().all(|h| *h == hashes[0]) && hashes[0] != expected_of_old(&bench));
}

fn expected_of_old(bench: &Bench) -> String {
    std::fs::write(bench.server.file(shard_path(1).as_ref()), shard(1, Size::Small, false)).unwrap();
    expected(bench, Size::Small)
}

#[test]
fn a_run_waits_for_an_s3_server_that_comes_back() {
    let mut bench = Bench::new(Size::Small);
    let hash = expected(&bench, Size::Small);
    // Slow enough that the server stops in the middle.
    bench.server.plan(HttpPlan { delay: Duration::from_millis(20), ..Default::default() });
    let text = spec(&format!("s3://{BUCKET}"), "out", Size::Small, &format!("stores: {}\n", bench.stores(30, 30)));
    let base = bench.dir.path().to_owned();
    let run = std::thread::spawn(move || block_on(async { run_spec(&text, &base).await }).map_err(|e| e.to_string()));
    wait_for("the first verdict", || bench.server.count(Asked::Put, "verdicts") > 0);
    bench.server.stop();
    std::thread::sleep(Duration::from_secs(2));
    assert!(!run.is_finished());
    bench.server.start_again();
    run.join().unwrap().unwrap();
    assert_eq!(bench.wrong("out", &hash), None);
}

#[test]
fn commands_reach_a_dataset_on_s3_as_a_spec_says() {
    let bench = Bench::new(Size::Small);
    // The file with the keys lies beside the spec, and the commands run elsewhere, with nothing in their environment.
    let folder = bench.dir.path().join("specs");
    std::fs::create_dir(&folder).unwrap();
    std::fs::rename(bench.dir.path().join("keys"), folder.join("keys")).unwrap();
    let stores = format!("stores: {}\n", bench.stores(20, 30));
    std::fs::write(folder.join("spec.yaml"), spec(&format!("s3://{BUCKET}"), "out", Size::Small, &stores)).unwrap();
    let said = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
        command.args(args).current_dir(bench.dir.path()).envs([("HOME", bench.dir.path()), ("NO_COLOR", "1".as_ref())]);
        std::env::vars_os().filter(|(k, _)| k.to_string_lossy().starts_with("AWS_")).for_each(|(k, _)| _ = command.env_remove(k));
        Said::by(&mut command)
    };
    said(&["run", "specs/spec.yaml"]).expect("run", 0, &[]);
    let (out, parts, to) = (format!("s3://{BUCKET}/out"), format!("s3://{BUCKET}/in/*.parquet"), format!("s3://{BUCKET}/scored"));
    for command in ["ls", "verify", "report", "gc", "feed"] {
        said(&[command, &out, "--stores", "specs/spec.yaml"]).expect(command, 0, &[]);
    }
    // This server creates several times what should be created once; doctor would say so.
    said(&["doctor", &out, "--read-only", "--stores", "specs/spec.yaml"]).expect("doctor", 0, &[]);
    said(&["diff", &out, "--stores", "specs/spec.yaml"]).expect("diff", 64, &["there is only one version"]);
    said(&["apply", &out, &parts, "--to", &to, "--stores", "specs/spec.yaml"]).expect("apply", 0, &[]);
    assert_eq!(bench.objects("scored").len(), SHARDS + 1);
    said(&["ls", &out, "--stores", "specs/none.yaml"]).expect("no such spec", 64, &["specs/none.yaml"]);
}

#[test]
fn a_kill_while_an_s3_upload_is_open_leaves_nothing_visible() {
    let bench = Bench::new(Size::Large);
    let hash = expected(&bench, Size::Large);
    std::fs::write(bench.dir.path().join("spec.yaml"), spec(&format!("s3://{BUCKET}"), "out", Size::Large, "")).unwrap();
    bench.server.plan(HttpPlan { delay_of: Some((Asked::Part, Duration::from_secs(60))), ..Default::default() });
    let mut run = bench.spawn(&["run", "spec.yaml"]);
    wait_for("an open upload", || bench.server.count(Asked::Part, "/out/data/") > 0);
    run.kill().unwrap();
    assert!(!run.wait().unwrap().success());
    assert!(bench.server.count(Asked::Begin, "/out/data/") > 0 && bench.server.count(Asked::Complete, "/out/data/") == 0);
    assert_eq!(bench.objects("out/data"), Vec::<PathBuf>::new());
    assert_eq!(bench.objects("out/_feedline/versions"), Vec::<PathBuf>::new());
    bench.server.plan(HttpPlan::default());
    assert!(bench.spawn(&["run", "spec.yaml"]).wait().unwrap().success());
    assert_eq!(bench.wrong("out", &hash), None);
}
