//! The way of the data from shards to a version.

use crate::support::{Bench, table};

const SPEC: &str = "
apiVersion: feedline/v1
name: spine
sources: { raw: { uri: raw } }
stages:
  - filter: id % 3 <> 0
sink: { uri: out }
resources: { threads: 2 }
";

#[test]
fn a_filter_is_decided_delivered_and_accounted_for() {
    let bench = Bench::new();
    bench.parquet("raw/a.parquet", &table(0, 1000));
    bench.parquet("raw/b.parquet", &table(1000, 500));
    let outcome = bench.run(SPEC).unwrap();
    let m = outcome.manifest;
    assert_eq!((m.version, m.rows.input, m.rows.output), (1, 1500, 1000));
    assert!(m.rows.balances());
    let rows = bench.rows("out", &m, "all");
    assert_eq!(rows.num_rows(), 1000);
    let again = bench.run(SPEC).unwrap().manifest;
    assert_eq!((again.version, &again.hash), (2, &m.hash));
}
