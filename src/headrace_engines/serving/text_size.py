"""How much text is read at all: what cannot be meant to fit the context is refused before it is tokenised.

Tokenising ten megabytes takes half a minute and gigabytes; counting their characters takes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from headrace_engines.serving.body_size import require_decodable
from headrace_engines.serving.errors import BadRequest

MAX_CHARS_PER_TOKEN = 32
"""A text with more characters than this for each token of the context cannot be meant to fit: natural text has 3 to 5
for a token, source code less, and only runs of one character (spaces, dashes) come near this."""


class TextTooLong(BadRequest):
    """A text has more characters, or a chat more messages, than a context of so many tokens could hold."""

    def __init__(self, what: str, at_most: str, *, max_model_len: int, param: str) -> None:
        super().__init__(
            f"The context of this model is {max_model_len} tokens; there are {what}, and at most {at_most} are read.",
            param=param,
            code="context_length_exceeded",
        )


def max_chars(max_model_len: int) -> int:
    """Characters of a text that are read at most."""
    return max_model_len * MAX_CHARS_PER_TOKEN


def require_readable(chars: int, *, max_model_len: int, param: str) -> None:
    """Refuse a text by its length.

    Raises:
        TextTooLong: It cannot fit.
    """
    if chars > max_chars(max_model_len):
        at_most = f"{max_chars(max_model_len):,} ({MAX_CHARS_PER_TOKEN} for each token)"
        raise TextTooLong(f"{chars:,} characters", at_most, max_model_len=max_model_len, param=param)


def require_readable_chat(messages: Sequence[Mapping[str, Any]], *, max_model_len: int) -> None:
    """Refuse a chat by the number of its messages, their parts and calls, each of which takes a token at least.

    And by their text, and by what the arguments of calls would be decoded to.

    Raises:
        TextTooLong: It cannot fit.
        BadRequest: The arguments hold too much, as `require_decodable` has it.
    """
    count = sum(1 + len(_listed(message, "content")) + len(_listed(message, "tool_calls")) for message in messages)
    if count > max_model_len:
        what, at_most = f"{count:,} messages, parts and calls", f"{max_model_len:,}"
        raise TextTooLong(what, at_most, max_model_len=max_model_len, param="messages")
    arguments = "".join(each for message in messages for each in _arguments(message))
    chars = len(arguments) + sum(_chars(message.get("content")) for message in messages)
    require_readable(chars, max_model_len=max_model_len, param="messages")
    require_decodable(arguments.encode(), max_model_len=max_model_len, param="messages")


def _listed(message: Mapping[str, Any], name: str) -> Sequence[object]:
    value = message.get(name)
    return value if isinstance(value, list) else ()


def _arguments(message: Mapping[str, Any]) -> Iterator[str]:
    """What each call of a message says, as JSON; whatever is no call is refused later."""
    for call in _listed(message, "tool_calls"):
        function = call.get("function") if isinstance(call, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(arguments, str):
            yield arguments


def _chars(content: object) -> int:
    """Characters of a message's content; media are no text."""
    if isinstance(content, str):
        return len(content)
    parts: Iterable[object] = content if isinstance(content, list) else ()
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return sum(len(text) for text in texts if isinstance(text, str))
