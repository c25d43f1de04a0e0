"""What every check needs: the newest version of a dataset, its shards verified, and a list of what holds and what does not."""

import hashlib
import json
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq


class Checks:
    """Says of each claim whether it holds; `done` ends the process with 1 where one does not."""

    def __init__(self):
        self.passed = self.failed = 0

    def that(self, claim, holds, detail=""):
        self.passed, self.failed = self.passed + bool(holds), self.failed + (not holds)
        print(f"{'ok  ' if holds else 'FAIL'}  {claim}{'' if holds and not detail else f': {detail}'}")

    def equal(self, claim, found, expected):
        self.that(claim, found == expected, f"{found}" if found == expected else f"{found} instead of {expected}")

    def near(self, claim, found, expected, tolerance):
        self.that(claim, abs(found - expected) <= tolerance, f"{found:.10g}, expected {expected:.10g}")

    def done(self):
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed else 0)


class Version:
    """The newest version of a dataset, with its rows as the DuckDB table `out` (all columns, `_split`)."""

    def __init__(self, folder, checks):
        self.root = Path(folder)
        manifests = sorted((self.root / "_feedline" / "versions").glob("*.json"))
        if not manifests:
            sys.exit(f"no version in {self.root}: run the pipeline first")
        self.manifest = json.loads(manifests[-1].read_text())
        self._exact()
        self.db = duckdb.connect()
        self.db.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        print(f"version {self.manifest['version']} of {self.manifest['name']} in {self.root}")
        self._shards(checks)
        self._rows(checks)

    def _exact(self):
        """Floating point stands in a manifest as text, exact to the last bit."""
        for fit in self.manifest["fits"].values():
            for name in ("mean", "variance", "min", "max"):
                if name in fit:
                    fit[name] = float(fit[name])
            if fit["kind"] == "quantiles":
                fit["values"] = [float(v) for v in fit["values"]]

    def _shards(self, checks):
        shards = self.manifest["shards"]
        wrong = []
        for shard in shards:
            path = self.root / shard["path"]
            meta = pq.read_metadata(path)
            groups = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
            same = (
                hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"]
                and path.stat().st_size == shard["bytes"]
                and meta.num_rows == shard["rows"]
                and groups == shard["row_groups"]
            )
            wrong += [] if same else [shard["path"]]
        checks.that(f"{len(shards)} shards have the hash, size, rows and row groups that the manifest says", shards and not wrong, ", ".join(wrong))
        parts = [
            f"SELECT *, '{shard['split']}' AS _split FROM read_parquet('{self.root / shard['path']}', hive_partitioning = false)" for shard in shards
        ]
        self.db.execute("CREATE TABLE out AS " + " UNION ALL BY NAME ".join(parts))

    def _rows(self, checks):
        rows = self.manifest["rows"]
        rejected = sum(n for reasons in rows["rejected"].values() for n in reasons.values())
        checks.equal("rows in + added = out + rejected", rows["input"] + sum(rows["added"].values()), rows["output"] + rejected)
        checks.equal("rows in all shards", self.one("SELECT count(*) FROM out"), rows["output"])
        by_split = dict(self.db.execute("SELECT _split, count(*) FROM out GROUP BY 1").fetchall())
        checks.equal("rows by split", by_split, {k: v for k, v in rows["by_split"].items() if v})

    def one(self, sql, *values):
        return self.db.execute(sql, list(values)).fetchone()[0]

    def rejected(self, label):
        return sum(self.manifest["rows"]["rejected"].get(label, {}).values())

    def fit(self, label, kind, column):
        """What the stage with this label learned of a column."""
        for key, fit in self.manifest["fits"].items():
            if key.startswith(f"{label}/") and fit["kind"] == kind and key.endswith(f"({column})"):
                return fit
        sys.exit(f"the manifest has no {kind} of {column} for {label}; it has {list(self.manifest['fits'])}")

    def stages(self):
        """Each stage's label (`clean`, `clean#2`), name and options, in order."""
        seen = {}
        for entry in self.manifest["spec"]["stages"]:
            ((name, options),) = entry.items() if isinstance(entry, dict) else ((entry, {}),)
            seen[name] = seen.get(name, 0) + 1
            yield (name if seen[name] == 1 else f"{name}#{seen[name]}"), name, options

    def splits(self, checks, keys, into, rows, tolerance=0.05):
        """Every key is in one split, and the shares of the rows are near those asked for. `rows` is a table with `_split`;
        few large keys need a wide tolerance."""
        names = ", ".join(f'"{k}"' for k in keys)
        shared = self.one(f"SELECT count(*) FROM (SELECT {names} FROM out GROUP BY ALL HAVING count(DISTINCT _split) > 1)")
        checks.equal(f"values of {names} in more than one split", shared, 0)
        known = dict(self.db.execute(f"SELECT _split, count(*) FROM {rows} WHERE _split IS NOT NULL GROUP BY 1").fetchall())
        for name, share in into.items():
            checks.near(f"share of {name}", known.get(name, 0) / sum(known.values()), share, tolerance)
