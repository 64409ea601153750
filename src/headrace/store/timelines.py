"""Timelines as they are read: of one that goes on for years nobody needs all, and most need the newest line."""

from __future__ import annotations

from sqlalchemy import Connection, Select, func, select

from headrace.resources.deployments import Transition
from headrace.resources.states import State
from headrace.store.schema import transitions

FIRST, NEWEST = 20, 200
"""Lines that are shown of a timeline, and that stay of one however old they are: how it began, and what came last."""

_FIELDS = [transitions.columns[name] for name in Transition.__struct_fields__]


class Timelines:
    """What one transaction reads of them; `Transaction.timelines` gives it.

    A ``kind`` is ``deployment``, ``replica``, ``operation`` or ``rollout``.

    Args:
        connection: The transaction's.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def during(self, kind: str, resource_id: str, since: float, until: float | None = None) -> list[Transition]:
        """How it stood at a time, and every move from then on, oldest first.

        A state that comes again at once tells of progress within it.

        Args:
            kind: What it is.
            resource_id: Which.
            since: Unix seconds.
            until: Unix seconds of the last move that is wanted; None: of whichever there are.
        """
        lines = _of(kind, resource_id)
        before = lines.with_only_columns(transitions.c.sequence).where(transitions.c.at < since)
        stood = before.order_by(transitions.c.sequence.desc()).limit(1).scalar_subquery()
        found = lines.where(transitions.c.sequence >= func.coalesce(stood, 0))
        if until is not None:
            found = found.where(transitions.c.at <= until)
        return self._read(found.order_by(transitions.c.sequence))

    def shown(self, kind: str, resource_id: str) -> list[Transition]:
        """The first and the newest lines, oldest first; all of them where there are no more."""
        lines = _of(kind, resource_id)
        newest = self._read(lines.order_by(transitions.c.sequence.desc()).limit(FIRST + NEWEST))[::-1]
        if len(newest) < FIRST + NEWEST:
            return newest
        return self._read(lines.order_by(transitions.c.sequence).limit(FIRST)) + newest[FIRST:]

    def newest(self, kind: str, resource_id: str) -> Transition:
        """The last line; every row that has a state has one."""
        [line] = self._read(_of(kind, resource_id).order_by(transitions.c.sequence.desc()).limit(1))
        return line

    def was(self, kind: str, resource_id: str, state: State) -> bool:
        """Whether it ever was in this state."""
        found = _of(kind, resource_id).where(transitions.c.state == str(state)).limit(1)
        return self._connection.execute(found).first() is not None

    def entered_at(self, kind: str, resource_id: str, state: State) -> float:
        """When it came to the state in which it is."""
        lines = _of(kind, resource_id)
        before = lines.with_only_columns(func.max(transitions.c.sequence)).where(transitions.c.state != str(state))
        since = lines.where(transitions.c.sequence > func.coalesce(before.scalar_subquery(), 0))
        [line] = self._read(since.order_by(transitions.c.sequence).limit(1))
        return line.at

    def _read(self, query: Select[tuple[object, ...]]) -> list[Transition]:
        return [Transition(**record) for record in self._connection.execute(query).mappings()]


def _of(kind: str, resource_id: str) -> Select[tuple[object, ...]]:
    return select(*_FIELDS).where(transitions.c.kind == kind, transitions.c.resource_id == resource_id)
