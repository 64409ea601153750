"""The grammar of an answer that has to be a call: a JSON Schema made of the tools' own."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_engines.serving.generator import Grammar
from headrace_engines.serving.tools.request import ToolChoice

_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


def grammar_of(choice: ToolChoice) -> Grammar | None:
    """For a named tool its arguments; for ``required`` a list of calls; None where the model is free."""
    if choice.mode == "auto":
        return None
    schema = _parameters(choice.callable[0]) if choice.mode == "named" else _list_of_calls(choice)
    return Grammar(kind="json_schema", text=msgspec.json.encode(schema).decode())


def _list_of_calls(choice: ToolChoice) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    calls = []
    for index, function in enumerate(choice.callable):
        parameters = _parameters(function)
        if _has_reference(parameters):  # its references are to its own root, which moves
            definitions[f"tool{index}"] = _moved(parameters, f"#/$defs/tool{index}")
            parameters = {"$ref": f"#/$defs/tool{index}"}
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": function["name"]}, "arguments": parameters},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    schema: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"anyOf": calls}}
    if not choice.parallel:
        schema["maxItems"] = 1
    return schema | ({"$defs": definitions} if definitions else {})


def _parameters(function: dict[str, Any]) -> dict[str, Any]:
    return function.get("parameters") or _NO_PARAMETERS


def _has_reference(schema: Any) -> bool:
    if isinstance(schema, dict):
        return isinstance(schema.get("$ref"), str) or any(_has_reference(each) for each in schema.values())
    return isinstance(schema, list) and any(_has_reference(each) for each in schema)


def _moved(schema: Any, root: str) -> Any:
    """`schema` with its references to its own root (``#…``) turned to where that root is now."""
    if isinstance(schema, list):
        return [_moved(each, root) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {name: _moved(each, root) for name, each in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = root + reference[1:]
    return moved
