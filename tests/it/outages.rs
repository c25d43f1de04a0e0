//! Servers that fail in mid-run: a run waits for them, and ends with the same version. Each test breaks servers of its own.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use feedline::dataset::{Dataset, Manifest};
use feedline::storage::Location;

use crate::servers::{SPEC, real_stores, runtime};
use crate::support::{Bench, table};

/// Servers of one test's own, which end with this process. `None` where no servers were started for the tests at all.
fn own(kind: &str) -> Option<HashMap<String, String>> {
    real_stores().first()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/start");
    let pid = std::process::id().to_string();
    let mut command = Command::new(script);
    // The control socket and the settings of the servers that other tests share are not for this one.
    command.args(["--for", &pid, kind]).env_remove("FEEDLINE_TEST_SERVERS").env_remove("HADOOP_CONF_DIR").stdin(Stdio::null());
    let started = command.output().unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let text = String::from_utf8(started.stdout).unwrap();
    let pairs = text.lines().filter_map(|l| l.strip_prefix("export ")?.split_once('='));
    Some(pairs.map(|(k, v)| (k.to_owned(), v.replace('\\', ""))).collect())
}

fn stop(servers: &HashMap<String, String>) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/stop");
    let _ = Command::new(script).envs(servers).output();
}

/// Longer than any outage here.
const PATIENCE: &str = "stores: { \"s3://\": { retry_s: 60 }, \"hdfs://\": { retry_s: 60 } }\n";

struct Case {
    bench: Bench,
    servers: HashMap<String, String>,
    uri: String,
    /// What a run without an outage made, and how long it took.
    expected: Manifest,
    whole: Duration,
}

impl Case {
    fn new(servers: HashMap<String, String>, uri: &str) -> Self {
        let bench = Bench::new();
        let spec = format!("{SPEC}{PATIENCE}");
        std::fs::write(bench.path().join("spec.yaml"), &spec).unwrap();
        for part in 0..6 {
            bench.parquet(&format!("raw/part-{part}.parquet"), &table(part * 3000, 4000));
        }
        let here = bench.path().display().to_string();
        let local = spec.replace("${FROM}", &here).replace("${TO}", &format!("{here}/out"));
        let expected = bench.run(&local).unwrap().manifest;
        let mut case = Self { bench, servers, uri: uri.to_owned(), expected, whole: Duration::ZERO };
        // The raw shards go to the server as they are.
        for part in 0..6 {
            let bytes = std::fs::read(case.bench.path().join(format!("raw/part-{part}.parquet"))).unwrap();
            case.put(&format!("raw/part-{part}.parquet"), bytes);
        }
        let begin = Instant::now();
        assert!(case.feedline("spec.yaml", uri, &format!("{uri}/first")).wait().unwrap().success());
        case.whole = begin.elapsed();
        assert_eq!(case.newest("first").hash, case.expected.hash);
        case
    }

    fn feedline(&self, spec: &str, from: &str, to: &str) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
        command.args(["run", spec, "--force", "--quiet"]).current_dir(self.bench.path()).envs(&self.servers);
        command.env("FROM", from).env("TO", to).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    }

    /// Options with which this process reaches the servers: its own environment names others.
    fn location(&self, path: &str) -> Location {
        let mut options = feedline::spec::stores::StoreSpec::default();
        let file = self.bench.path().join("keys");
        if self.uri.starts_with("s3") {
            let keys = (&self.servers["AWS_ACCESS_KEY_ID"], &self.servers["AWS_SECRET_ACCESS_KEY"]);
            std::fs::write(&file, format!("[default]\naws_access_key_id={}\naws_secret_access_key={}\n", keys.0, keys.1)).unwrap();
            options.credentials_file = Some(file.display().to_string());
            options.endpoint = self.servers.get("AWS_ENDPOINT_URL").cloned();
            options.allow_http = Some(true);
        } else {
            options.hadoop_conf = self.servers.get("HADOOP_CONF_DIR").cloned();
        }
        let scheme = format!("{}://", self.uri.split("://").next().unwrap());
        let uri = format!("{}/{path}", self.uri);
        Location::open_with(&uri, self.bench.path(), &[(scheme, options)].into_iter().collect()).unwrap()
    }

    fn put(&self, path: &str, bytes: Vec<u8>) {
        runtime().block_on(self.location(path).write(bytes)).unwrap();
    }

    fn newest(&self, out: &str) -> Manifest {
        runtime().block_on(Dataset::new(self.location(out)).manifest(None)).unwrap()
    }

    /// A run with an outage at one moment of it.
    fn run_through(&self, out: &str, moment: f64, outage: impl FnOnce()) {
        let mut run = self.feedline("spec.yaml", &self.uri, &format!("{}/{out}", self.uri));
        std::thread::sleep(self.whole.mul_f64(moment));
        assert!(run.try_wait().unwrap().is_none(), "the run was over before the outage");
        outage();
        assert!(run.wait().unwrap().success(), "{out}");
        let made = self.newest(out);
        assert_eq!((&made.hash, &made.shards), (&self.expected.hash, &self.expected.shards));
    }
}

#[test]
fn an_s3_server_that_stops_and_starts_costs_only_time() {
    let Some(servers) = own("s3") else { return };
    let uri = servers["FEEDLINE_TEST_S3"].clone();
    let case = Case::new(servers, &uri);
    let control = |what: &str| {
        let done = Command::new(&case.servers["FEEDLINE_TEST_S3_CONTROL"]).arg(what).envs(&case.servers).output().unwrap();
        assert!(done.status.success(), "{what}: {}", String::from_utf8_lossy(&done.stderr));
    };
    for (out, moment) in [("early", 0.2), ("middle", 0.5), ("late", 0.75)] {
        case.run_through(out, moment, || {
            control("kill");
            std::thread::sleep(Duration::from_secs(2));
            control("start");
        });
    }
    stop(&case.servers);
}

#[test]
fn a_datanode_that_stops_and_a_namenode_that_hands_over_cost_only_time() {
    let Some(servers) = own("hdfs-ha") else { return };
    let uri = servers["FEEDLINE_TEST_HDFS"].clone();
    let case = Case::new(servers, &uri);
    let control = |command: &str| {
        let mut socket = TcpStream::connect(&case.servers["FEEDLINE_TEST_HDFS_CONTROL"]).unwrap();
        writeln!(socket, "{command}").unwrap();
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).unwrap();
        assert_eq!(answer.trim(), "ok", "{command}");
    };
    case.run_through("datanode", 0.3, || control("stop-datanode 0"));
    control("start-datanode 0");
    case.run_through("failover", 0.4, || {
        control("standby 0");
        control("active 1");
    });
    case.run_through("safemode", 0.4, || {
        control("safemode on");
        std::thread::sleep(Duration::from_secs(2));
        control("safemode off");
    });
    stop(&case.servers);
}
