"""Usage at the end of a stream whose client did not ask for it: asked for from the engine, and not passed on.

Only for engines of ours, whose wire is known: with ``include_usage`` each chunk may have an empty ``usage``, and before
``[DONE]`` comes one chunk with the usage and no choices.
"""

from __future__ import annotations

import re

import msgspec

from headrace.contracts.openai.events import event_data
from headrace.contracts.openai.requests import OpenAIBody

_OPTIONS, _OPTION = "stream_options", "include_usage"
_ASKED = msgspec.Raw(msgspec.json.encode({_OPTION: True}))

_MEMBER = b'"usage"'
_EMPTY_MEMBER = re.compile(rb',\s*"usage"\s*:\s*null')
_EVENTS = re.compile(rb".+?(?:\n\n|\r\n\r\n|\Z)", re.DOTALL)


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: dict[str, msgspec.Raw] | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)


def ask_for_usage(body: OpenAIBody) -> bool:
    """Have a streamed answer end with its usage.

    Returns:
        Whether the client did not ask for that. Options that say more than whether usage is wanted stay as they are,
        for the engine to judge.
    """
    try:
        given = msgspec.json.decode(body.get(_OPTIONS, b"null"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    options = {} if given is None else given
    if not isinstance(options, dict) or not options.keys() <= {_OPTION}:
        return False
    if not any(options.get(_OPTION) is value for value in (None, False)):
        return False
    body[_OPTIONS] = _ASKED
    return True


def without_usage(events: bytes) -> bytes:
    """Some whole events as they would be had nobody asked for usage."""
    if _MEMBER not in events:
        return events
    emptied = _EMPTY_MEMBER.sub(b"", events)
    if _MEMBER not in emptied:
        return emptied
    return b"".join(event for event in _EVENTS.findall(emptied) if not _is_usage_alone(event))


def _is_usage_alone(event: bytes) -> bool:
    try:
        chunks = [_CHUNK.decode(data) for data in event_data(event) if _MEMBER in data]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return any(chunk.usage is not None and chunk.choices == [] for chunk in chunks)
