"""What a chat request says about tools, checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.wrong_values import explain

# OpenAI's rule, and the dot that others allow.
_ToolName = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_.\-]{1,64}$")]


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Which tools a model is told of and whether it has to call one.

    Attributes:
        tools: Their definitions, as the chat template takes them; empty for none.
        mode: ``auto`` leaves it to the model; ``required`` wants at least one call; ``named`` one of the only tool.
        parallel: More than one call in an answer.
    """

    tools: list[dict[str, Any]] = []
    mode: Literal["auto", "required", "named"] = "auto"
    parallel: bool = True

    @property
    def callable(self) -> list[dict[str, Any]]:
        """The function of each tool: name, description, parameters."""
        return [tool["function"] for tool in self.tools]

    @property
    def schemas(self) -> dict[str, Any]:
        """The JSON Schema of each tool's parameters, by the tool's name."""
        return {function["name"]: function.get("parameters") or {} for function in self.callable}

    @property
    def names(self) -> frozenset[str]:
        """The tools' names."""
        return frozenset(function["name"] for function in self.callable)


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(msgspec.Struct):
    type: Literal["function"]
    function: _Function


class _NamedFunction(msgspec.Struct):
    name: str


class _Named(msgspec.Struct):
    type: Literal["function"]
    function: _NamedFunction


def read_tool_choice(tools: list[Any] | None, choice: Any, *, parallel: bool | None) -> ToolChoice | None:
    """What `tools`, `tool_choice` and `parallel_tool_calls` ask for; None for no tools at all.

    Raises:
        BadRequest: One is not of OpenAI's shape; it names the place.
    """
    definitions = [_definition(tool, f"tools[{index}]") for index, tool in enumerate(tools or [])]
    names = [definition["function"]["name"] for definition in definitions]
    if len(set(names)) < len(names):
        raise BadRequest("Two `tools` have the same name.", param="tools", code="invalid_value")
    if choice is None or choice == "auto":
        chosen = ToolChoice(tools=definitions, parallel=parallel is not False)
    elif choice == "none":
        return None  # the model is not told of tools that it must not call
    elif choice == "required":
        chosen = ToolChoice(tools=definitions, mode="required", parallel=parallel is not False)
    else:
        name = _named(choice)
        chosen = ToolChoice(
            tools=[each for each in definitions if each["function"]["name"] == name], mode="named", parallel=False
        )
        if not chosen.tools:
            raise BadRequest(
                f"`tool_choice` names {name!r}, which `tools` does not have.", param="tool_choice", code="invalid_value"
            )
    if chosen.tools:
        return chosen
    if chosen.mode != "auto":
        raise BadRequest(
            "`tool_choice` asks for a call, and there are no `tools`.", param="tools", code="invalid_value"
        )
    return None


def _definition(tool: Any, place: str) -> dict[str, Any]:
    try:
        function = msgspec.convert(tool, _Tool).function
    except msgspec.ValidationError as error:
        sentence, _ = explain(error, tool, place)
        raise BadRequest(sentence, param=place, code="invalid_value") from error
    try:
        msgspec.convert(function.name, _ToolName)
    except msgspec.ValidationError as error:
        raise BadRequest(
            f"{place}.function.name is {function.name!r}; a name is 1 to 64 letters, digits, _, . and -.",
            param=f"{place}.function.name",
            code="invalid_value",
        ) from error
    definition: dict[str, Any] = tool
    return definition


def _named(choice: Any) -> str:
    try:
        return msgspec.convert(choice, _Named).function.name
    except msgspec.ValidationError as error:
        raise BadRequest(
            '`tool_choice` is "none", "auto", "required" or {"type": "function", "function": {"name": …}}.',
            param="tool_choice",
            code="invalid_value",
        ) from error
