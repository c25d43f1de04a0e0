"""The lineitem job in DuckDB: `lineitem_duckdb.py <raw folder> <out folder> <memory> <threads> [split | partition]`.

Written for speed. Duplicates are found on the two keys and the row's number alone; what is joined afterwards is only the few rows that go. The parts are
written one after another, each by all threads, because `PARTITION_BY` (the form `partition`) takes more time and memory. Statistics are of the training
split, as in the other two.
"""

import os
import shutil
import sys

import duckdb

raw, out, memory, threads = sys.argv[1:5]
form = sys.argv[5] if len(sys.argv) > 5 else "split"
shutil.rmtree(out, ignore_errors=True)
db = duckdb.connect()
db.execute(f"SET memory_limit = '{memory}'; SET threads = {threads}; SET temp_directory = '{out}.tmp'")
db.execute("SET preserve_insertion_order = false; SET enable_progress_bar = false")
db.execute(f"""
    CREATE VIEW raw AS SELECT *, CASE WHEN hash(l_orderkey, 7) % 10 < 8 THEN 'train' WHEN hash(l_orderkey, 7) % 10 < 9 THEN 'validation' ELSE 'test' END AS split
    FROM read_parquet('{raw}/lineitem.parquet', file_row_number = true)
""")
db.execute("""
    CREATE TEMP TABLE twice AS SELECT l_orderkey, l_linenumber, min(file_row_number) AS first FROM raw GROUP BY l_orderkey, l_linenumber HAVING count(*) > 1
""")
db.execute("""
    CREATE TEMP TABLE again AS SELECT file_row_number AS row FROM raw JOIN twice USING (l_orderkey, l_linenumber) WHERE file_row_number > first
""")
db.execute("CREATE VIEW unique_rows AS SELECT * FROM raw ANTI JOIN again ON file_row_number = again.row")
price_mean, price_std, quantity_mean, quantity_std = db.execute("""
    SELECT avg(l_extendedprice), stddev_pop(l_extendedprice), avg(l_quantity), stddev_pop(l_quantity) FROM unique_rows WHERE split = 'train'
""").fetchone()
db.execute(f"""
    CREATE VIEW inside AS SELECT * FROM unique_rows
    WHERE coalesce(abs(l_extendedprice::DOUBLE - {price_mean!r}::DOUBLE) <= 4 * {price_std!r}::DOUBLE, true)
      AND coalesce(abs(l_quantity::DOUBLE - {quantity_mean!r}::DOUBLE) <= 4 * {quantity_std!r}::DOUBLE, true)
""")
price_mean, price_std, quantity_mean, quantity_std, discount = db.execute("""
    SELECT avg(l_extendedprice), stddev_pop(l_extendedprice), avg(l_quantity), stddev_pop(l_quantity), avg(l_discount) FROM inside WHERE split = 'train'
""").fetchone()
db.execute(f"""
    CREATE VIEW clean AS SELECT * EXCLUDE (file_row_number) REPLACE (
        (l_extendedprice::DOUBLE - {price_mean!r}::DOUBLE) / {price_std!r}::DOUBLE AS l_extendedprice,
        (l_quantity::DOUBLE - {quantity_mean!r}::DOUBLE) / {quantity_std!r}::DOUBLE AS l_quantity,
        coalesce(l_discount::DOUBLE, {discount!r}::DOUBLE) AS l_discount
    ) FROM inside
""")
options = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3, ROW_GROUP_SIZE 131072"
if form == "partition":
    db.execute(f"COPY (FROM clean) TO '{out}' ({options}, PARTITION_BY (split))")
else:
    for split in ("train", "validation", "test"):
        os.makedirs(f"{out}/split={split}")
        db.execute(f"COPY (SELECT * EXCLUDE (split) FROM clean WHERE split = '{split}') TO '{out}/split={split}/data.parquet' ({options})")
shutil.rmtree(f"{out}.tmp", ignore_errors=True)
