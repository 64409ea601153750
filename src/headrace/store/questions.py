"""What a list may be asked: comparisons and orders, answered by the database over rows that are never all read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Text, and_, false, or_, select, tuple_, type_coerce

from headrace.store.rows import Noun
from headrace.store.schema import labels

Operator = Literal["=", "!=", "has", "lists"]


class Condition(msgspec.Struct, frozen=True):
    """One comparison.

    Attributes:
        column: The noun's field.
        operator: ``has``: there is one, whatever its value. ``lists``: a column of texts has it among them.
        value: Compared with.
        key: Of labels, the key whose value is meant; None: the field itself.
    """

    column: str
    operator: Operator
    value: str = ""
    key: str | None = None


class Order(msgspec.Struct, frozen=True):
    """One of the fields that a list is sorted by."""

    column: str
    descending: bool = False


def holds(noun: Noun[Any], condition: Condition) -> ColumnElement[bool]:
    """A comparison as SQL. What is not there is unequal to everything."""
    if condition.key is not None:
        return _labelled(noun, condition, condition.key)
    column = noun.table.columns[condition.column]
    if condition.operator == "lists":  # JSON text: what is between two quotes is one of them
        return type_coerce(column, Text).contains(msgspec.json.encode(condition.value).decode(), autoescape=True)
    if condition.operator == "!=":
        return or_(column.is_(None), column != condition.value)
    answer: ColumnElement[bool] = column.is_not(None) if condition.operator == "has" else column == condition.value
    return answer


def _labelled(noun: Noun[Any], condition: Condition, key: str) -> ColumnElement[bool]:
    """Whether it has the label: one look into an index, however many rows there are."""
    if not noun.labelled:
        raise TypeError(f"Lists of a {noun.word} are not looked up by labels.")
    found = select(labels.c.project, labels.c.location, labels.c.resource_id)
    found = found.where(labels.c.kind == noun.word, labels.c.key == key)
    if condition.operator != "has":
        found = found.where(labels.c.value == condition.value)
    row = tuple_(noun.table.c.project, noun.table.c.location, noun.table.c.id)
    return row.not_in(found) if condition.operator == "!=" else row.in_(found)


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
