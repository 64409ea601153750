"""The log's rows read back from its files, written or closed, and as rows of an inference table.

A file's rows keep their order when it becomes Parquet, so a row's place in its file is its name for good.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.contracts.databricks.inference_tables import client_request_id, logging_error_codes
from headrace.request_log.parquet import SUFFIX, record_of
from headrace.request_log.rows import from_line
from headrace.request_log.segments import LINES_SUFFIX

BATCH_ROWS = 1000
"""In memory at a time; a row may have some MiB."""

_LOGGER = logging.getLogger(__name__)
_NAME = re.compile(r"[0-9TZ]+-([0-9a-f]+)-([0-9]{6,})")

PAYLOAD_SCHEMA = pa.schema(
    [
        ("databricks_request_id", pa.string()),
        ("client_request_id", pa.string()),
        ("request_date", pa.date32()),
        ("request_time", pa.timestamp("us", tz="UTC")),
        ("status_code", pa.int32()),
        ("sampling_fraction", pa.float64()),
        ("execution_duration_ms", pa.int64()),
        ("request", pa.string()),
        ("response", pa.string()),
        ("served_entity_id", pa.string()),
        ("logging_error_codes", pa.list_(pa.string())),
        ("requester", pa.string()),
    ]
)
"""Of a table, as the vendor's have it."""


class LogSegment(NamedTuple):
    """One file of the log.

    Attributes:
        writer: The process that wrote it, which wrote all of its files one after the other.
        number: Among that process's files, from 1.
    """

    writer: str
    number: int
    path: Path


class Batch(NamedTuple):
    """Some rows of a file.

    Attributes:
        records: As `record_of` has them; there may be none.
        end: How many rows of the file there are up to the last of them.
        end_byte: Where that one ends, in a file of lines; else 0.
    """

    records: list[dict[str, Any]]
    end: int
    end_byte: int


def log_segments(folder: Path) -> list[LogSegment]:
    """The files of the log, each writer's in order. A file that just became Parquet is there once."""
    found: dict[tuple[str, int], LogSegment] = {}
    for path in sorted(folder.glob("*")):
        name = _NAME.fullmatch(path.stem)
        if name is not None and path.suffix in (LINES_SUFFIX, SUFFIX):
            segment = LogSegment(name[1], int(name[2]), path)
            found[segment.writer, segment.number] = segment  # .parquet sorts behind .jsonl
    return [found[key] for key in sorted(found)]


def read_rows(path: Path, *, skip: int, from_byte: int = 0) -> Iterator[Batch]:
    """The rows of a file behind the first ones; of one that is written, those that are whole.

    Args:
        path: The file; one that is gone has none.
        skip: How many to leave out.
        from_byte: Where the first one behind them begins, in a file of lines, if that is known.
    """
    try:
        if path.suffix == SUFFIX:
            yield from _parquet_rows(path, skip)
        else:
            yield from _lines(path, skip, from_byte)
    except FileNotFoundError:
        return


def payload_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the log as a row of an inference table."""
    request = record["request"]
    return {
        "databricks_request_id": record["request_id"],
        "client_request_id": client_request_id(None if request is None else request.encode()),
        "request_date": record["at"].date(),
        "request_time": record["at"],
        "status_code": record["status"],
        "sampling_fraction": record["sampling_rate"],
        "execution_duration_ms": round(record["duration_s"] * 1000),
        "request": request,
        "response": record["response"],
        "served_entity_id": record["deployed_model"],
        "logging_error_codes": logging_error_codes(record["note"]),
        "requester": record["key"],
    }


def _parquet_rows(path: Path, skip: int) -> Iterator[Batch]:
    end = 0
    with pq.ParquetFile(path) as file:
        if file.metadata.num_rows <= skip:
            return
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            records = batch.to_pylist()
            left_out = max(0, min(skip - end, len(records)))
            end += len(records)
            if left_out < len(records):
                yield Batch(records[left_out:], end, 0)


def _lines(path: Path, skip: int, from_byte: int) -> Iterator[Batch]:
    with path.open("rb") as file:
        file.seek(from_byte)
        row, end_byte = (skip, from_byte) if from_byte else (0, 0)
        whole = (line for line in file if line.endswith(b"\n"))
        readable = True
        while readable and (lines := list(itertools.islice(whole, BATCH_ROWS))):
            records: list[dict[str, Any]] = []
            for line in lines:
                record = _record(line)
                if record is None and not _is_closed(file.fileno()):  # seen before all of it was there
                    readable = False
                    break
                row, end_byte = row + 1, end_byte + len(line)
                if record is None:
                    _LOGGER.warning("row %d of %s cannot be read, and is in no inference table", row, path)
                elif row > skip:
                    records.append(record)
            if row >= skip:
                yield Batch(records, row, end_byte)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        return record_of(from_line(line))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _is_closed(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True
