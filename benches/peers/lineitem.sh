#!/usr/bin/env bash
# One job through Feedline, DuckDB and Polars: TPC-H lineitem to training shards. Prints wall-clock and CPU seconds, peak memory and rows of each, and fails
# unless all agree on the rows that are left.
#
#   benches/peers/lineitem.sh [folder]     default ${TMPDIR:-/tmp}/feedline-peers
#
#   SCALE=1            TPC-H's scale factor: 6 million rows, 220 MiB of Parquet each
#   DIRTY=1            repeat 1 % of the rows and make 0.1 % of the prices absurd, so that there is something to drop
#   MEMORY=1GiB        the budget for engines that take one
#   CORES=0,1          the cores to run on
#   PEERS="…"          which engines, and which of their forms: feedline feedline/full duckdb duckdb/partition polars
#   RUNS=1             how often; each run prints a table of its own
#   FEEDLINE=…         the binary; built with cargo where it is not given
#
# Needs Python with duckdb, polars and tpchgen-cli (pip install duckdb polars tpchgen-cli).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
scale=${SCALE:-1} memory=${MEMORY:-1GiB} cores=${CORES:-0,1} peers=${PEERS:-feedline duckdb polars}
folder=${1:-${TMPDIR:-/tmp}/feedline-peers}
raw=$folder/scale-$scale
mkdir -p "$raw"

if [[ ! -s $raw/lineitem.parquet ]]; then
    tpchgen-cli parquet -s "$scale" --tables=lineitem --output-dir="$raw"
fi
if [[ ${DIRTY:-0} != 0 ]]; then
    clean=$raw raw=$folder/scale-$scale-dirty
    mkdir -p "$raw"
    # Prices far from any threshold: each engine's hash draws a train split of its own, whose statistics say what an outlier is.
    [[ -s $raw/lineitem.parquet ]] || python3 - "$clean" "$raw" <<'PY'
import sys, duckdb
clean, raw = sys.argv[1:]
duckdb.execute(f"""
    COPY (SELECT * REPLACE (CAST(CASE WHEN hash(l_orderkey, l_linenumber) % 1000 = 1 THEN 9999999.99 ELSE l_extendedprice END AS DECIMAL(15, 2)) AS l_extendedprice)
          FROM (FROM '{clean}/lineitem.parquet' UNION ALL FROM '{clean}/lineitem.parquet' WHERE hash(l_orderkey, l_linenumber) % 100 = 0))
    TO '{raw}/lineitem.parquet' (FORMAT parquet, COMPRESSION snappy)
""")
PY
fi
if [[ $peers == *feedline* && -z ${FEEDLINE:-} ]]; then
    (cd "$here/../.." && cargo build --release --quiet --bin feedline)
    FEEDLINE=${CARGO_TARGET_DIR:-$here/../../target}/release/feedline
fi
export FEEDLINE=${FEEDLINE:-}
threads=$(awk -F, '{print NF}' <<<"$cores")
run=(python3 "$here/compare.py" "$raw" "$folder/out" "$memory" "$threads")
command -v taskset >/dev/null && run=(taskset -c "$cores" "${run[@]}")
for ((i = 0; i < ${RUNS:-1}; i++)); do
    # shellcheck disable=SC2086 # the list of engines is meant to be split
    "${run[@]}" $peers
done
