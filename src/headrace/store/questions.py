"""What a list may be asked: comparisons and orders, answered by the database over rows that are never all read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Column, ColumnElement, Text, and_, cast, false, func, or_, select, tuple_, type_coerce
from sqlalchemy.dialects.postgresql import JSON

from headrace.store.rows import Noun

Operator = Literal["=", "!=", "has"]


class Condition(msgspec.Struct, frozen=True):
    """One comparison.

    Attributes:
        column: The noun's field.
        operator: ``has``: the map has the key, whatever its value.
        value: Compared with.
        key: Of a map from texts to texts, the key whose value is meant; None: the field itself.
    """

    column: str
    operator: Operator
    value: str = ""
    key: str | None = None


class Order(msgspec.Struct, frozen=True):
    """One of the fields that a list is sorted by."""

    column: str
    descending: bool = False


def holds(noun: Noun[Any], condition: Condition, dialect: str) -> ColumnElement[bool]:
    """A comparison as SQL. What is not there is unequal to everything."""
    column = noun.table.columns[condition.column]
    held: Any = column if condition.key is None else _value_of(column, condition.key, dialect)
    if condition.operator == "!=":
        return or_(held.is_(None), held != condition.value)
    answer: ColumnElement[bool] = held.is_not(None) if condition.operator == "has" else held == condition.value
    return answer if condition.key is None else and_(_may_hold(column, condition, dialect), answer)


def _may_hold(column: Column[Any], condition: Condition, dialect: str) -> ColumnElement[bool]:
    """Whether the text of a map has the entry somewhere: quicker than to read it, and never wrongly no."""
    entry = msgspec.json.encode(condition.key)
    if condition.operator == "=":
        entry += b":" + msgspec.json.encode(condition.value)
    find = func.strpos if dialect == "postgresql" else func.instr
    found: ColumnElement[bool] = find(type_coerce(column, Text), entry.decode()) > 0
    return found


def _value_of(column: Column[Any], key: str, dialect: str) -> Any:
    """What a map in a column of JSON text has under a key; NULL without."""
    text = type_coerce(column, Text)
    if dialect == "postgresql":
        return cast(text, JSON)[key].astext
    entries = func.json_each(text).table_valued("key", "value")
    return select(entries.c.value).where(entries.c.key == key).scalar_subquery()


def behind(noun: Noun[Any], orders: Sequence[Order], values: Sequence[Any]) -> ColumnElement[bool]:
    """Whether a row comes after the one that has these values in the columns that the list is sorted by."""
    columns = [noun.table.columns[order.column] for order in orders]
    if len({order.descending for order in orders}) == 1:  # row values can be looked up in an index
        rows, last = tuple_(*columns), tuple_(*values)
        return rows < last if orders[0].descending else rows > last
    after: list[ColumnElement[bool]] = []
    for place, (order, column) in enumerate(zip(orders, columns, strict=True)):
        same = [one == value for one, value in zip(columns[:place], values[:place], strict=True)]
        further = column < values[place] if order.descending else column > values[place]
        after.append(and_(*same, further))
    return or_(false(), *after)
