"""Pages of lists that may be long: the question of a query string, answered by the database."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from headrace.contracts.vertex.listing import Listing, SortField, Term
from headrace.resources.endpoints import Endpoint
from headrace.resources.models import Model
from headrace.resources.operations import Operation
from headrace.store import Condition, Order, Transaction

R = TypeVar("R", Model, Endpoint, Operation)

_COLUMNS: Mapping[SortField, str] = MappingProxyType(
    {"create_time": "created_at", "update_time": "updated_at", "display_name": "display_name"}
)


def page_of(tx: Transaction, kind: type[R], question: Listing, **equals: Any) -> tuple[list[R], str]:
    """One page of the rows that match, and the token of the next page (empty on the last), as `Listing.page`.

    Args:
        tx: An open transaction.
        kind: The noun; operations have no display names and no labels, and so are not filtered by them.
        question: What is asked.
        **equals: Fields that all rows have, as in `Transaction.list`.
    """
    orders = [Order(_COLUMNS[field], descending) for field, descending in question.sorts]
    orders.append(Order("id", question.sorts[-1][1]))
    found = tx.page(
        kind,
        limit=question.page_size + 1,
        orders=orders,
        conditions=[_condition(term) for term in question.terms],
        behind_values=question.after,
        **equals,
    )
    page = found[: question.page_size]
    if len(found) == len(page):
        return page, ""
    return page, question.token([getattr(page[-1], order.column) for order in orders])


def _condition(term: Term) -> Condition:
    return Condition(term.field, term.operator, term.value, key=term.label if term.field == "labels" else None)
