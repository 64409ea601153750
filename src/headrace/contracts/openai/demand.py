"""What a request asks of an engine, as far as the choice of a replica goes: read from its body without the rest."""

from __future__ import annotations

import msgspec

_GENERATING = frozenset({"/v1/chat/completions", "/v1/completions"})
_LONGEST_NUMBER = 9
PROMPT_BYTES = 160 * 1024
"""Of a prompt's beginning; nobody looks farther."""

_NONE = msgspec.Raw(b"")


class Demand(msgspec.Struct, frozen=True):
    """How large a request is, and how its prompt begins.

    Attributes:
        size_bytes: Of its body.
        max_tokens: The most that may be made; 0 where nothing is, None where the request does not say.
        prompt: What comes first in the engine's prompt, as it was sent: tools and messages, or the prompt; at most
            `PROMPT_BYTES`. Empty where nobody keeps anything of it.
    """

    size_bytes: int
    max_tokens: int | None
    prompt: bytes = b""


class _Fields(msgspec.Struct):
    messages: msgspec.Raw = _NONE
    prompt: msgspec.Raw = _NONE
    tools: msgspec.Raw = _NONE
    max_tokens: msgspec.Raw = _NONE
    max_completion_tokens: msgspec.Raw = _NONE


_DECODER = msgspec.json.Decoder(_Fields)


def size_of(path: str, body: bytes) -> Demand:
    """What is known of a request for `path` without reading it."""
    return Demand(len(body), None if path in _GENERATING else 0)


def demand_of(path: str, body: bytes) -> Demand:
    """What a request for `path` asks.

    Args:
        path: Of the engine's route.
        body: Its body.
    """
    if path not in _GENERATING:
        return Demand(len(body), 0)
    try:
        fields = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return size_of(path, body)  # the engine's to refuse
    caps = [cap for cap in (_number(fields.max_tokens), _number(fields.max_completion_tokens)) if cap is not None]
    parts = (fields.tools, fields.messages, fields.prompt)
    prompt = b"".join(memoryview(part)[:PROMPT_BYTES] for part in parts)[:PROMPT_BYTES]
    return Demand(len(body), min(caps, default=None), prompt)


def _number(raw: msgspec.Raw) -> int | None:
    """A whole number that fits; whatever else stands there is the engine's to refuse."""
    digits = bytes(raw)
    return int(digits) if digits.isdigit() and len(digits) <= _LONGEST_NUMBER else None
