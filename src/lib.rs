//! Feedline turns raw shards into training batches. One YAML file says where the shards lie, what happens to them, and how a trainer gets them.
//!
//! ```text
//!  pipeline.yaml ─ spec ─▶ plan ───────────────────────────────┐
//!                                                              ▼
//!  shards on disk ─▶ source ─▶ passes: decide, fit, … deliver ─▶ sink ─▶ dataset version ─▶ feed ─▶ trainer
//!                     units      engine                           │       shards + manifest    ring of batches
//!                                DataFusion, Polars, Arrow        └▶ quality report, quarantine
//! ```
//!
//! | Module | What it does |
//! |---|---|
//! | [`spec`] | YAML to a typed pipeline, every mistake at once; no I/O |
//! | [`plan`] | pipeline and schemas to segments, steps and passes; reads nothing |
//! | [`storage`], [`source`] | a URI to a store; shards to units to rows with an identity |
//! | [`stages`] | one file a stage; each lowers to steps |
//! | [`engine`] | runs passes: decisions, fits, reshapes; the crossing to Polars |
//! | [`sink`], [`dataset`] | delivery, commit; versions, what changed between them, what can go |
//! | [`feed`] | a version becomes batches for a trainer |
//! | [`quality`] | the report of a run |
//! | [`error`], [`progress`], [`cli`] | the one error; how far a run has come; the command line |
//!
//! # What holds
//!
//! 1. **DataFusion moves rows, Polars changes columns.** Batches cross in [`engine::bridge`] only.
//! 2. **Decide on few columns, deliver once.** What happens to a row is settled before the row is copied; every row that leaves has a stage and a reason:
//!    `input + Σ added = output + Σ rejected` ([`dataset::manifest::Rows::balances`]).
//! 3. **Fitted stages learn from the training split alone**, unless the spec says otherwise; what they learned is in the manifest.
//! 4. **The same bytes, whatever ran it**: any number of threads, any batch size and memory budget, whole or killed and resumed. Random choices are
//!    hashes of the seed and a row's identity or key.
//! 5. **Nothing half-done is ever visible**: a version is one manifest, created after all that it names.
//!
//! # Example
//!
//! ```
//! use feedline::engine::run::{RunOptions, run};
//! use feedline::error::Error;
//!
//! let folder = tempfile::tempdir()?;
//! let orders = r#"{"cups": 2, "order_id": 1}
//! {"cups": 2, "order_id": 1}
//! {"cups": 0, "order_id": 2}
//! {"cups": 3, "order_id": 3}
//! "#;
//! std::fs::write(folder.path().join("orders.jsonl"), orders)?;
//!
//! let spec = r#"
//! apiVersion: feedline/v1
//! name: teahouse
//! sources: { orders: { uri: orders.jsonl } }
//! stages:
//!   - filter: "cups > 0"
//!   - dedup: { keys: [order_id], keep: first }
//! sink: { uri: out }
//! "#;
//! // No overrides, no environment. Relative paths start from the folder given to `run`.
//! let loaded = feedline::spec::load(spec, "pipeline.yaml", &[], &|_| None).map_err(Error::from)?;
//! let runtime = tokio::runtime::Runtime::new()?;
//! let outcome = runtime.block_on(run(&loaded, folder.path(), &RunOptions::default()))?;
//!
//! let rows = &outcome.manifest.rows;
//! assert_eq!((rows.input, rows.output), (4, 2));
//! assert_eq!(rows.rejected["filter"].values().sum::<u64>(), 1);
//! assert_eq!(rows.rejected["dedup"].values().sum::<u64>(), 1);
//! assert!(rows.balances());
//!
//! // The same spec over the same input makes no new version.
//! let again = runtime.block_on(run(&loaded, folder.path(), &RunOptions::default()))?;
//! assert!(outcome.fresh && !again.fresh);
//! assert_eq!(again.manifest.hash, outcome.manifest.hash);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `README.md` is the way in for users; `ARCHITECTURE.md` has a line on every module, and how each rule is held.

pub mod cli;
pub mod crypt;
pub mod dataset;
pub mod engine;
pub mod error;
pub mod feed;
pub mod plan;
pub mod progress;
pub mod quality;
pub mod sink;
pub mod source;
pub mod spec;
pub mod stages;
pub mod storage;
