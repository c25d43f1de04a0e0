"""Writes small encrypted Parquet files beside it, as other programs write them, and `keys.json` with the keys of each.

    python tests/golden/encrypted/make.py

Needs pyarrow and duckdb. All files hold the same 200 rows: `id` 0.., `name` "row <id>" (every 7th null), `x` id / 4,
`place` {city, zip}. Nonces and data keys are random: other bytes come out every time.
"""

import base64
import json
import pathlib

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

HERE = pathlib.Path(__file__).parent
SHORT, LONG = b"0123456789012345", b"an unguessable key of 32 bytes !"
ROWS = 200

table = pa.table(
    {
        "id": pa.array(range(ROWS), pa.int64()),
        "name": [None if i % 7 == 0 else f"row {i}" for i in range(ROWS)],
        "x": [i / 4 for i in range(ROWS)],
        "place": [{"city": f"city {i % 5}", "zip": i} for i in range(ROWS)],
    }
)


class Kms(pe.KmsClient):
    """Gives data keys away: that is how they come into keys.json."""

    seen = {}

    def __init__(self, _config):
        super().__init__()

    def wrap_key(self, key_bytes, master_key_identifier):
        Kms.seen[master_key_identifier] = key_bytes
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key, _master_key_identifier):
        return base64.b64decode(wrapped_key)


def by_columns(name, plaintext_footer):
    """Keys by column, through the key tools (a data key for each); the rest is in the clear."""
    config = pe.EncryptionConfiguration(
        footer_key="footer",
        column_keys={column: [column] for column in ["name", "place.zip", "x"]},
        plaintext_footer=plaintext_footer,
        double_wrapping=False,
        data_key_length_bits=256,
    )
    Kms.seen.clear()
    properties = pe.CryptoFactory(Kms).file_encryption_properties(pe.KmsConnectionConfig(), config)
    pq.write_table(table, HERE / name, encryption_properties=properties, row_group_size=90)
    keys = {k: v.hex() for k, v in Kms.seen.items()}
    return {"footer_key": keys.pop("footer"), "column_keys": keys}


def uniform(name, key, **options):
    properties = pe.create_encryption_properties(key, **options)
    pq.write_table(table, HERE / name, encryption_properties=properties, row_group_size=90)
    found = {"footer_key": key.hex()}
    if not options.get("store_aad_prefix", True):
        found["aad_prefix"] = options["aad_prefix"].decode()
    return found


def by_duckdb(name, key):
    """DuckDB (2.0) leaves out the file identifier, so that other readers must refuse its files."""
    con = duckdb.connect()
    # Its own cipher is fit for test files only; a better one comes with the extension `httpfs`.
    con.execute("SET force_mbedtls_unsafe = 'true'")
    con.register("t", table)
    con.execute(f"PRAGMA add_parquet_key('k', '{base64.b64encode(key).decode()}')")
    con.execute(f"COPY t TO '{HERE / name}' (FORMAT parquet, ROW_GROUP_SIZE 90, ENCRYPTION_CONFIG {{footer_key: 'k'}})")
    return {"footer_key": key.hex()}


keys = {
    "pyarrow-uniform.parquet": uniform("pyarrow-uniform.parquet", SHORT),
    "pyarrow-uniform-aad.parquet": uniform("pyarrow-uniform-aad.parquet", LONG, aad_prefix=b"table 7", store_aad_prefix=False),
    "pyarrow-uniform-plaintext-footer.parquet": uniform("pyarrow-uniform-plaintext-footer.parquet", LONG, plaintext_footer=True),
    "pyarrow-columns.parquet": by_columns("pyarrow-columns.parquet", False),
    "pyarrow-columns-plaintext-footer.parquet": by_columns("pyarrow-columns-plaintext-footer.parquet", True),
    "duckdb.parquet": by_duckdb("duckdb.parquet", LONG),
}
(HERE / "keys.json").write_text(json.dumps({"made_by": {"pyarrow": pa.__version__, "duckdb": duckdb.__version__}, "files": keys}, indent=1) + "\n")
