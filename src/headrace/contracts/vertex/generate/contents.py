"""Turns of a conversation: Gemini's contents as OpenAI's messages."""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from headrace.contracts.vertex.generate.wire import DATA, Blob, Content, FunctionCall, FunctionResponse, Part
from headrace.resources.errors import BadField

Message = dict[str, Any]

_ROLES = {"": "user", "user": "user", "function": "user", "tool": "user", "model": "assistant"}
"""Gemini's, and who that is. A function's response is a part of any turn that is not the model's."""

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


class _Placed(NamedTuple):
    """A part and where it stands in the request."""

    place: str
    part: Part


def messages_of(contents: Sequence[Content], system: Content | None) -> list[Message]:
    """A conversation as OpenAI's messages.

    Contents of one role that follow each other are one turn: that is how a client keeps what was streamed to it.

    Raises:
        BadField: A part is of a kind that no model is given here, or in the wrong turn; or there is none.
    """
    if not contents:
        raise BadField(
            "`contents` must have at least one content.",
            fix='For example {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}.',
        )
    messages: list[Message] = []
    if system is not None and (text := _system_text(system)):
        messages.append({"role": "system", "content": text})
    calls = _Calls()
    for role, placed in _turns(contents):
        messages += _said_by_model(placed, calls) if role == "assistant" else _said_to_model(placed, calls)
    return messages


def _turns(contents: Sequence[Content]) -> Iterator[tuple[str, list[_Placed]]]:
    role, placed = "", list[_Placed]()
    for index, content in enumerate(contents):
        place = f"contents[{index}]"
        speaker = _ROLES.get(content.role)
        if speaker is None:
            raise BadField(
                f"{place}.role must be user or model.",
                evidence=f"It is {content.role[:60]!r}.",
                fix="What the system says goes into `systemInstruction`.",
            )
        if speaker != role:
            if placed:
                yield role, placed
            role, placed = speaker, []
        placed += _parts(content, place)
    if not placed:
        raise BadField("The last of `contents` says nothing.", fix="Give it at least one part, such as a text.")
    yield role, placed


def _parts(content: Content, place: str) -> Iterator[_Placed]:
    """The parts that say something. What a model thought in earlier turns is not told to it again."""
    for index, part in enumerate(content.parts):
        where = f"{place}.parts[{index}]"
        held = [wire for name, wire in DATA.items() if getattr(part, name) is not None]
        if part.thought or (not held and part.thought_signature is not None):
            continue
        if len(held) != 1:
            raise BadField(
                f"{where} must have exactly one of {', '.join(DATA.values())}.",
                evidence=f"It has {', '.join(held) or 'none'}.",
            )
        if held[0] in ("fileData", "executableCode", "codeExecutionResult"):
            raise BadField(
                f"{where}.{held[0]} is not supported.",
                evidence="Only text, pictures as inlineData, and calls of functions are given to a model here.",
                fix="Send a picture's bytes as inlineData." if held[0] == "fileData" else "Leave the part out.",
            )
        yield _Placed(where, part)


def _system_text(system: Content) -> str:
    texts = []
    for place, part in _parts(system, "systemInstruction"):
        if part.text is None:
            raise BadField(f"{place} must be text.")
        texts.append(part.text)
    return "\n".join(texts)


class _Calls:
    """Calls of a conversation that wait for their responses. Gemini's need no ids, OpenAI's do."""

    def __init__(self) -> None:
        self._made = 0
        self._open: list[tuple[str, str, str]] = []  # the id that was given, the name, and OpenAI's id

    def made(self, call: FunctionCall) -> str:
        """OpenAI's id of a call."""
        self._made += 1
        identifier = call.id or f"call_{self._made}"
        self._open.append((call.id, call.name, identifier))
        return identifier

    def answered(self, response: FunctionResponse, place: str) -> str:
        """OpenAI's id of the call that this responds to: the one with its id, else the oldest of its name."""
        for index, (given, name, identifier) in enumerate(self._open):
            if given == response.id if response.id and given else name == response.name:
                del self._open[index]
                return identifier
        raise BadField(
            f"{place}.functionResponse answers no functionCall.",
            evidence=f"No call of {response.name[:60]!r} before it is without a response.",
            fix="Send the model's turn with the functionCall before it.",
        )


def _said_by_model(placed: Sequence[_Placed], calls: _Calls) -> list[Message]:
    texts, made = [], []
    for place, part in placed:
        if part.text is not None:
            texts.append(part.text)
        elif part.function_call is not None:
            made.append(_tool_call(part.function_call, place, calls))
        else:
            raise BadField(f"{place}: a model's turn has texts and functionCalls only.")
    message: Message = {"role": "assistant", "content": "".join(texts)}
    if made:
        message |= {"content": message["content"] or None, "tool_calls": made}
    return [message]


def _tool_call(call: FunctionCall, place: str, calls: _Calls) -> dict[str, Any]:
    if not call.name:
        raise BadField(f"{place}.functionCall.name is missing.")
    arguments = msgspec.json.encode(call.args or {}).decode()
    return {"id": calls.made(call), "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _said_to_model(placed: Sequence[_Placed], calls: _Calls) -> list[Message]:
    """Responses of functions first, each a message of its own; then what the user says."""
    responses: list[Message] = []
    said: list[dict[str, Any]] = []
    for place, part in placed:
        if part.text is not None:
            said.append({"type": "text", "text": part.text})
        elif part.inline_data is not None:
            said.append({"type": "image_url", "image_url": {"url": _picture(part.inline_data, f"{place}.inlineData")}})
        elif part.function_response is not None:
            response = part.function_response
            if response.parts:
                raise BadField(
                    f"{place}.functionResponse.parts is not supported.",
                    evidence="What a tool says is text to the models that are served here.",
                    fix="Put what the model is to read into `response`, a picture into a part of its own (inlineData).",
                )
            content = msgspec.json.encode(response.response or {}).decode()
            responses.append({"role": "tool", "tool_call_id": calls.answered(response, place), "content": content})
        else:
            raise BadField(f"{place}.functionCall belongs to a turn of the role model.")
    if not said:
        return responses
    alone = len(said) == 1 and said[0]["type"] == "text"
    return [*responses, {"role": "user", "content": said[0]["text"] if alone else said}]


def _picture(blob: Blob, place: str) -> str:
    """The picture as a ``data:`` address. Google's JSON may have either alphabet of base64, padded or not."""
    if not blob.mime_type.startswith("image/"):
        raise BadField(
            f"{place}.mimeType must be of a picture.",
            evidence=f"It is {blob.mime_type[:60]!r}.",
            fix="Texts go into `text`; sound and films are not supported.",
        )
    try:
        data = blob.data.encode("ascii").translate(_TO_STANDARD)
        data += b"=" * (-len(data) % 4)
        binascii.a2b_base64(data, strict_mode=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise BadField(f"{place}.data must be base64.", evidence=f"{error}.") from error
    return f"data:{blob.mime_type};base64,{data.decode('ascii')}"
