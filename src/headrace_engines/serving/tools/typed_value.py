"""What bare text means as a value of a parameter, by the parameter's JSON Schema. Pure."""

from __future__ import annotations

import json
from collections.abc import Set
from typing import Any

import msgspec

from headrace_engines.serving.followable import target_of
from headrace_engines.serving.tools.python_scan import MAX_CHARS, PythonScan, literal_as_json

_TEXT = frozenset({"string"})
_MAX_STEPS = 32
"""Schemas that are looked at for one parameter: alternatives, and what references lead to."""


def types_of(schema: Any, key: str) -> Set[str]:
    """The types that a parameter may have; text where its schema does not say.

    Args:
        schema: The tool's parameters.
        key: The parameter's name.
    """
    properties = schema.get("properties") if isinstance(schema, dict) else None
    wanted = [properties.get(key)] if isinstance(properties, dict) else []
    types: set[str] = set()
    for _ in range(_MAX_STEPS):
        if not wanted:
            break
        each = wanted.pop()
        if not isinstance(each, dict):
            continue
        said = each.get("type")
        types |= {kind for kind in (said if isinstance(said, list) else [said]) if isinstance(kind, str)}
        if said is None:
            listed = each.get("enum", [each["const"]] if "const" in each else [])
            types |= {_type_of(value) for value in listed} if isinstance(listed, list) else set()
        for name in ("anyOf", "oneOf", "allOf"):
            alternatives = each.get(name)
            wanted += alternatives if isinstance(alternatives, list) else []
        if isinstance(reference := each.get("$ref"), str):
            wanted.append(target_of(schema, reference))
    return frozenset(types) or _TEXT


def value_as_json(text: str, types: Set[str]) -> str:
    """The value as JSON: of the first of its types that the text is one of, word for word; else it is text."""
    words = text.strip()
    if "null" in types and words.lower() in ("null", "none"):
        return "null"
    if "boolean" in types and words.lower() in ("true", "false"):
        return words.lower()
    value = _json(words)
    for kind in ("integer", "number", "object", "array"):
        if kind in types and _is_a(value, kind):
            return words
    if types & {"object", "array"} and (told := _literal(words)) and _is_one_of(_json(told), types):
        return told  # models that write much Python quote as it does
    return json.dumps(text, ensure_ascii=False)


def _literal(words: str) -> str | None:
    if not words.startswith(("{", "[", "(")) or len(words) > MAX_CHARS:
        return None
    scan = PythonScan(0)
    scan.find_end(words, final=True)
    return literal_as_json(words) if scan.plain else None


def _is_one_of(value: Any, types: Set[str]) -> bool:
    return any(kind in types and _is_a(value, kind) for kind in ("object", "array"))


def _is_a(value: Any, kind: str) -> bool:
    if kind == "integer":
        return _type_of(value) == "integer" or (isinstance(value, float) and value.is_integer())
    return _type_of(value) == kind or (kind == "number" and _type_of(value) == "integer")


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "integer", float: "number", dict: "object", list: "array"}
    return names.get(type(value), "null")


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
