"""Functions that a model may call: Gemini's tools as OpenAI's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.contracts.vertex.generate.schemas import json_schema
from headrace.contracts.vertex.generate.wire import (
    GOOGLES_TOOLS,
    FunctionCallingConfig,
    FunctionDeclaration,
    Tool,
    ToolConfig,
)
from headrace.resources.errors import BadField

_MODES = ("MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED")
"""By the numbers that the vendor's libraries send in place of names."""


def tool_fields(tools: Sequence[Tool], config: ToolConfig | None) -> dict[str, Any]:
    """The fields ``tools`` and ``tool_choice`` of a chat; none without functions, or where none may be called.

    Raises:
        BadField: A tool is one of Google's own, a declaration is not well formed, or a call is wanted of what is not
            declared.
    """
    functions = _functions(tools)
    declared = {function["name"]: function for function in functions}
    if len(declared) < len(functions):
        raise BadField("Two functionDeclarations of `tools` have the same name.")
    calling = config.function_calling_config if config is not None else None
    calling = calling or FunctionCallingConfig()
    mode = _mode(calling.mode)
    allowed = calling.allowed_function_names if mode in ("ANY", "VALIDATED") else ()
    if unknown := [name for name in allowed if name not in declared]:
        raise BadField(
            "toolConfig.functionCallingConfig.allowedFunctionNames names functions that are not declared.",
            evidence=f"These: {', '.join(unknown)[:200]}.",
        )
    if mode == "ANY" and not declared:
        raise BadField("toolConfig wants a call, and `tools` declares no function.")
    if mode == "NONE" or not declared:
        return {}
    offered = [declared[name] for name in dict.fromkeys(allowed)] or list(declared.values())
    fields: dict[str, Any] = {"tools": [{"type": "function", "function": function} for function in offered]}
    if mode == "ANY":
        named = {"type": "function", "function": {"name": offered[0]["name"]}}
        fields["tool_choice"] = named if len(offered) == 1 else "required"
    return fields


def _functions(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    functions = []
    for index, tool in enumerate(tools):
        place = f"tools[{index}]"
        if foreign := [wire for name, wire in GOOGLES_TOOLS.items() if getattr(tool, name) is not None]:
            raise BadField(
                f"{place}.{foreign[0]} is not supported.",
                evidence="It runs at Google.",
                fix="Declare a function that does it, in functionDeclarations.",
            )
        functions += [
            _function(declaration, f"{place}.functionDeclarations[{number}]")
            for number, declaration in enumerate(tool.function_declarations)
        ]
    return functions


def _function(declaration: FunctionDeclaration, place: str) -> dict[str, Any]:
    if not declaration.name:
        raise BadField(f"{place}.name is missing.")
    function: dict[str, Any] = {"name": declaration.name}
    if declaration.description:
        function["description"] = declaration.description
    if declaration.parameters is not None:
        function["parameters"] = json_schema(declaration.parameters, f"{place}.parameters")
    elif declaration.parameters_json_schema is not None:
        if not isinstance(declaration.parameters_json_schema, dict):
            raise BadField(f"{place}.parametersJsonSchema must be an object.")
        function["parameters"] = declaration.parameters_json_schema
    return function


def _mode(value: Any) -> str:
    if value is None:
        return "AUTO"
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(_MODES):
        return _MODES[value]
    if isinstance(value, str) and value.upper() in _MODES:
        return value.upper()
    raise BadField(
        f"toolConfig.functionCallingConfig.mode must be one of {', '.join(_MODES[1:])}.",
        evidence=f"It is {str(value)[:60]!r}.",
    )
