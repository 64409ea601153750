"""What can be done with rows inside one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Insert,
    Select,
    Text,
    and_,
    any_,
    delete,
    insert,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from headrace.resources.deployments import Transition
from headrace.resources.endpoints import Endpoint
from headrace.resources.errors import Failure, IllegalMove, NameTaken, StaleWrite
from headrace.resources.models import Model
from headrace.resources.states import State, check_move
from headrace.store.history import History
from headrace.store.questions import Condition, Order, behind, holds
from headrace.store.rows import NOUNS, Noun, R, Row, S, Stateful, columns_of, place
from headrace.store.schema import counters, labels, transitions
from headrace.store.timelines import Timelines
from headrace.store.usage import UsageRows


class Transaction:
    """Reads and writes that happen together or not at all; made by `Store.transaction`.

    Args:
        connection: With a transaction begun.
        clock: Gives Unix seconds; asked once, for all that happens together has one time.
    """

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = cache(clock)

    @property
    def usage(self) -> UsageRows:
        """Sums of what was used: rows that are added to, and so have neither states nor versions."""
        return UsageRows(self._connection)

    @property
    def timelines(self) -> Timelines:
        """What became of everything that has a state."""
        return Timelines(self._connection)

    @property
    def history(self) -> History:
        """What is over and old."""
        return History(self._connection)

    def insert(self, row: Row) -> None:
        """Store a new row. One that has a state begins its timeline with it.

        Raises:
            NameTaken: A row of this key is there.
        """
        noun = NOUNS[type(row)]
        if not self._connection.execute(self._insert_new(noun).values(noun.record(row))).rowcount:
            name = "/".join(str(value) for value in noun.key_of(row).values())
            raise NameTaken(f"A {noun.word} {name!r} already exists.", fix="Choose another identifier.")
        if isinstance(row, Model | Endpoint):
            self._label(noun, row, row.labels)
        if isinstance(row, Stateful):
            self._note(row, row.state, at=row.created_at, detail="", failure=row.failure)

    def get(self, kind: type[R], /, **key: Any) -> R | None:
        """The row with this primary key, e.g. ``get(Endpoint, scope=s, id=i)``; None when there is none."""
        noun: Noun[R] = NOUNS[kind]
        columns = columns_of(**key)
        if set(columns) != set(noun.key):
            raise TypeError(f"A {noun.word} is named by {noun.key}, not by {tuple(columns)}.")
        found = self._connection.execute(select(noun.table).filter_by(**columns)).first()
        return None if found is None else noun.row(found)

    def page(
        self,
        kind: type[R],
        /,
        *,
        limit: int,
        orders: Sequence[Order],
        conditions: Sequence[Condition] = (),
        behind_values: Sequence[Any] | None = None,
        **equals: Any,
    ) -> list[R]:
        """Some rows of a list that may be long: filtered, sorted and cut by the database.

        Args:
            kind: The noun.
            limit: How many at most.
            orders: What they are sorted by; together unique in the list, or rows may be missed between two pages.
            conditions: What all of them hold.
            behind_values: Only what comes after a row with these values in the columns of ``orders``.
            **equals: As in `list`.
        """
        noun: Noun[R] = NOUNS[kind]
        query = self._matching(noun, equals).limit(limit)
        for condition in conditions:
            query = query.where(holds(noun, condition))
        if behind_values is not None:
            query = query.where(behind(noun, orders, behind_values))
        for order in orders:
            column = noun.table.columns[order.column]
            query = query.order_by(column.desc() if order.descending else column)
        return [noun.row(found) for found in self._connection.execute(query).all()]

    def columns(self, kind: type[Row], names: Sequence[str], /, **equals: Any) -> list[tuple[Any, ...]]:
        """Some columns of rows, in no order: for lists of what refers to what, whose rows need not be made.

        Args:
            kind: The noun.
            names: Its fields; not ``scope``.
            **equals: As in `list`.
        """
        noun: Noun[Any] = NOUNS[kind]
        query = self._matching(noun, equals).with_only_columns(*(noun.table.columns[name] for name in names))
        return [tuple(found) for found in self._connection.execute(query).all()]

    def list(self, kind: type[R], /, *, limit: int | None = None, after: str | None = None, **equals: Any) -> list[R]:
        """Rows in a stable order: by the time they were created, then by key.

        Args:
            kind: The noun.
            limit: How many at most.
            after: Only what follows the row of this `cursor`.
            **equals: Fields and their values (``scope=``, ``project=``, ``state=``, …); a tuple names several values.

        Raises:
            BadField: ``after`` is not a cursor of this noun.
        """
        noun: Noun[R] = NOUNS[kind]
        query = self._matching(noun, equals).order_by(*noun.order).limit(limit)
        if after is not None:
            query = query.where(tuple_(*noun.order) > tuple_(*place(noun, after)))
        return [noun.row(found) for found in self._connection.execute(query).all()]

    def update(self, row: R) -> R:
        """Write a changed row if nobody wrote it since it was read; its state stays (see `move`).

        Returns:
            The row as it is now: with the next ``resource_version``, and with ``updated_at`` where it has one.

        Raises:
            StaleWrite: Somebody did, or the row is gone.
            IllegalMove: The row's state differs from the stored one.
        """
        return self._write(row, {"state": row.state} if isinstance(row, Stateful) else {})

    def move(self, row: S, state: State, *, detail: str = "", failure: Failure | None = None, **changes: Any) -> S:
        """The one door for changes of state: hold the table of moves, write the row, append to its timeline.

        In the same state, the changes are written as by `update`; a detail or a failure still goes into the timeline.

        Args:
            row: As read, or with fields already replaced, except its state.
            state: Where it goes.
            detail: A sentence for a person: what was decided, measured or found.
            failure: What went wrong; kept in the row too. None leaves the row's as it is.
            **changes: Fields to set at the same time.

        Raises:
            IllegalMove: The table has no such move.
            StaleWrite: Somebody else wrote the row since it was read, or it is gone.
        """
        check_move(f"{NOUNS[type(row)].word} {row.id}", row.state, state)
        if failure is not None:
            changes["failure"] = failure
        moved = msgspec.structs.replace(row, state=state, **changes)
        if state != row.state or moved != self._stored(row):
            moved = self._write(moved, {"state": row.state})
        if state != row.state or detail or failure:
            self._note(row, state, at=self._clock(), detail=detail, failure=failure)
        return moved

    def delete(self, row: Row) -> None:
        """Remove a row. Its timeline stays.

        Raises:
            StaleWrite: Somebody else wrote the row since it was read, or it is gone already.
        """
        noun = NOUNS[type(row)]
        where = noun.key_of(row) | {"resource_version": row.resource_version}
        if not self._connection.execute(delete(noun.table).filter_by(**where)).rowcount:
            raise self._stale(noun, row)
        if isinstance(row, Model | Endpoint):
            self._label(noun, row, {})

    def next_generation(self, name: str, *, above: int = 0) -> int:
        """A number greater than any that this counter gave before, whatever process asked, and than ``above``."""
        current = self._connection.execute(select(counters.c.value).filter_by(name=name)).scalar()
        value = max(current or 0, above) + 1
        if current is None:
            self._connection.execute(insert(counters).values(name=name, value=value))
        else:
            self._connection.execute(update(counters).filter_by(name=name).values(value=value))
        return value

    def _matching(self, noun: Noun[Any], equals: dict[str, Any]) -> Select[Any]:
        query = select(noun.table)
        for name, value in columns_of(**equals).items():
            column = noun.table.columns[name]
            query = query.where(self._among(column, value) if isinstance(value, tuple) else column == value)
        return query

    def _among(self, column: Column[Any], values: tuple[Any, ...]) -> ColumnElement[bool]:
        """Whether it is one of these. PostgreSQL gets many as one array: its driver reads a parameter for each anew."""
        if self._connection.dialect.name == "postgresql" and isinstance(column.type, Text):
            return column == any_(literal(list(values), postgresql.ARRAY(Text)))
        return column.in_(values)

    def _stored(self, row: R) -> R | None:
        noun: Noun[R] = NOUNS[type(row)]
        found = self._connection.execute(select(noun.table).filter_by(**noun.key_of(row))).first()
        return None if found is None else noun.row(found)

    def _write(self, row: R, expected: dict[str, Any]) -> R:
        noun: Noun[R] = NOUNS[type(row)]
        where = noun.key_of(row) | {"resource_version": row.resource_version} | expected
        stamp: dict[str, Any] = {"resource_version": row.resource_version + 1}
        if "updated_at" in noun.table.columns:
            stamp["updated_at"] = self._clock()
        written = msgspec.structs.replace(row, **stamp)
        conditions = and_(*(noun.table.columns[name] == value for name, value in where.items()))
        if not self._connection.execute(update(noun.table).where(conditions).values(noun.record(written))).rowcount:
            raise self._stale(noun, row)
        if isinstance(row, Model | Endpoint):
            self._label(noun, row, row.labels)
        return written

    def _label(self, noun: Noun[Any], row: Model | Endpoint, now: Mapping[str, str]) -> None:
        """Keep what its lists are looked up by equal to its labels."""
        place = columns_of(scope=row.scope) | {"kind": noun.word, "resource_id": row.id}
        self._connection.execute(delete(labels).filter_by(**place))
        if now:
            rows = [place | {"key": key, "value": value} for key, value in now.items()]
            self._connection.execute(insert(labels), rows)

    def _stale(self, noun: Noun[R], row: R) -> StaleWrite | IllegalMove:
        name = f"{noun.word} {'/'.join(str(value) for value in noun.key_of(row).values())}"
        query = select(noun.table.c.resource_version).filter_by(**noun.key_of(row))
        stored = self._connection.execute(query).scalar()
        if stored == row.resource_version:
            return IllegalMove(f"The state of {name} changes only by a move.")
        return StaleWrite(
            f"{name} was changed by somebody else.",
            evidence=f"Read at resource_version {row.resource_version}; now it is {stored or 'deleted'}.",
            fix="Read it again and repeat the change.",
        )

    def _note(self, row: Stateful, state: State, *, at: float, detail: str, failure: Failure | None) -> None:
        kind = NOUNS[type(row)].word
        move = Transition(kind=kind, resource_id=row.id, state=str(state), at=at, detail=detail, failure=failure)
        self._connection.execute(insert(transitions).values(msgspec.structs.asdict(move)))

    def _insert_new(self, noun: Noun[Any]) -> Insert:
        # Both databases know it; a duplicate must not abort PostgreSQL's transaction.
        dialect = sqlite if self._connection.dialect.name == "sqlite" else postgresql
        new: Insert = dialect.insert(noun.table).on_conflict_do_nothing()
        # By itself SQLAlchemy keeps the count of an INSERT for SQLite only: psycopg's is -1 afterwards, which is true.
        return new.execution_options(preserve_rowcount=True)
