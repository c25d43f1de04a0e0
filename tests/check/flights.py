"""An independent recount of a published version of pipelines/flights.yaml, in DuckDB: flights.py <dataset folder> <raw data folder>

Replays the stages that the manifest's spec names, on the raw shards, with SQL of its own. Two things are taken from the version itself, since nobody else can know
them: which split a key fell into, and which rows of the large class `balance` left. Everything else, row by row and value by value, must be what the replay gives.
"""

import sys

from version import Checks, Version

KEYS = ["carrier", "flight", "origin", "time_hour"]


def quoted(names):
    return ", ".join(f'"{n}"' for n in names)


class Replay:
    """The rows so far are the table `t`; `_n` is their place in the source."""

    def __init__(self, version, raw, checks):
        self.v, self.db, self.raw, self.checks = version, version.db, raw, checks
        self.db.execute(f"""
            CREATE TABLE t AS SELECT * EXCLUDE (filename, file_row_number), row_number() OVER (ORDER BY filename, file_row_number) AS _n, NULL::VARCHAR AS _split
            FROM read_parquet('{raw}/flights/**/*.parquet', hive_partitioning = true, hive_types = {{'month': BIGINT}}, filename = true, file_row_number = true)
        """)
        checks.equal("rows in", self.count(), version.manifest["rows"]["input"])

    def count(self):
        return self.v.one("SELECT count(*) FROM t")

    def replace(self, select):
        self.db.execute(f"CREATE OR REPLACE TABLE t AS {select}")

    def set(self, column, expression):
        self.replace(f'SELECT * REPLACE ({expression} AS "{column}") FROM t')

    def drop(self, label, keep):
        before = self.count()
        self.replace(f"SELECT * FROM t WHERE {keep}")
        self.checks.equal(f"{label}: rejected rows", self.v.rejected(label), before - self.count())

    def filter(self, label, options):
        where = options if isinstance(options, str) else options["where"]
        self.drop(label, f"coalesce(({where}), false)")

    def join(self, label, options):
        side, on = f"{self.raw}/{options['with']}.parquet", options["on"]
        self.checks.equal(f"{label}: keys that are in the side twice", self.v.one(
            f"SELECT count(*) FROM (SELECT 1 FROM '{side}' GROUP BY {quoted(on)} HAVING count(*) > 1)"), 0)
        takes = quoted(f"{c}" for c in options["columns"])
        equal = " AND ".join(f't."{k}" = s."{k}"' for k in on)
        before = self.count()
        self.replace(f"SELECT t.*, {', '.join('s.' + c for c in takes.split(', '))} FROM t {options.get('how', 'left')} JOIN '{side}' s ON {equal}")
        self.checks.equal(f"{label}: rejected rows", self.v.rejected(label), before - self.count())

    def dedup(self, label, options):
        best = "min" if options.get("keep", "first") == "first" else "max"
        self.drop(label, f"_n IN (SELECT {best}(_n) FROM t GROUP BY {quoted(options['keys'])})")
        twice = self.v.one(f"SELECT count(*) FROM (SELECT 1 FROM out GROUP BY {quoted(options['keys'])} HAVING count(*) > 1)")
        self.checks.equal(f"{label}: keys that are still there twice", twice, 0)

    def derive(self, _, options):
        for name, sql in options.items():
            self.replace(f'SELECT *, {sql} AS "{name}" FROM t')

    def split(self, _, options):
        keys = options["key"] if isinstance(options["key"], list) else [options["key"]]
        same = " AND ".join(f't."{k}" IS NOT DISTINCT FROM k."{k}"' for k in keys)
        self.replace(f"""
            SELECT t.* EXCLUDE (_split), k._split FROM t
            LEFT JOIN (SELECT {quoted(keys)}, any_value(_split) AS _split FROM out GROUP BY ALL) k ON {same}
        """)
        self.v.splits(self.checks, keys, options["into"], "t")

    def clean(self, label, options):
        tests = []
        for column, outlier in options.get("outliers", {}).items():
            if (outlier["method"], outlier["action"]) != ("zscore", "drop"):
                sys.exit(f"{label}: this check knows `zscore` with `drop` alone")
            fit = self.v.fit(label, "moments", column)
            beyond = f"""abs("{column}" - {fit['mean']!r}) > {float(outlier.get('threshold', 4))!r} * sqrt({fit['variance']!r})"""
            # Of a key without any row in the version the split is not known. Only train loses rows other than outliers, so it is train unless all its rows are
            # outliers; how much those few can move mean and variance is the tolerance.
            n, mean, variance = self.db.execute(
                f"""SELECT count("{column}"), avg("{column}"), var_pop("{column}") FROM t WHERE coalesce(_split, 'train') = 'train'"""
            ).fetchone()
            first, second = self.db.execute(f"""
                SELECT coalesce(sum(abs("{column}" - {mean!r})), 0) / {n}, coalesce(sum(("{column}" - {mean!r}) ** 2), 0) / {n} FROM t WHERE _split IS NULL AND {beyond}
            """).fetchone()
            self.checks.near(f"{label}: mean of {column} over train", fit["mean"], mean, 1e-9 * variance**0.5 + 1.01 * first)
            self.checks.near(f"{label}: variance of {column} over train", fit["variance"], variance, 1e-9 * variance + 1.01 * (second + first**2))
            tests.append(beyond)
        if tests:
            self.drop(label, f"NOT coalesce({' OR '.join(tests)}, false)")
        self.set("_split", "coalesce(_split, 'train')")
        for column, value in options.get("fill_null", {}).items():
            self.set(column, f'coalesce("{column}", {self.filling(label, column, value)})')
            self.checks.equal(f"{label}: nulls in {column}", self.v.one(f'SELECT count(*) FROM out WHERE "{column}" IS NULL'), 0)

    def filling(self, label, column, value):
        if value not in ("mean", "median"):
            return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)
        learned = self.v.fit(label, "moments", column)["mean"] if value == "mean" else self.v.fit(label, "quantiles", column)["values"][0]
        exact = self.v.one(f"""SELECT {value}("{column}") FROM t WHERE _split = 'train'""")
        self.checks.near(f"{label}: {value} of {column} over train", learned, exact, 1e-9 * abs(exact))
        return repr(learned)

    def balance(self, label, options):
        column = options["column"]
        if (options["method"], options.get("ratio", 1)) != ("undersample", 1):
            sys.exit(f"{label}: this check knows `undersample` to equal classes alone")
        classes = f'SELECT "{column}", count(*) AS n FROM {{}} WHERE _split = \'train\' AND "{column}" IS NOT NULL GROUP BY 1 ORDER BY 1'
        before = self.db.execute(classes.format("t")).fetchall()
        left = self.db.execute(classes.format("out")).fetchall()
        least = min(n for _, n in before)
        self.checks.equal(f"{label}: rows of each class in train", [n for _, n in left], [least] * len(before))
        same = " AND ".join(f't."{k}" IS NOT DISTINCT FROM o."{k}"' for k in KEYS)
        self.drop(label, f"_split <> 'train' OR EXISTS (FROM out o WHERE {same})")

    def normalize(self, label, options):
        for column in options.get("standard", []):
            fit = self.v.fit(label, "moments", column)
            self.moments(label, column, fit)
            self.set(column, f"""("{column}" - {fit['mean']!r}) / sqrt({fit['variance']!r})""")
            mean, deviation = self.db.execute(f"""SELECT avg("{column}"), stddev_pop("{column}") FROM out WHERE _split = 'train'""").fetchone()
            self.checks.near(f"{label}: mean of {column} in train", mean, 0, 1e-9)
            self.checks.near(f"{label}: standard deviation of {column} in train", deviation, 1, 1e-9)
        for column in options.get("minmax", []):
            fit = self.v.fit(label, "moments", column)
            self.moments(label, column, fit)
            self.set(column, f"""("{column}" - {fit['min']!r}) / ({fit['max']!r} - {fit['min']!r})""")
            ends = self.db.execute(f"""SELECT min("{column}"), max("{column}") FROM out WHERE _split = 'train'""").fetchone()
            self.checks.equal(f"{label}: ends of {column} in train", ends, (0.0, 1.0))
        for column in options.get("log1p", []):
            self.set(column, f'ln(1 + "{column}")')

    def moments(self, label, column, fit):
        mean, variance, low, high = self.db.execute(
            f"""SELECT avg("{column}"), var_pop("{column}"), min("{column}"), max("{column}") FROM t WHERE _split = 'train'"""
        ).fetchone()
        self.checks.near(f"{label}: learned mean of {column}", fit["mean"], mean, 1e-9 * (abs(mean) + variance**0.5))
        self.checks.near(f"{label}: learned variance of {column}", fit["variance"], variance, 1e-9 * variance)
        self.checks.equal(f"{label}: learned ends of {column}", (fit["min"], fit["max"]), (low, high))

    def encode(self, label, options):
        unknown = options.get("unknown_value", "NULL")
        for column in options.get("ordinal", []):
            self.db.execute(f"""CREATE OR REPLACE TABLE codes AS SELECT "{column}" AS v, row_number() OVER (ORDER BY "{column}") - 1 AS code
                                FROM (SELECT DISTINCT "{column}" FROM t WHERE _split = 'train' AND "{column}" IS NOT NULL)""")
            self.replace(f"""SELECT t.* REPLACE (CASE WHEN t."{column}" IS NULL THEN NULL ELSE coalesce(codes.code, {unknown}) END AS "{column}")
                             FROM t LEFT JOIN codes ON t."{column}" = codes.v""")

    def compare(self):
        """Row by row, value by value."""
        described = {name: kind for name, kind, *_ in self.db.execute("DESCRIBE out").fetchall()}
        mine = {row[0] for row in self.db.execute("DESCRIBE t").fetchall()}
        self.checks.equal("columns", sorted(set(described) - {"_split"}), sorted(mine - {"_split", "_n"}))
        same = " AND ".join(f't."{k}" IS NOT DISTINCT FROM o."{k}"' for k in KEYS)
        pairs = self.v.one(f"SELECT count(*) FROM t JOIN out o ON {same} AND t._split = o._split")
        self.checks.equal("rows of the replay that are in the version, in their split", pairs, self.count())
        self.checks.equal("rows of the version", self.v.one("SELECT count(*) FROM out"), self.count())
        for column in sorted(mine & set(described) - {"_split"}):
            a, b = f't."{column}"', f'o."{column}"'
            number = described[column] in ("DOUBLE", "FLOAT")
            equal = f"abs({a} - {b}) <= 1e-9 * (1 + abs({a}))" if number else f"{a}::VARCHAR = {b}::VARCHAR"
            differ = self.v.one(f"SELECT count(*) FROM t JOIN out o ON {same} WHERE NOT coalesce({equal}, {a} IS NULL AND {b} IS NULL)")
            self.checks.equal(f"rows in which {column} differs", differ, 0)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    checks = Checks()
    version = Version(sys.argv[1], checks)
    replay = Replay(version, sys.argv[2], checks)
    for label, name, options in version.stages():
        step = getattr(replay, name, None)
        if name not in ("filter", "join", "dedup", "derive", "split", "clean", "balance", "normalize", "encode"):
            sys.exit(f"this check does not know the stage `{name}`")
        step(label, options)
    replay.compare()
    checks.done()


if __name__ == "__main__":
    main()
