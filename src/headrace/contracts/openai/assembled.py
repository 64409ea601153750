"""A streamed answer as it would be had it come in one piece."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.contracts.openai.events import event_data

_GROWING = frozenset({"content", "reasoning_content", "reasoning", "refusal", "text", "arguments"})
"""Members of which every chunk brings the next part; of others the last one counts."""

_NO_SHAPE = (AttributeError, TypeError, ValueError, KeyError)
"""What reading a chunk raises if it has not the shape that it should."""


def assembled(events: bytes) -> dict[str, Any] | None:
    """The answer that some whole events add up to; None if they hold no chunk.

    Log probabilities are left out. What is no chunk of OpenAI's is passed over, but for an ``error``.
    """
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for data in event_data(events):
        try:
            chunk = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if not isinstance(chunk, dict):
            continue
        answer |= {name: value for name, value in chunk.items() if name != "choices" and value is not None}
        pieces = chunk.get("choices")
        for piece in pieces if isinstance(pieces, list) else ():
            try:
                _add(choices.setdefault(int(piece["index"]), {"index": piece["index"]}), piece)
            except _NO_SHAPE:
                continue
    if not answer and not choices:
        return None
    if answer.get("object") == "chat.completion.chunk":
        answer["object"] = "chat.completion"
    answer["choices"] = [choices[index] for index in sorted(choices)]
    return answer


def _add(choice: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        if name == "delta":
            _grow(choice.setdefault("message", {}), value)
        elif name not in ("logprobs", "index") and value is not None:
            _grow(choice, {name: value})


def _grow(whole: dict[str, Any], part: dict[str, Any]) -> None:
    for name, value in part.items():
        if name == "tool_calls":
            _grow_calls(whole.setdefault(name, []), value or ())
        elif isinstance(value, dict):
            _grow(whole.setdefault(name, {}), value)
        elif name in _GROWING and isinstance(value, str):
            whole[name] = (whole.get(name) or "") + value
        elif value is not None or name not in whole:
            whole[name] = value


def _grow_calls(calls: list[dict[str, Any]], parts: Any) -> None:
    """Tool calls come in parts that say by their ``index`` which one they are of."""
    for part in parts:
        known = next((call for call in calls if call.get("index") == part.get("index")), None)
        if known is None:
            known = {}
            calls.append(known)
        _grow(known, part)
