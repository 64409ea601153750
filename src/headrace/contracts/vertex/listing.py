"""Lists: ``filter``, ``orderBy``, ``pageSize`` and ``pageToken``, as every ``List`` method of Vertex AI takes them.

Of the filter language (https://google.aip.dev/160) this is the part that the vendor's clients and documents use:
comparisons joined by ``AND``, each ``field=value``, ``field!=value`` or ``labels.key:*``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeVar

import msgspec

from headrace.resources.errors import BadField

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
"""More is cut down to this, as https://google.aip.dev/158 says."""

_TERM = re.compile(
    r'\s*(?P<field>[A-Za-z_]+(\.[\w-]+)?)\s*(?P<operator>!=|=|:)\s*("(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s"()]+))'
    r"\s*(?P<joint>AND\b|\Z)",
    re.IGNORECASE,
)
SortField = Literal["create_time", "update_time", "display_name"]
_SORT_FIELDS: tuple[SortField, ...] = ("create_time", "update_time", "display_name")
T = TypeVar("T")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What can be asked of a listed resource.

    Attributes:
        kind: ``model``, ``endpoint`` or ``operation``: the filter's name for the identifier.
    """

    kind: str
    id: str
    display_name: str
    labels: Mapping[str, str]
    created_at: float
    updated_at: float

    def holds(self, field: str) -> str | None:
        """The value of a filter's field, or None when there is none."""
        if field.startswith("labels."):
            return self.labels.get(field.removeprefix("labels."))
        return {"display_name": self.display_name, "displayName": self.display_name, self.kind: self.id}.get(field)

    def sort_key(self, field: SortField) -> tuple[float | str, str]:
        """What it is sorted by; the identifier decides between equals."""
        if field == "display_name":
            return self.display_name, self.id
        return (self.created_at if field == "create_time" else self.updated_at), self.id


class _Term(msgspec.Struct, frozen=True):
    field: str
    operator: str
    value: str

    def accepts(self, facts: Facts) -> bool:
        held = facts.holds(self.field)
        if self.operator == ":" and self.value == "*":
            return held is not None
        return (held == self.value) is not (self.operator == "!=")


class _Cursor(msgspec.Struct, array_like=True):
    """Where a page ended; opaque to callers."""

    query: str
    value: float | str
    id: str


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a list."""

    terms: tuple[_Term, ...]
    sort_field: SortField
    descending: bool
    page_size: int
    cursor: _Cursor | None
    query: str

    def page(self, items: Iterable[T], facts_of: Callable[[T], Facts]) -> tuple[list[T], str]:
        """One page of the items that match, and the token of the next page (empty on the last).

        A page begins behind the last item of the page before, wherever that would stand now: what is made or deleted
        between two pages neither repeats nor hides another item.
        """
        keyed = [
            (facts.sort_key(self.sort_field), item)
            for item in items
            for facts in [facts_of(item)]
            if self._keeps(facts)
        ]
        keyed.sort(key=lambda pair: pair[0], reverse=self.descending)
        if self.cursor is not None:
            last = (self.cursor.value, self.cursor.id)
            keyed = [pair for pair in keyed if (pair[0] < last if self.descending else pair[0] > last)]
        page, rest = keyed[: self.page_size], keyed[self.page_size :]
        if not rest:
            return [item for _, item in page], ""
        value, last_id = page[-1][0]
        return [item for _, item in page], _token(_Cursor(self.query, value, last_id))

    def _keeps(self, facts: Facts) -> bool:
        return all(term.accepts(facts) for term in self.terms)


def listing(parameters: Mapping[str, str], *, kind: str, about: str = "") -> Listing:
    """The question that a query string asks.

    Args:
        parameters: The query's parameters; those it does not know are left alone.
        kind: ``model``, ``endpoint`` or ``operation``.
        about: What else the question depends on, so that no page's token is good for another question.

    Raises:
        BadField: A parameter cannot be understood, or the token belongs to another question.
    """
    expression = parameters.get("filter", "")
    order = parameters.get("orderBy", parameters.get("order_by", "")).strip()
    field, descending = _order(order)
    query = hashlib.sha256(f"{kind}\n{about}\n{expression}\n{order}".encode()).hexdigest()[:16]
    return Listing(
        terms=tuple(_terms(expression, kind)),
        sort_field=field,
        descending=descending,
        page_size=page_size(parameters),
        cursor=_cursor(parameters.get("pageToken", parameters.get("page_token", "")), query, field),
        query=query,
    )


def page_size(parameters: Mapping[str, str]) -> int:
    """How many items a page may hold.

    Raises:
        BadField: It is not a number of 0 or more; 0 stands for the default.
    """
    text = parameters.get("pageSize", parameters.get("page_size", "0"))
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise BadField("pageSize must be a number of 0 or more.", evidence=f"It is {text[:40]!r}.")
    return min(int(text) or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def _terms(expression: str, kind: str) -> Iterable[_Term]:
    position = 0
    expression = expression.strip()
    while position < len(expression):
        match = _TERM.match(expression, position)
        if match is None or (match["joint"] and match.end() == len(expression)):
            raise _bad_filter(expression, expression[position:])
        field = match["field"]
        if field not in {"display_name", "displayName", kind} and not field.startswith("labels."):
            raise _bad_filter(expression, field)
        quoted = match["quoted"]
        value = match["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        yield _Term(field, match["operator"], value)
        position = match.end()


def _bad_filter(expression: str, where: str) -> BadField:
    return BadField(
        "filter is not understood.",
        evidence=f"At {where[:100]!r} in {expression[:200]!r}.",
        fix='Join comparisons with AND: display_name="a name", labels.KEY="value", labels.KEY:*.',
    )


def _order(order: str) -> tuple[SortField, bool]:
    if not order:
        return "create_time", True
    words = order.split()
    field = re.sub(r"(?<!^)(?=[A-Z])", "_", words[0]).lower()
    direction = words[1].lower() if len(words) > 1 else "asc"
    for known in _SORT_FIELDS:
        if field == known and direction in {"asc", "desc"} and len(words) <= 2:
            return known, direction == "desc"
    raise BadField(
        "orderBy is not understood.",
        evidence=f"It is {order[:200]!r}.",
        fix=f"Use one of {', '.join(_SORT_FIELDS)}, with desc behind it for the other direction.",
    )


def _token(cursor: _Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def _cursor(token: str, query: str, field: SortField) -> _Cursor | None:
    if not token:
        return None
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        cursor = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=_Cursor)
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise BadField("pageToken is not one of ours.", fix="Start again without it.") from error
    if cursor.query != query or isinstance(cursor.value, str) is not (field == "display_name"):
        raise BadField("pageToken belongs to another question.", fix="Keep filter and orderBy the same on every page.")
    return cursor
