"""The messages of a chat request, checked and in the form that chat templates take."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_engines.serving.codec import ChatMessage
from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.json_text import NotAnObject, object_in
from headrace_engines.serving.wrong_values import explain

ROLES = ("system", "developer", "user", "assistant", "tool")

IMAGE_PARTS = frozenset({"image_url", "input_image", "image"})
"""Types of content parts that are images."""


def chat_messages(messages: list[dict[str, Any]]) -> list[ChatMessage]:
    """The messages as a chat template takes them: plain text, ``developer`` under its older name ``system``.

    Raises:
        BadRequest: A role or a content part that this shell does not have; it names the place.
    """
    return [chat_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def place_of_tool_use(messages: list[dict[str, Any]]) -> str | None:
    """The first place that only a template which knows tools can render; None without any."""
    for index, message in enumerate(messages):
        if message.get("role") == "tool":
            return f"messages[{index}].role"
        if message.get("tool_calls"):
            return f"messages[{index}].tool_calls"
    return None


def place_of_image(messages: list[dict[str, Any]]) -> str | None:
    """The first content part that is an image; None without any."""
    for index, message in enumerate(messages):
        content = message.get("content")
        for number, part in enumerate(content if isinstance(content, list) else []):
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind in IMAGE_PARTS:
                return f"messages[{index}].content[{number}]"
    return None


def chat_message(message: dict[str, Any], place: str) -> ChatMessage:
    """One of them.

    Args:
        message: As it came.
        place: Where it stands in the request.

    Raises:
        BadRequest: As `chat_messages`.
    """
    role = message.get("role")
    if role not in ROLES:
        raise _invalid(f"{place}.role", f"is {role!r}; {', '.join(ROLES)} are supported")
    if message.get("function_call"):
        raise _invalid(f"{place}.function_call", "is the older form of `tool_calls`, which is supported")
    calls = _tool_calls(message, place)
    read = ChatMessage(
        role="system" if role == "developer" else str(role),
        content=_content(message.get("content"), f"{place}.content", may_be_missing=bool(calls)),
    )
    if calls:
        read["tool_calls"] = calls
    if role == "tool":
        call_id = message.get("tool_call_id")
        if not isinstance(call_id, str):
            raise _invalid(f"{place}.tool_call_id", "must say which call this answers")
        read["tool_call_id"] = call_id
    name = message.get("name")
    if name is not None:
        if not isinstance(name, str):
            raise _invalid(f"{place}.name", "must be text")
        read["name"] = name
    return read


def _content(content: Any, place: str, *, may_be_missing: bool) -> str:
    if content is None and may_be_missing:
        return ""
    if isinstance(content, list):
        content = "\n".join(_text_part(part, f"{place}[{index}]") for index, part in enumerate(content))
    if not isinstance(content, str):
        raise _invalid(place, "must be text")
    return content


def _text_part(part: object, place: str) -> str:
    if not isinstance(part, dict):
        raise _invalid(place, 'must be a content part, such as {"type": "text", "text": …}')
    kind, text = part.get("type"), part.get("text")
    if kind != "text":
        raise BadRequest(
            f"{place}: content parts of type {kind!r} are not supported, only text.",
            param=place,
            code="unsupported_content",
        )
    if not isinstance(text, str):
        raise _invalid(f"{place}.text", "must be text")
    return text


def _tool_calls(message: dict[str, Any], place: str) -> list[dict[str, Any]]:
    calls = message.get("tool_calls")
    if not calls:
        return []
    if message["role"] != "assistant":
        raise _invalid(f"{place}.tool_calls", "belongs to messages of the assistant")
    if not isinstance(calls, list):
        raise _invalid(f"{place}.tool_calls", "must be a list")
    return [_tool_call(call, f"{place}.tool_calls[{index}]") for index, call in enumerate(calls)]


class _CalledFunction(msgspec.Struct):
    name: str
    arguments: str


class _ToolCall(msgspec.Struct):
    id: str
    function: _CalledFunction


def _tool_call(call: Any, place: str) -> dict[str, Any]:
    """One call; its arguments as an object, which is what templates put into their own form."""
    try:
        read = msgspec.convert(call, _ToolCall)
    except msgspec.ValidationError as error:
        sentence, _ = explain(error, call, place)
        raise BadRequest(sentence, param=place, code="invalid_value") from error
    try:
        arguments = object_in(read.function.arguments or "{}")
    except NotAnObject as error:
        raise _invalid(f"{place}.function.arguments", f"must be a JSON object, as text: {error}") from error
    return {"type": "function", "id": read.id, "function": {"name": read.function.name, "arguments": arguments}}


def _invalid(place: str, what: str) -> BadRequest:
    return BadRequest(f"{place} {what}.", param=place, code="invalid_value")
