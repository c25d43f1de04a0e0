"""The lineitem job in DuckDB: `lineitem_duckdb.py <raw folder> <out folder> <memory> <threads>`.

Duplicates are decided on the two keys and the row's number alone, and the rows that stay are found again by a semi-join; other forms were not
compared. Statistics are of the training split, as in the other two.
"""

import shutil
import sys

import duckdb

raw, out, memory, threads = sys.argv[1:5]
shutil.rmtree(out, ignore_errors=True)
db = duckdb.connect()
db.execute(f"SET memory_limit = '{memory}'; SET threads = {threads}; SET temp_directory = '{out}.tmp'")
db.execute("SET preserve_insertion_order = false; SET enable_progress_bar = false")
db.execute(f"""
    CREATE VIEW raw AS SELECT *, CASE WHEN hash(l_orderkey, 7) % 10 < 8 THEN 'train' WHEN hash(l_orderkey, 7) % 10 < 9 THEN 'validation' ELSE 'test' END AS split
    FROM read_parquet('{raw}/lineitem.parquet', file_row_number = true)
""")
db.execute("CREATE TEMP TABLE first AS SELECT min(file_row_number) AS row FROM raw GROUP BY l_orderkey, l_linenumber")
db.execute("CREATE VIEW unique_rows AS SELECT * FROM raw WHERE file_row_number IN (SELECT row FROM first)")
price_mean, price_std, quantity_mean, quantity_std, discount = db.execute("""
    SELECT avg(l_extendedprice), stddev_pop(l_extendedprice), avg(l_quantity), stddev_pop(l_quantity), avg(l_discount)
    FROM unique_rows WHERE split = 'train'
""").fetchone()
db.execute(f"""
    CREATE VIEW clean AS SELECT * REPLACE (coalesce(l_discount, {discount}) AS l_discount) FROM unique_rows
    WHERE coalesce(abs(l_extendedprice - {price_mean}) <= 4 * {price_std}, true) AND coalesce(abs(l_quantity - {quantity_mean}) <= 4 * {quantity_std}, true)
""")
price_mean, price_std, quantity_mean, quantity_std = db.execute("""
    SELECT avg(l_extendedprice), stddev_pop(l_extendedprice), avg(l_quantity), stddev_pop(l_quantity) FROM clean WHERE split = 'train'
""").fetchone()
db.execute(f"""
    COPY (SELECT * EXCLUDE (file_row_number) REPLACE ((l_extendedprice - {price_mean}) / {price_std} AS l_extendedprice,
                                                      (l_quantity - {quantity_mean}) / {quantity_std} AS l_quantity) FROM clean)
    TO '{out}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3, PARTITION_BY (split))
""")
shutil.rmtree(f"{out}.tmp", ignore_errors=True)
