//! Whole runs over a store that fails: each ends with the same version, or says which object failed and why, and the next run makes it.
//!
//! `FEEDLINE_FAULT_SEED=17 cargo test --test it faults` runs the seed of 17 alone.

use std::collections::BTreeMap;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use feedline::error::Error;
use feedline::storage::steady::Limits;
use feedline::storage::{Location, register_with};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::fault_data::{SHARDS, Size, fill, run_spec, shard, shard_path, spec, wrong_version};
use crate::faulty::{Broken, Fault, Faulty, Op, Plan, Record, Replaced};

const SEEDS: u64 = 200;
/// Runs at the same time. They mostly wait.
const AT_ONCE: usize = 16;
/// Patience with faults. A disk may be slow by itself.
const MEMORY: Limits = Limits { deadline: Duration::from_secs(4), silence: Duration::from_millis(300) };
const DISK: Limits = Limits { deadline: Duration::from_secs(6), silence: Duration::from_millis(1500) };
const CLEAN: Limits = Limits { deadline: Duration::from_secs(60), silence: Duration::from_secs(30) };

/// What stays broken in some runs.
const BROKEN: &[(Op, &str, &[Fault])] = &[
    (Op::List, "in", &[Fault::Before, Fault::Half, Fault::Silent]),
    (Op::Get, "in/part-1", &[Fault::Before, Fault::Silent, Fault::Denied]),
    (Op::Get, "staging/", &[Fault::Before, Fault::Denied]),
    (Op::Put, "/lease", &[Fault::Denied, Fault::After, Fault::Before]),
    (Op::Put, "staging/", &[Fault::Before, Fault::After]),
    (Op::Put, "/data/", &[Fault::Before, Fault::After, Fault::Silent, Fault::Denied]),
    (Op::Put, "/quarantine/", &[Fault::Before, Fault::Denied]),
    (Op::Put, "/reports/", &[Fault::Before, Fault::Silent]),
    (Op::Put, "/versions/", &[Fault::Before, Fault::After, Fault::Silent, Fault::Denied]),
    (Op::List, "versions", &[Fault::Before, Fault::Half]),
];

fn luck(seed: u64, what: &str, of: usize) -> usize {
    (xxh3_64_with_seed(what.as_bytes(), seed) % of as u64) as usize
}

fn size(seed: u64) -> Size {
    if seed.is_multiple_of(20) { Size::Large } else { Size::Small }
}

/// The faults of a seed: three of five seeds have passing ones alone, one has something that stays broken, in one an input is replaced.
fn plan(seed: u64) -> Plan {
    let mut plan = Plan { seed, percent: 2 + luck(seed, "percent", 12) as u64, broken: None, replaced: None };
    if size(seed) == Size::Large {
        // Few requests in all, and those of uploads are what matters.
        plan.percent = 25;
        return plan;
    }
    match seed % 5 {
        3 => {
            let (op, part, faults) = BROKEN[(seed / 5) as usize % BROKEN.len()];
            let from = if op == Op::Get { luck(seed, "from", 5) as u64 } else { 0 };
            plan.broken = Some(Broken { op, part, from, fault: faults[luck(seed, "fault", faults.len())] });
        }
        4 => {
            let which = luck(seed, "shard", SHARDS);
            let by = shard(which, Size::Small, true);
            plan.replaced = Some(Replaced { path: shard_path(which), from: luck(seed, "from", 8) as u64, by });
        }
        _ => {}
    }
    plan
}

/// The hashes of runs without faults.
struct Expected {
    small: String,
    large: String,
    /// With an input shard replaced.
    replaced: Vec<String>,
}

impl Expected {
    /// Made once: tests of one process share the names of stores.
    async fn get() -> &'static Self {
        static MADE: tokio::sync::OnceCell<Expected> = tokio::sync::OnceCell::const_new();
        MADE.get_or_init(Self::new).await
    }

    async fn new() -> Self {
        let mut replaced = Vec::new();
        for which in 0..SHARDS {
            replaced.push(clean(&format!("clean-{which}"), Size::Small, Some(which)).await);
        }
        Self { small: clean("clean", Size::Small, None).await, large: clean("clean-large", Size::Large, None).await, replaced }
    }

    fn of(&self, seed: u64) -> &String {
        if size(seed) == Size::Large { &self.large } else { &self.small }
    }
}

async fn clean(name: &str, size: Size, replaced: Option<usize>) -> String {
    let store = Arc::new(InMemory::new());
    fill(store.as_ref(), size).await;
    if let Some(which) = replaced {
        let (before, after) = (shard(which, size, false), shard(which, size, true));
        assert!(before.len() == after.len() && before != after);
        store.put(&shard_path(which), after.into()).await.unwrap();
    }
    let root = format!("memory://faulty-{name}");
    register_with(&root, store, CLEAN);
    run_spec(&spec(&root, "out", size, ""), FsPath::new("/")).await.unwrap().manifest.hash
}

/// How a seed's run ended.
struct Ended {
    /// The error, where it failed.
    failed: Option<String>,
    record: Record,
}

/// Runs a seed under a name, and says what is wrong with how it ended.
async fn run_seed(seed: u64, name: &str, expected: &Expected) -> Result<Ended, String> {
    let dir = tempfile::tempdir().unwrap();
    let (store, limits): (Arc<dyn ObjectStore>, _) = match seed % 4 {
        1 => (Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap()), DISK),
        _ => (Arc::new(InMemory::new()), MEMORY),
    };
    fill(store.as_ref(), size(seed)).await;
    let faulty = Faulty::new(store.clone(), plan(seed));
    let root = format!("memory://faulty-{name}");
    let text = spec(&root, "out", size(seed), "");
    register_with(&root, Arc::new(faulty.clone()), limits);
    let ended = run_spec(&text, dir.path()).await;
    let (record, replaced) = (faulty.record(), faulty.replaced().await);
    let out = || Location::of(store.clone(), "out");
    let Err(e) = ended else {
        // What was replaced after its last reading changed nothing.
        return match wrong_version(out(), expected.of(seed)).await {
            None => Ok(Ended { failed: None, record }),
            Some(wrong) => Err(format!("it succeeded with {wrong}")),
        };
    };
    let told = format!("{e} {}", e.to_do().unwrap_or_default());
    if let Some(lacks) = lacks(&e, &root, replaced) {
        return Err(format!("the error {lacks}: {told}"));
    }
    let versions: Vec<_> = store.list(Some(&"out/_feedline/versions".into())).try_collect().await.unwrap();
    if !versions.is_empty() {
        return Err(format!("a version is visible after: {told}"));
    }
    // A lease that could not be given back runs out by itself within a minute.
    let _ = store.delete(&"out/_feedline/lease".into()).await;
    register_with(&root, store.clone(), CLEAN);
    if let Err(e) = run_spec(&text, dir.path()).await {
        return Err(format!("the next run fails: {e}"));
    }
    let which = plan(seed).replaced.and_then(|r| (0..SHARDS).find(|i| shard_path(*i) == r.path));
    let hash = which.filter(|_| replaced).map_or(expected.of(seed), |which| &expected.replaced[which]);
    match wrong_version(out(), hash).await {
        None => Ok(Ended { failed: Some(told), record }),
        Some(wrong) => Err(format!("the next run makes {wrong}")),
    }
}

/// What an error lacks: the object, the cause, a remedy, a fitting exit code.
fn lacks(e: &Error, root: &str, replaced: bool) -> Option<&'static str> {
    let told = e.to_string();
    let causes = ["connection reset by plan", "no answer within", "permission denied", "replaced while the run read it"];
    if !told.contains(&format!("{root}/in")) && !told.contains(&format!("{root}/out/")) {
        Some("names no object")
    } else if !causes.iter().any(|cause| told.contains(cause)) {
        Some("names no cause")
    } else if replaced && !told.contains("replaced") {
        Some("does not say that the input was replaced")
    } else if e.to_do().is_none() {
        Some("has no remedy")
    } else if e.exit_code() != 3 {
        Some("has another exit code than 3")
    } else {
        None
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

#[test]
fn runs_with_faults_end_whole_or_say_why() {
    let only = std::env::var("FEEDLINE_FAULT_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds: Vec<u64> = only.map_or_else(|| (1..=SEEDS).collect(), |seed| vec![seed]);
    let ended = runtime().block_on(async {
        let expected = Expected::get().await;
        let runs = stream::iter(seeds).map(|seed| {
            let run = tokio::spawn(async move { run_seed(seed, &format!("seed-{seed}"), expected).await });
            async move { (seed, run.await.unwrap_or_else(|e| Err(format!("it panicked: {e}")))) }
        });
        runs.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await
    });
    let (mut whole, mut by_fault, mut wrong) = (0, BTreeMap::new(), Vec::new());
    for (seed, ended) in &ended {
        match ended {
            Err(what) => wrong.push(format!("FEEDLINE_FAULT_SEED={seed}: {what}")),
            Ok(ended) => {
                whole += usize::from(ended.failed.is_none());
                let kinds: std::collections::BTreeSet<_> = ended.record.iter().map(|((op, ..), fault)| (*op, *fault)).collect();
                for kind in kinds {
                    let (overcome, fatal): &mut (usize, usize) = by_fault.entry(kind).or_default();
                    *(if ended.failed.is_none() { overcome } else { fatal }) += 1;
                }
            }
        }
    }
    println!("{} runs: {whole} succeeded, {} failed, {} ended wrongly", ended.len(), ended.len() - whole - wrong.len(), wrong.len());
    by_fault
        .iter()
        .for_each(|((op, fault), (overcome, fatal))| println!("  {op:?} {fault:?}: met by {overcome} that succeeded, {fatal} that failed"));
    if only.is_some() {
        ended.iter().flat_map(|(_, ended)| ended).for_each(|e| println!("{:?}\n{:#?}", e.failed, e.record));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if only.is_none() {
        assert!(whole >= 80 && ended.len() - whole >= 30, "{whole} of {} succeeded", ended.len());
        let overcome = |op, fault| by_fault.get(&(op, fault)).is_some_and(|(overcome, _)| *overcome > 0);
        for op in [Op::Get, Op::Put, Op::List] {
            op.faults().iter().for_each(|fault| assert!(overcome(op, *fault), "no run met {op:?} {fault:?} and succeeded"));
        }
        // Few shards are large enough to be sent in parts.
        for op in [Op::Part, Op::Complete] {
            assert!(op.faults().iter().any(|fault| overcome(op, *fault)), "no run met a fault of {op:?} and succeeded");
        }
    }
}

#[test]
fn a_seed_brings_its_faults_back() {
    runtime().block_on(async {
        let expected = Expected::get().await;
        for seed in [1, 3, 6, 9, 14, 20] {
            let first = run_seed(seed, "again", expected).await.unwrap();
            let second = run_seed(seed, "again", expected).await.unwrap();
            assert_eq!(first.failed, second.failed, "seed {seed}");
            if first.failed.is_none() {
                assert_eq!(first.record, second.record, "seed {seed}");
            }
        }
    });
}
