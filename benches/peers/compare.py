"""Runs one job through several engines, one after another, and prints what each took: `compare.py <raw> <out> <memory> <threads> <engine>...`.

An engine may have a form: `feedline/full` profiles every row before and after (the default of a spec; `lineitem.yaml` turns it off, since the others
write no report), `duckdb/partition` writes with `PARTITION_BY`.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import duckdb

HERE = Path(__file__).resolve().parent


def command(engine, raw, out, memory, threads):
    engine, _, form = engine.partition("/")
    if engine == "feedline":
        values = {"vars.raw": raw, "vars.out": out, "resources.memory": memory, "resources.threads": threads}
        values |= {"report.profile": form} if form else {}
        return [os.environ["FEEDLINE"], "run", str(HERE / "lineitem.yaml"), *(word for k, v in values.items() for word in ("--set", f"{k}={v}"))]
    return [sys.executable, str(HERE / f"lineitem_{engine}.py"), raw, out, memory, threads, *filter(None, [form])]


def run(words, log):
    """Wall-clock seconds, CPU seconds and peak resident MiB of a process and of those it waited for."""
    begin = time.monotonic()
    with open(log, "wb") as output:
        child = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, time.monotonic() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def counts(out):
    files = [str(p) for p in Path(out).glob("**/*.parquet") if "_feedline" not in p.parts]
    rows = duckdb.execute("SELECT split, count(*) FROM read_parquet(?, hive_partitioning = true) GROUP BY 1", [files]).fetchall()
    size = sum(os.path.getsize(f) for f in files)
    return dict(rows), size / 2**20


def main():
    raw, out, memory, threads, *engines = sys.argv[1:]
    results = {}
    for engine in engines:
        folder = f"{out}/{engine.replace('/', '-')}"
        log = f"{folder}.log"
        subprocess.run(["rm", "-rf", folder], check=True)
        os.makedirs(out, exist_ok=True)
        code, wall, cpu, memory_peak = run(command(engine, raw, folder, memory, threads), log)
        if code != 0:
            print(f"{engine}: exit code {code}; the end of {log}:\n" + "".join(open(log, errors="replace").readlines()[-15:]), file=sys.stderr)
            continue
        results[engine] = (wall, cpu, memory_peak, *counts(folder))
    if not results:
        sys.exit("no engine finished")
    base = results.get("feedline")
    print(f"{'engine':16} {'wall s':>8} {'CPU s':>8} {'peak MiB':>9} {'out MiB':>8} {'train':>10} {'validation':>10} {'test':>10} {'rows':>11}"
          + ("   wall, CPU, memory against feedline" if base else ""))
    for engine, (wall, cpu, peak, rows, size) in results.items():
        split = " ".join(f"{rows.get(name, 0):>10}" for name in ("train", "validation", "test"))
        ratio = f"   {wall / base[0]:.2f} x, {cpu / base[1]:.2f} x, {peak / base[2]:.2f} x" if base else ""
        print(f"{engine:16} {wall:8.2f} {cpu:8.2f} {peak:9.0f} {size:8.1f} {split} {sum(rows.values()):>11}{ratio}")
    totals = {engine: sum(result[3].values()) for engine, result in results.items()}
    if len(set(totals.values())) != 1:
        sys.exit(f"the engines do not agree on how many rows are left: {totals}")
    print(f"all agree: {next(iter(totals.values()))} rows without duplicates and outliers")
    if len(results) != len(engines):
        sys.exit(1)


if __name__ == "__main__":
    main()
