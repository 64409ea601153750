"""Messages as JSON Schema, with all that `json_bodies` takes for them and nothing more."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from headrace.contracts.vertex.json_bodies import Duration, Int64

Schema = Mapping[str, Any]

_INTEGER_TEXT = "^-?[0-9]{1,19}$"
_DURATION: Schema = {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$", "examples": ["600s"]}


def message_schema(message: type[msgspec.Struct]) -> dict[str, Any]:
    """A message's schema: names in camelCase (snake_case is taken, too), unknown ones refused, ``null`` for absent."""
    hints = get_type_hints(message)
    fields = zip(message.__struct_fields__, message.__struct_encode_fields__, strict=True)
    schema: dict[str, Any] = {
        "title": message.__name__,
        "description": _first_sentence(message),
        "type": "object",
        "properties": {encoded: _nullable(_field(hints[name])) for name, encoded in fields},
        "additionalProperties": False,
    }
    return schema


def _first_sentence(message: type[msgspec.Struct]) -> str:
    return (message.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]} if schema else schema


def _field(hint: Any) -> Schema:  # noqa: PLR0911 - one line for each kind of field
    origin = get_origin(hint)
    if origin in {Union, types.UnionType}:
        hint = next(option for option in get_args(hint) if option is not type(None))
        origin = get_origin(hint)
    if hint in {Any, object}:
        return {}
    if hint is bool:
        return {"type": "boolean"}
    if hint is str:
        return {"type": "string"}
    if hint is int or hint is Int64:
        bits = 32 if hint is int else 64
        number = {"type": "integer", "minimum": -(2 ** (bits - 1)), "maximum": 2 ** (bits - 1) - 1}
        return {"anyOf": [number, {"type": "string", "pattern": _INTEGER_TEXT}]}
    if hint is Duration:
        return _DURATION
    if origin is tuple:
        return {"type": "array", "items": _field(get_args(hint)[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _field(get_args(hint)[1])}
    return message_schema(hint)
