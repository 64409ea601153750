"""A file of JSON lines as Parquet, which data warehouses read: DuckDB, Spark, BigQuery, pandas."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.request_log.rows import NULL, Row, from_line

SUFFIX = ".parquet"
GROUP_ROWS = 1000
"""In memory at a time, and together in the file."""

_TYPES = {
    "at": pa.timestamp("us", tz="UTC"),
    "status": pa.int16(),
    "streamed": pa.bool_(),
    "queue_s": pa.float64(),
    "ttft_s": pa.float64(),
    "duration_s": pa.float64(),
    "prompt_tokens": pa.int64(),
    "completion_tokens": pa.int64(),
    "sampling_rate": pa.float64(),
    "request_bytes": pa.int64(),
    "response_bytes": pa.int64(),
}
SCHEMA = pa.schema([(name, _TYPES.get(name, pa.string())) for name in Row.__struct_fields__])
"""``request`` and ``response`` are JSON as text: bodies of different APIs have no columns in common."""


def to_parquet(path: Path) -> None:
    """Write a file of lines anew beside it, and delete it; a file without lines is only deleted.

    Raises:
        OSError: It stays as it is.
        msgspec.DecodeError: So it does where a line in it is no row: it is not ours to delete.
    """
    fresh = path.with_suffix(f"{SUFFIX}.new")
    written = 0
    fresh.unlink(missing_ok=True)
    try:
        with path.open("rb") as lines, pq.ParquetWriter(fresh, SCHEMA, compression="zstd") as writer:
            fresh.chmod(0o600)
            while group := list(itertools.islice(_records(lines), GROUP_ROWS)):
                writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
                written += len(group)
        if written:
            fresh.replace(path.with_suffix(SUFFIX))
    finally:
        fresh.unlink(missing_ok=True)
    path.unlink()


def record_of(row: Row) -> dict[str, Any]:
    """A row by its columns."""
    record = {name: getattr(row, name) for name in Row.__struct_fields__}
    for name in ("request", "response"):
        record[name] = None if record[name] == NULL else bytes(record[name]).decode()
    return record


def _records(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        yield record_of(from_line(line))
