"""How a route is described, for the OpenAPI document: what it takes and what it answers.

Its method and path say where it is, and the docstring of its handler what it does; a `Description` adds the rest, and
takes it from the structs that parse and make it wherever there are some. Each contract has its own table of them,
``DESCRIPTIONS``, by ``"METHOD /path"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Schema = Mapping[str, Any]
"""JSON Schema. Where a schema may stand, a struct's class may, too, or a `Noun`."""

Shape = Any
"""A `Schema`, a struct's class, or a `Noun`."""


class Noun(msgspec.Struct, frozen=True):
    """A row as the native API shows it (`headrace.api.native.nouns.noun_json`), with what a route adds to it.

    Attributes:
        kind: The row's class.
        more: Schemas of the fields that are added.
        without: Fields that are taken away.
    """

    kind: type[msgspec.Struct]
    more: Mapping[str, Shape] = {}
    without: frozenset[str] = frozenset()


class Query(msgspec.Struct, frozen=True):
    """A parameter of the query; none is ever required."""

    name: str
    text: str
    schema: Schema = msgspec.field(default_factory=lambda: STRING)


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a route takes and answers.

    Attributes:
        answer: What it answers with when all is well.
        body: What its body is; None: it takes none.
        body_required: Whether there must be one.
        body_types: The content types in which the body may come.
        query: What its query may say.
        answer_types: Other content types of the answer, such as that of a stream, with a word about each.
        errors: What shape its errors have.
        public: Whether it answers without a key.
    """

    answer: Shape = msgspec.field(default_factory=lambda: OBJECT)
    body: Shape | None = None
    body_required: bool = True
    body_types: tuple[str, ...] = ("application/json",)
    query: tuple[Query, ...] = ()
    answer_types: Mapping[str, str] = {}
    errors: Literal["google", "openai", "databricks", "oauth"] = "google"
    public: bool = False


STRING: Schema = {"type": "string"}
OBJECT: Schema = {"type": "object"}
BOOLEAN: Schema = {"type": "string", "enum": ["true", "false", "1", "0"]}
"""In a query."""

NUMBER: Schema = {"type": "number", "minimum": 0, "maximum": 999_999_999_999}
"""In a query, as `headrace.api.requests.number` reads it."""


def listed(field: str, item: Shape, **more: Shape) -> Schema:
    """An object with a list in it."""
    return record(**{field: {"type": "array", "items": item}}, **more)


def record(**fields: Shape) -> Schema:
    """An object that has all these fields, and may have others."""
    return {"type": "object", "properties": fields, "required": list(fields)}


def maybe(shape: Shape) -> Schema:
    """It, or null."""
    return {"anyOf": [shape, {"type": "null"}]}
