"""Sums of what was used, and how far the segments that they come from were read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from sqlalchemy import Connection, Table, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from headrace.resources.usage import UsageBy, UsageRecord, UsageSum
from headrace.store.schema import usage_hours, usage_segments

_COUNTS = ("requests", "unfinished", "inexact", "prompt_tokens", "completion_tokens")
_COLUMNS: Mapping[UsageBy, tuple[str, ...]] = {
    UsageBy.KEY: ("key_id",),
    UsageBy.ENDPOINT: ("project", "location", "endpoint_id"),
    UsageBy.MODEL: ("project", "location", "model_id", "model_version"),
}


class UsageRows:
    """What one transaction can do with them; `Transaction.usage` gives it.

    Args:
        connection: The transaction's.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read_bytes(self, segment: str) -> int:
        """How much of a segment is in the sums."""
        query = select(usage_segments.c.read_bytes).filter_by(name=segment)
        return int(self._connection.execute(query).scalar() or 0)

    def add(self, segment: str, read_bytes: int, records: Iterable[UsageRecord]) -> None:
        """Add records to the sums, and note that this much of their segment is in them now."""
        self._upsert(usage_segments, {"name": segment}, {"read_bytes": read_bytes}, adds=False)
        for key, counts in _by_hour(records).items():
            names = [column.name for column in usage_hours.primary_key]
            self._upsert(usage_hours, dict(zip(names, key, strict=True)), {name: counts[name] for name in _COUNTS})

    def forget_segments(self, *, but: Set[str]) -> None:
        """Forget how far those were read that are gone for good."""
        known = set(self._connection.execute(select(usage_segments.c.name)).scalars())
        for name in known - but:
            self._connection.execute(delete(usage_segments).filter_by(name=name))

    def forget_before(self, hour_at: int) -> None:
        """Forget the sums of hours that began before that one."""
        self._connection.execute(delete(usage_hours).where(usage_hours.c.hour_at < hour_at))

    def sums(self, by: Sequence[UsageBy], *, begin_at: int, end_at: int, **equals: str) -> list[UsageSum]:
        """What was used in a span of whole hours, one sum for each that can be told apart.

        Args:
            by: What to tell apart by; without any there is one sum of all.
            begin_at: Unix seconds of the first hour.
            end_at: Unix seconds of the first hour that is not in it.
            **equals: Columns and their values: ``project=``, ``location=``.
        """
        names = list(dict.fromkeys(name for one in by for name in _COLUMNS[one]))
        columns = [usage_hours.c[name] for name in names]
        counts = [func.sum(usage_hours.c[name]).label(name) for name in _COUNTS]
        query = select(*columns, *counts).where(usage_hours.c.hour_at >= begin_at, usage_hours.c.hour_at < end_at)
        for name, value in equals.items():
            query = query.where(usage_hours.c[name] == value)
        found = self._connection.execute(query.group_by(*columns).order_by(*columns)).mappings()
        return [
            UsageSum(of={name: record[name] for name in names}, **{name: int(record[name]) for name in _COUNTS})
            for record in found
            if record["requests"] is not None  # the sum of no rows at all
        ]

    def _upsert(self, table: Table, key: dict[str, Any], values: dict[str, int], *, adds: bool = True) -> None:
        """Write a row of these values, or add them to the row that is there."""
        dialect = sqlite if self._connection.dialect.name == "sqlite" else postgresql
        new: Any = dialect.insert(table).values(key | values)
        there = {name: (table.c[name] + new.excluded[name]) if adds else new.excluded[name] for name in values}
        self._connection.execute(new.on_conflict_do_update(index_elements=list(key), set_=there))


def _by_hour(records: Iterable[UsageRecord]) -> dict[tuple[str | int, ...], Counter[str]]:
    sums: dict[tuple[str | int, ...], Counter[str]] = defaultdict(Counter)
    for one in records:
        if not one.sent:
            continue
        counts = sums[
            one.project,
            one.location,
            one.key_id,
            one.endpoint_id,
            one.model_id,
            one.model_version,
            one.hour_at,
        ]
        counts["requests"] += 1
        counts["unfinished"] += not one.finished
        counts["inexact"] += one.inexact
        counts["prompt_tokens"] += one.prompt_tokens
        counts["completion_tokens"] += one.completion_tokens
    return sums
