"""Usage at the end of a stream whose client did not ask for it: asked for from the engine, and not passed on.

Only for engines of ours, whose wire is known: with ``include_usage`` each chunk may have an empty ``usage``, and before
``[DONE]`` comes one chunk with the usage and no choices.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headrace.contracts.openai.events import each_event, event_data
from headrace.contracts.openai.requests import OpenAIBody
from headrace.resources.errors import BadField

_OPTIONS, _OPTION = "stream_options", "include_usage"
_EACH_CHUNKS = "continuous_usage_stats"
"""vLLM's: the usage in each chunk, where it is asked for at all."""

_MEMBER = b'"usage"'
_EMPTY_MEMBER = re.compile(rb',\s*"usage"\s*:\s*null')


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: dict[str, msgspec.Raw] | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)


def ask_for_usage(body: OpenAIBody) -> bool:
    """Have a streamed answer end with its usage.

    Returns:
        Whether the client did not ask for that. Other options stay as they are, for the engine to judge; and so does
        what are no options at all.

    Raises:
        BadField: Whether it asks for that is not to be told: some engines would take 0 for a no.
    """
    try:
        given = msgspec.json.decode(body.get(_OPTIONS, b"null"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    options: Any = {} if given is None else given
    if not isinstance(options, dict):
        return False
    asked = options.get(_OPTION)
    if asked is True:
        return False
    if asked is not None and asked is not False:
        raise BadField(
            f"`{_OPTIONS}.{_OPTION}` must be true or false.",
            evidence=f"It is {msgspec.json.encode(asked)[:40].decode('utf-8', 'replace')}.",
            fix="Send a boolean.",
        )
    others = {name: value for name, value in options.items() if name != _EACH_CHUNKS or value is not True}
    body[_OPTIONS] = msgspec.Raw(msgspec.json.encode(others | {_OPTION: True}))
    return True


def without_usage(events: bytes) -> bytes:
    """Some whole events as they would be had nobody asked for usage."""
    if _MEMBER not in events:
        return events
    emptied = _EMPTY_MEMBER.sub(b"", events)
    if _MEMBER not in emptied:
        return emptied
    return b"".join(event for event in each_event(emptied) if not _is_usage_alone(event))


def _is_usage_alone(event: bytes) -> bool:
    try:
        chunks = [_CHUNK.decode(data) for data in event_data(event) if _MEMBER in data]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return any(chunk.usage is not None and chunk.choices == [] for chunk in chunks)
