"""Lists: ``filter``, ``orderBy``, ``pageSize`` and ``pageToken``, as every ``List`` method of Vertex AI takes them.

Of the filter language (https://google.aip.dev/160) this is the part that the vendor's clients and documents use:
comparisons joined by ``AND``, each ``field=value``, ``field!=value``, ``labels.key:*`` or ``labels:key``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cmp_to_key
from typing import Literal, TypeVar

import msgspec

from headrace.resources.errors import BadField

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
"""More is cut down to this, as https://google.aip.dev/158 says."""

_TERM = re.compile(
    r'\s*(?P<field>[A-Za-z_]+)(\.(?:(?P<label>[\w-]+)|"(?P<quoted_label>(?:[^"\\]|\\.)+)"))?'
    r'\s*(?P<operator>!=|=|:)\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s"()]+))'
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

    def sorted_by(self, field: SortField) -> float | str:
        """The value that it is sorted by."""
        if field == "display_name":
            return self.display_name
        return self.created_at if field == "create_time" else self.updated_at


class Term(msgspec.Struct, frozen=True):
    """One comparison of a filter.

    Attributes:
        field: ``id``, ``display_name`` or ``labels``.
        operator: ``has``: the label is there, whatever its value.
        label: The key of a label; empty for the other fields.
    """

    field: Literal["id", "display_name", "labels"]
    operator: Literal["=", "!=", "has"]
    value: str
    label: str = ""

    def accepts(self, facts: Facts) -> bool:
        """Whether a resource is one of those asked for; a label that is not there is unequal to everything."""
        held = facts.labels.get(self.label) if self.field == "labels" else getattr(facts, self.field)
        if self.operator == "has":
            return held is not None
        return (held == self.value) is not (self.operator == "!=")


class _Cursor(msgspec.Struct, array_like=True):
    """Where a page ended; opaque to callers."""

    query: str
    values: list[float | str]
    id: str


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a list.

    Attributes:
        sorts: The fields that it is sorted by, each with whether it is descending. The identifier decides between
            equals, in the direction of the last.
        after: The values of these fields, and the identifier, of the last item of the page before; None on the first.
    """

    terms: tuple[Term, ...]
    sorts: tuple[tuple[SortField, bool], ...]
    page_size: int
    after: tuple[float | str, ...] | None
    query: str

    def page(self, items: Iterable[T], facts_of: Callable[[T], Facts]) -> tuple[list[T], str]:
        """One page of the items that match, and the token of the next page (empty on the last).

        A page begins behind the last item of the page before, wherever that would stand now: what is made or deleted
        between two pages neither repeats nor hides another item.
        """
        keyed = [
            (self._key(facts), item)
            for item in items
            for facts in [facts_of(item)]
            if all(term.accepts(facts) for term in self.terms)
        ]
        in_order = cmp_to_key(self._compare)
        keyed.sort(key=lambda pair: in_order(pair[0]))
        if self.after is not None:
            last = self.after
            keyed = [pair for pair in keyed if self._compare(pair[0], last) > 0]
        page = keyed[: self.page_size]
        token = self.token(page[-1][0]) if len(keyed) > self.page_size else ""
        return [item for _, item in page], token

    def token(self, key: Sequence[float | str]) -> str:
        """What stands for a page's end: the values of the fields that it is sorted by and the identifier."""
        cursor = _Cursor(self.query, list(key[:-1]), str(key[-1]))
        return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")

    def _key(self, facts: Facts) -> tuple[float | str, ...]:
        return (*(facts.sorted_by(field) for field, _ in self.sorts), facts.id)

    def _compare(self, one: Sequence[float | str], other: Sequence[float | str]) -> int:
        directions = [*(descending for _, descending in self.sorts), self.sorts[-1][1]]
        for mine, theirs, descending in zip(one, other, directions, strict=True):
            if mine != theirs:
                return 1 if (mine > theirs) is not descending else -1  # type: ignore[operator] # of one field
        return 0


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
    sorts = _sorts(order)
    if kind == "operation" and "display_name" in dict(sorts):  # they have none
        raise _bad_order(order)
    query = hashlib.sha256(f"{kind}\n{about}\n{expression}\n{order}".encode()).hexdigest()[:16]
    return Listing(
        terms=tuple(_terms(expression, kind)),
        sorts=sorts,
        page_size=page_size(parameters),
        after=_after(parameters.get("pageToken", parameters.get("page_token", "")), query, sorts),
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


def _terms(expression: str, kind: str) -> Iterable[Term]:
    position = 0
    expression = expression.strip()
    while position < len(expression):
        match = _TERM.match(expression, position)
        if match is None or (match["joint"] and match.end() == len(expression)) or "\0" in expression:
            raise _bad_filter(expression, expression[position:])
        yield _term(match, kind, expression)
        position = match.end()


def _term(match: re.Match[str], kind: str, expression: str) -> Term:
    field, operator = match["field"], match["operator"]
    value = match["plain"] if match["quoted"] is None else _unquoted(match["quoted"])
    label = match["label"] or _unquoted(match["quoted_label"] or "")
    if field == "labels" and not label and operator == ":":
        return Term("labels", "has", "", value)  # labels:KEY
    if field == "labels" and label and operator == ":" and value == "*":
        return Term("labels", "has", "", label)
    if field == "labels" and label and operator != ":":
        return Term("labels", "=" if operator == "=" else "!=", value, label)
    known = {"display_name": "display_name", "displayName": "display_name", kind: "id"}.get(field)
    if known is None or label or operator == ":":
        raise _bad_filter(expression, match[0])
    return Term("id" if known == "id" else "display_name", "=" if operator == "=" else "!=", value)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _bad_filter(expression: str, where: str) -> BadField:
    return BadField(
        "filter is not understood.",
        evidence=f"At {where[:100]!r} in {expression[:200]!r}.",
        fix='Join comparisons with AND: display_name="a name", labels.KEY="value", labels.KEY:*.',
    )


def _sorts(order: str) -> tuple[tuple[SortField, bool], ...]:
    if not order:
        return (("create_time", True),)
    sorts = tuple(_sort(part.split(), order) for part in order.split(","))
    if len({field for field, _ in sorts}) < len(sorts):
        raise _bad_order(order)
    return sorts


def _sort(words: list[str], order: str) -> tuple[SortField, bool]:
    field = re.sub(r"(?<!^)(?=[A-Z])", "_", words[0]).lower() if words else ""
    direction = words[1].lower() if len(words) > 1 else "asc"
    for known in _SORT_FIELDS:
        if field == known and direction in {"asc", "desc"} and len(words) <= 2:
            return known, direction == "desc"
    raise _bad_order(order)


def _bad_order(order: str) -> BadField:
    return BadField(
        "orderBy is not understood.",
        evidence=f"It is {order[:200]!r}.",
        fix=f"Use {', '.join(_SORT_FIELDS)}, each once, with commas between, and desc behind it for the other way.",
    )


def _after(token: str, query: str, sorts: Sequence[tuple[SortField, bool]]) -> tuple[float | str, ...] | None:
    if not token:
        return None
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        cursor = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=_Cursor)
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise BadField("pageToken is not one of ours.", fix="Start again without it.") from error
    kinds = [isinstance(value, str) for value in cursor.values]
    texts = [cursor.id, *(value for value in cursor.values if isinstance(value, str))]
    foreign = kinds != [field == "display_name" for field, _ in sorts] or any("\0" in text for text in texts)
    if cursor.query != query or foreign:
        raise BadField("pageToken belongs to another question.", fix="Keep filter and orderBy the same on every page.")
    return (*cursor.values, cursor.id)
