"""What is over and old: rows that nobody will change any more, and lines of timelines.

Of rows that are gone all lines, of others those in the middle of a long timeline.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, func, select

from headrace.resources.states import State
from headrace.store.rows import NOUNS, Stateful
from headrace.store.schema import transitions
from headrace.store.timelines import FIRST, NEWEST


class History:
    """What one transaction can do with it; `Transaction.history` gives it.

    Args:
        connection: The transaction's.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def forget(self, kind: type[Stateful], states: Collection[State], *, before: float, at_most: int) -> int:
        """Delete rows, the oldest first, and leave their timelines to `forget_lines`; returns how many.

        Args:
            kind: The noun.
            states: Those that nothing leaves.
            before: Unix seconds; only rows that were written last before that.
            at_most: How many, so that others need not wait for long.
        """
        rows = NOUNS[kind].table.columns
        old = select(rows["id"]).where(rows["state"].in_(states), rows["updated_at"] < before)
        ids = list(self._connection.execute(old.order_by(rows["updated_at"]).limit(at_most)).scalars())
        if ids:
            self._connection.execute(delete(NOUNS[kind].table).where(rows["id"].in_(ids)))
        return len(ids)

    def forget_lines(self, kind: type[Stateful], *, before: float, at_most: int) -> int:
        """Delete lines of timelines whose row is not there any more, as of each engine that was started; how many."""
        there = select(NOUNS[kind].table.columns["id"])
        lost = (
            transitions.c.kind == NOUNS[kind].word,
            transitions.c.at < before,
            transitions.c.resource_id.not_in(there),
        )
        lines = list(self._connection.execute(select(transitions.c.sequence).where(*lost).limit(at_most)).scalars())
        if lines:
            self._connection.execute(delete(transitions).where(transitions.c.sequence.in_(lines)))
        return len(lines)

    def to_cut(self, *, before: float) -> list[tuple[str, str]]:
        """The long timelines of which `cut_lines` deletes something, by kind and id; reads only.

        A timeline is in the order of time, so the oldest line that may go tells whether one does.
        """
        lines = transitions.c
        of_one = lines.kind, lines.resource_id
        many = select(*of_one).group_by(*of_one).having(func.count() > FIRST + NEWEST)
        found = []
        for kind, resource_id in self._connection.execute(many).all():
            own = select(lines.at).where(lines.kind == kind, lines.resource_id == resource_id)
            oldest = self._connection.execute(own.order_by(lines.sequence).offset(FIRST).limit(1)).scalar_one()
            if oldest < before:
                found.append((kind, resource_id))
        return found

    def cut_lines(self, kind: str, resource_id: str, *, before: float, at_most: int) -> int:
        """Delete lines of one timeline that are neither among the first nor among the newest; how many."""
        lines = transitions.c
        own = select(lines.sequence).where(lines.kind == kind, lines.resource_id == resource_id)
        last_kept = own.order_by(lines.sequence).offset(FIRST - 1).limit(1).scalar_subquery()
        next_kept = own.order_by(lines.sequence.desc()).offset(NEWEST - 1).limit(1).scalar_subquery()
        between = own.where(lines.sequence > last_kept, lines.sequence < next_kept, lines.at < before)
        cut = list(self._connection.execute(between.order_by(lines.sequence).limit(at_most)).scalars())
        if cut:
            self._connection.execute(delete(transitions).where(lines.sequence.in_(cut)))
        return len(cut)
