"""What is over and old: rows that nobody will change any more, and what their timelines say."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, select

from headrace.resources.states import State
from headrace.store.rows import NOUNS, Stateful
from headrace.store.schema import transitions


class History:
    """What one transaction can do with it; `Transaction.history` gives it.

    Args:
        connection: The transaction's.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def forget(self, kind: type[Stateful], states: Collection[State], *, before: float, at_most: int) -> int:
        """Delete rows together with their timelines, the oldest first; returns how many.

        Args:
            kind: The noun.
            states: Those that nothing leaves.
            before: Unix seconds; only rows that were written last before that.
            at_most: How many, so that others need not wait for long.
        """
        noun = NOUNS[kind]
        written = noun.table.columns["updated_at"]
        old = select(noun.table.columns["id"]).where(noun.table.columns["state"].in_(states), written < before)
        ids = list(self._connection.execute(old.order_by(written).limit(at_most)).scalars())
        if ids:
            self._connection.execute(delete(noun.table).where(noun.table.columns["id"].in_(ids)))
            told = transitions.c.kind == noun.word, transitions.c.resource_id.in_(ids)
            self._connection.execute(delete(transitions).where(*told))
        return len(ids)
