"""An independent recount of a published version of pipelines/docs.yaml: docs.py <dataset folder> <raw data folder>

Equal texts are counted over a normal form written here anew, near duplicates by exact Jaccard similarity of every pair (near_dups_exact.py), and what was left is searched
for near duplicates once more. MinHash may miss a pair, so those counts may differ by 5 %; all others are exact.
"""

import sys
import unicodedata

from near_dups_exact import shingles, survivors
from version import Checks, Version

TOLERANCE = 0.05


def is_gap(c):
    if ord(c) < 128:
        return not c.isalnum()
    return not c.isalnum() and unicodedata.category(c)[0] in "PZC"


def normal_form(text):
    """NFKC, lower case, every run of punctuation and white space as one space; a text of nothing else as it is."""
    folded = "".join(" " if is_gap(c) else c for c in unicodedata.normalize("NFKC", text).lower())
    return " ".join(folded.split()) or text


def first_of_each(rows, form):
    seen = set()
    return [row for row in rows if row["text"] is None or not ((key := form(row["text"])) in seen or seen.add(key))]


class Replay:
    """The rows so far, as dictionaries in the source's order."""

    def __init__(self, version, raw, checks):
        self.v, self.checks = version, checks
        cursor = version.db.execute(f"SELECT path, source, kind, text FROM read_parquet('{raw}/docs/*.parquet', filename = true, file_row_number = true) "
                                    "ORDER BY filename, file_row_number")
        self.rows = [dict(zip(("path", "source", "kind", "text"), row)) for row in cursor.fetchall()]
        self.out = version.db.execute("SELECT path, source, text, characters FROM out").fetchall()
        self.near = False
        checks.equal("rows in", len(self.rows), version.manifest["rows"]["input"])

    def drop(self, label, left):
        found, expected = self.v.rejected(label), len(self.rows) - len(left)
        if self.near:
            self.checks.near(f"{label}: rejected rows", found, expected, max(5, TOLERANCE * len(self.rows)))
        else:
            self.checks.equal(f"{label}: rejected rows", found, expected)
        self.rows = left

    def dedup(self, label, options):
        if options.get("keep", "first") != "first" or options.get("text") != "text":
            sys.exit(f"{label}: this check knows `text: text` with `keep: first` alone")
        self.drop(label, first_of_each(self.rows, normal_form))
        forms = [normal_form(text) for _, _, text, _ in self.out]
        self.checks.equal(f"{label}: texts that are still there twice", len(forms) - len(set(forms)), 0)

    def near_dedup(self, label, options):
        threshold, words = options.get("threshold", 0.7), options.get("shingle", {}).get("words", 5)
        before = len(self.rows)
        exact = survivors([row["text"] for row in self.rows], threshold, words)
        left = before - self.v.rejected(label)
        self.checks.near(f"{label}: survivors, against {exact} of exact Jaccard", left, exact, TOLERANCE * exact)
        texts = [text for _, _, text, _ in self.out]
        missed = len(texts) - survivors(texts, threshold, words)
        self.checks.that(f"{label}: near duplicates that are still there", missed <= TOLERANCE * len(texts), str(missed))
        lost = {row["source"] for row in self.rows} - {source for _, source, _, _ in self.out}
        print(f"      {len(lost)} sources have no text of their own left")
        self.near = True

    def filter(self, label, options):
        where = options if isinstance(options, str) else options["where"]
        self.v.db.execute("CREATE OR REPLACE TABLE t AS SELECT path, text FROM out")
        wrong = self.v.one(f"SELECT count(*) FROM out WHERE NOT coalesce(({where.replace('character_length', 'length')}), false)")
        self.checks.equal(f"{label}: rows that should have gone", wrong, 0)

    def derive(self, label, options):
        if list(options) != ["characters"]:
            sys.exit(f"{label}: this check knows `characters` alone")
        wrong = sum(len(text) != characters for _, _, text, characters in self.out)
        self.checks.equal(f"{label}: wrong numbers of characters", wrong, 0)

    def split(self, _, options):
        keys = options["key"] if isinstance(options["key"], list) else [options["key"]]
        self.v.splits(self.checks, keys, options["into"], "out", tolerance=0.1)

    def compare(self):
        known = {(row["path"], row["text"]) for row in self.rows}
        strange = sum((path, text) not in known for path, _, text, _ in self.out)
        self.checks.equal("texts that are not what the source has", strange, 0)
        empty = sum(not shingles(text, 5) for _, _, text, _ in self.out)
        print(f"      {empty} texts without a word")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    checks = Checks()
    version = Version(sys.argv[1], checks)
    replay = Replay(version, sys.argv[2], checks)
    for label, name, options in version.stages():
        if name not in ("dedup", "near_dedup", "filter", "derive", "split"):
            sys.exit(f"this check does not know the stage `{name}`")
        getattr(replay, name)(label, options)
    replay.compare()
    checks.done()


if __name__ == "__main__":
    main()
