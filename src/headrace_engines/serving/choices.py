"""One choice of an answer: its text, taken apart into content and tool calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from headrace_engines.serving.generator import FinishReason
from headrace_engines.serving.logprobs import LoggedToken
from headrace_engines.serving.text import TextDelta
from headrace_engines.serving.tools.reader import CallPiece, Reader

WireFinishReason = FinishReason | Literal["tool_calls"]


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """What a choice says next, or all that it said.

    Attributes:
        content: Text for people.
        calls: Pieces of tool calls, in order.
        call_ids: The ids of all calls of the choice begun so far.
        tokens: Tokens of the text and their log probabilities.
        finish_reason: Set at the end.
    """

    content: str = ""
    calls: Sequence[CallPiece] = ()
    call_ids: Sequence[str] = ()
    tokens: Sequence[LoggedToken] = ()
    finish_reason: WireFinishReason | None = None

    @property
    def is_text_only(self) -> bool:
        """Whether it says nothing but text, as nearly every piece of a stream."""
        return self.finish_reason is None and not self.calls and not self.tokens


class Choice:
    """Text that is all content."""

    def read(self, delta: TextDelta) -> Piece:
        """What the next piece of text says."""
        return Piece(content=delta.text, tokens=delta.tokens, finish_reason=delta.finish_reason)


class EchoingChoice(Choice):
    """The prompt, then text.

    Args:
        echo: What stands before the text.
    """

    def __init__(self, echo: str) -> None:
        self._echo = echo
        self._echo_chars = len(echo)

    def read(self, delta: TextDelta) -> Piece:
        """What the next piece of text says; the first begins with the prompt."""
        echo, self._echo = self._echo, ""
        tokens = [msgspec.structs.replace(token, offset=self._echo_chars + token.offset) for token in delta.tokens]
        return Piece(content=echo + delta.text, tokens=tokens, finish_reason=delta.finish_reason)


class CallingChoice(Choice):
    """Text that may hold tool calls.

    Args:
        reader: Tells them apart.
        new_call_id: Makes an id for each.
        parallel: Whether there may be more than one; if not, the answer is over after the first.
    """

    def __init__(self, reader: Reader, new_call_id: Callable[[], str], *, parallel: bool) -> None:
        self._reader = reader
        self._new_call_id = new_call_id
        self._parallel = parallel
        self._ids: list[str] = []

    def read(self, delta: TextDelta) -> Piece:
        """What the next piece of text says."""
        content, calls = self._reader.push(delta.text)
        finish_reason: WireFinishReason | None = delta.finish_reason
        if finish_reason is not None:
            rest = self._reader.flush()
            content, calls = content + rest.content, calls + rest.calls
        over = not self._parallel and self._reader.calls_done
        if over or (finish_reason == "stop" and self._reader.calls_begun):
            finish_reason = "tool_calls"
        self._ids += [self._new_call_id() for call in calls if call.name is not None]
        return Piece(content=content, calls=calls, call_ids=self._ids, tokens=delta.tokens, finish_reason=finish_reason)


def joined(pieces: Sequence[Piece]) -> Piece:
    """All that a choice said, from what it said piece by piece."""
    return Piece(
        content="".join(piece.content for piece in pieces),
        calls=[call for piece in pieces for call in piece.calls],
        call_ids=pieces[-1].call_ids,
        tokens=[token for piece in pieces for token in piece.tokens],
        finish_reason=pieces[-1].finish_reason,
    )
