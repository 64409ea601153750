"""Google's form of schemas, a selection of OpenAPI 3.0, as JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from headrace.resources.errors import BadField

MAX_DEPTH = 32
"""Of a schema in a schema; Gemini's own bound is lower."""

_TYPES = ("TYPE_UNSPECIFIED", "STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL")
"""By the numbers that the vendor's libraries send in place of names."""

_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_AS_THEY_ARE = frozenset({"title", "description", "pattern", "minimum", "maximum", "required"})
_WITHOUT_MEANING = frozenset({"nullable", "propertyOrdering", "example", "default"})
"""Read in another place, or said to a reader only."""

_FORMATS_OF_NUMBERS = ("int32", "int64", "float", "double", "enum")
"""OpenAPI's, which JSON Schema does not know."""

_UNDERSCORE = re.compile(r"_([a-z])")


def json_schema(schema: Any, place: str, *, closed: bool = False, depth: int = 0) -> dict[str, Any]:
    """The same schema in JSON Schema's words.

    Args:
        schema: Google's.
        place: Where it stands in the request.
        closed: Whether an object has no other properties than those listed, as in Gemini's answers.
        depth: Of schemas that it stands in.

    Raises:
        BadField: It is no schema, or too deep.
    """
    if not isinstance(schema, dict):
        raise BadField(f"{place} must be a schema.", evidence='For example {"type": "STRING"}.')
    if depth > MAX_DEPTH:
        raise BadField(f"{place} is too deep.", evidence=f"Schemas may stand in each other {MAX_DEPTH} times.")
    said = {_camel(name): value for name, value in schema.items() if value is not None}
    inner = _inner(closed=closed, depth=depth)
    made = {name: _translated(name, value, f"{place}.{name}", inner) for name, value in said.items()}
    made = {name: value for name, value in made.items() if value is not None}
    if "properties" in made:
        made["properties"] = _in_order(made["properties"], said.get("propertyOrdering"))
        if closed:
            made.setdefault("additionalProperties", False)
    return _or_null(made) if said.get("nullable") is True else made


Inner = Callable[[Any, str], dict[str, Any]]


def _inner(*, closed: bool, depth: int) -> Inner:
    def translated(schema: Any, place: str) -> dict[str, Any]:
        return json_schema(schema, place, closed=closed, depth=depth + 1)

    return translated


def _translated(name: str, value: Any, place: str, inner: Inner) -> Any:
    """One keyword; None for what JSON Schema does not say."""
    if name in _AS_THEY_ARE:
        return value
    if name in _WITHOUT_MEANING:
        return None
    if name in _COUNTS:
        return _count(value, place)
    translate = _KEYWORDS.get(name)
    if translate is None:
        raise BadField(
            f"{place} is no field of a schema.",
            fix="JSON Schema's other words are for `responseJsonSchema` and `parametersJsonSchema`.",
        )
    return translate(value, place, inner)


def _type(value: Any, place: str, _: Inner) -> str | None:
    if isinstance(value, str):
        name = value.upper()
    elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(_TYPES):
        name = _TYPES[value]
    else:
        name = ""
    if name not in _TYPES:
        raise BadField(f"{place} must be one of {', '.join(_TYPES[1:])}.", evidence=f"It is {str(value)[:60]!r}.")
    return None if name == _TYPES[0] else name.lower()


def _count(value: Any, place: str) -> int:
    """A 64-bit integer, which Google's JSON writes as text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53 and value == int(value):
        return int(value)
    raise BadField(f"{place} must be a whole number.", evidence=f"It is {str(value)[:60]!r}.")


def _format(value: Any, _: str, __: Inner) -> Any:
    return None if value in _FORMATS_OF_NUMBERS else value


def _properties(value: Any, place: str, inner: Inner) -> dict[str, Any]:
    return {name: inner(each, f"{place}.{name}") for name, each in _expected(value, dict, place).items()}


def _any_of(value: Any, place: str, inner: Inner) -> list[dict[str, Any]]:
    return [inner(each, f"{place}[{index}]") for index, each in enumerate(_expected(value, list, place))]


def _enum(value: Any, place: str, _: Inner) -> list[Any]:
    return list(_expected(value, list, place))


def _others(value: Any, place: str, inner: Inner) -> bool | dict[str, Any]:
    return value if isinstance(value, bool) else inner(value, place)


_KEYWORDS: dict[str, Callable[[Any, str, Inner], Any]] = {
    "type": _type,
    "format": _format,
    "items": lambda value, place, inner: inner(value, place),
    "properties": _properties,
    "anyOf": _any_of,
    "additionalProperties": _others,
    "enum": _enum,
}


def _expected(value: Any, kind: type, place: str) -> Any:
    if not isinstance(value, kind):
        raise BadField(f"{place} must be {'an object' if kind is dict else 'a list'}.")
    return value


def _in_order(properties: dict[str, Any], ordering: Any) -> dict[str, Any]:
    """The properties as ``propertyOrdering`` has them, which is how they are written; the rest behind."""
    first = [name for name in ordering if isinstance(name, str)] if isinstance(ordering, list) else []
    return {name: properties[name] for name in (*first, *properties) if name in properties}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in schema:
        return schema | {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "enum" in schema:
        schema = schema | {"enum": [*schema["enum"], None]}
    return schema | {"type": [schema["type"], "null"]} if "type" in schema else schema


def _camel(name: str) -> str:
    return _UNDERSCORE.sub(lambda found: found[1].upper(), name)
