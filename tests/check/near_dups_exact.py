"""Near duplicates by exact Jaccard similarity, without MinHash and without Feedline.

    python3 tests/check/near_dups_exact.py <folder of Parquet shards> [--column text] [--threshold 0.7] [--words 5]

Texts in lower case, every digit taken as 0, words are runs of `\\w`, shingles are five words in a row, a shorter text is one shingle. Every pair that can reach
the threshold is compared (prefix filtering: Bayardo, Ma, Srikant 2007: of two sets whose similarity reaches t, the rarest |a| - ceil(t |a|) + 1
shingles of each share one), and connected components are counted. Prints the number of survivors: one of each component, and
all texts without a word.
"""

import argparse
import math
import re
from collections import defaultdict

import duckdb

WORD, DIGIT = re.compile(r"\w+"), re.compile(r"\d")


def shingles(text, size):
    words = WORD.findall(DIGIT.sub("0", text.lower()))
    if not words:
        return frozenset()
    return frozenset(" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1)))


def survivors(texts, threshold=0.7, size=5):
    sets = [shingles(text or "", size) for text in texts]
    parent = list(range(len(sets)))

    def find(x):
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    first = {}
    for i, s in enumerate(sets):
        if s:
            parent[i] = first.setdefault(s, i)
    frequency = defaultdict(int)
    for s in first:
        for shingle in s:
            frequency[shingle] += 1
    index = defaultdict(list)
    for i in sorted(first.values(), key=lambda i: len(sets[i])):
        s = sets[i]
        prefix = len(s) - math.ceil(threshold * len(s) - 1e-9) + 1
        seen = set()
        for shingle in sorted(s, key=lambda g: (frequency[g], g))[:prefix]:
            for j in index[shingle]:
                if j in seen or len(sets[j]) < threshold * len(s) - 1e-9 or find(i) == find(j):
                    continue
                seen.add(j)
                common = len(s & sets[j])
                if common / (len(s) + len(sets[j]) - common) >= threshold:
                    parent[find(i)] = find(j)
            index[shingle].append(i)
    return len({find(i) for i in range(len(sets))})


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("folder")
    args.add_argument("--column", default="text")
    args.add_argument("--threshold", type=float, default=0.7)
    args.add_argument("--words", type=int, default=5)
    args = args.parse_args()
    column = '"' + args.column.replace('"', '""') + '"'
    rows = duckdb.execute(f"select {column} from read_parquet(?)", [f"{args.folder}/**/*.parquet"]).fetchall()
    left = survivors([text for (text,) in rows], args.threshold, args.words)
    print(f"{len(rows)} texts, {left} survivors of exact Jaccard >= {args.threshold} over {args.words}-word shingles")


if __name__ == "__main__":
    main()
