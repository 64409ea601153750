"""An endpoint's rows of the log, appended to a Delta table: each of them once, whoever is killed and when.

How far each writer's files were read is noted in the same commit that adds their rows, as the transaction of an
application (``txn`` in Delta's protocol): the number of the file, and of the row in it, as one number that only grows.
A commit is there with both or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from headrace.request_log.payloads import PAYLOAD_SCHEMA, LogSegment, payload_of, read_rows
from headrace.resources.files import private_dir

COMPACT_EVERY = 100
"""Commits, each of which adds a small file; then they become one."""

_ROWS_BITS = 32


class Position(NamedTuple):
    """How far one writer's files were read: so many rows of this one, and all of those before it."""

    number: int = 0
    rows: int = 0

    @property
    def version(self) -> int:
        """As one number."""
        return self.number << _ROWS_BITS | self.rows

    @classmethod
    def of(cls, version: int | None) -> Position:
        """From that number; None: nothing was read."""
        return cls() if version is None else cls(version >> _ROWS_BITS, version & (1 << _ROWS_BITS) - 1)


class InferenceTableWriter:
    """Appends one endpoint's rows to its table. Makes the table with the first of them.

    Args:
        path: The table's folder.
        project: Of the endpoint; so the next two.
    """

    def __init__(self, path: Path, *, project: str, location: str, endpoint: str) -> None:
        self._path = path
        self._endpoint = (project, location, endpoint)
        self._positions: dict[str, Position] = {}
        self._bytes: dict[str, int] = {}  # of the file that the position is in
        self._commits = 0

    def append(self, segments: Iterable[LogSegment]) -> int:
        """Append what is new; returns how many rows.

        Args:
            segments: All files of the log, each writer's in order.

        Raises:
            OSError: The table cannot be written; what was appended before stays, and the rest is appended next time.
        """
        added, there = 0, self._table()
        for segment in segments:
            position = self._position(segment.writer, there)
            if segment.number < position.number:
                continue
            goes_on = segment.number == position.number
            skip, from_byte = (position.rows, self._bytes.get(segment.writer, 0)) if goes_on else (0, 0)
            for batch in read_rows(segment.path, skip=skip, from_byte=from_byte):
                payloads = [payload_of(record) for record in batch.records if self._is_ours(record)]
                position = Position(segment.number, batch.end)
                if payloads:
                    self._commit(segment.writer, position, payloads)
                    added += len(payloads)
                self._positions[segment.writer] = position
                self._bytes[segment.writer] = batch.end_byte
        return added

    def _table(self) -> DeltaTable | None:
        path = str(self._path)
        return DeltaTable(path) if DeltaTable.is_deltatable(path) else None

    def _position(self, writer: str, there: DeltaTable | None) -> Position:
        """Where to go on: what this process remembers, which knows of rows that are not ours, or the table's note."""
        noted = Position.of(None if there is None else there.transaction_version(self._application(writer)))
        if noted > self._positions.get(writer, Position()):
            self._positions[writer] = noted
            self._bytes.pop(writer, None)
        return self._positions.get(writer, noted)

    def _application(self, writer: str) -> str:
        """Whose note it is: several endpoints may share a table."""
        return "/".join(("headrace-request-log", *self._endpoint, writer))

    def _is_ours(self, record: dict[str, object]) -> bool:
        return (record["project"], record["location"], record["endpoint"]) == self._endpoint

    def _commit(self, writer: str, position: Position, payloads: list[dict[str, object]]) -> None:
        private_dir(self._path.parent)
        write_deltalake(
            str(self._path),
            pa.Table.from_pylist(payloads, schema=PAYLOAD_SCHEMA),
            mode="append",
            commit_properties=CommitProperties(
                app_transactions=[Transaction(app_id=self._application(writer), version=position.version)]
            ),
        )
        self._commits += 1
        if self._commits % COMPACT_EVERY == 0:
            DeltaTable(str(self._path)).optimize.compact()
