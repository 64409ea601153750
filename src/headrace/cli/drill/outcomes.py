"""What became of one request, as its client can tell: whole, refused, broken off with a clear error, or lost.

Lost is what no client should meet while a server is looked after: a connection that fails, an answer of 5xx, a stream
that is cut without a word, one that hangs. So is any other error than a full queue: the same request was answered
before. A loss is the server's, never the client's to hide: nothing is sent twice here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

_REASON_SHOWN = 160
"""Characters of an error that are kept as a reason."""


class Outcome(StrEnum):
    """How a request ended."""

    WHOLE = "whole"  # the answer, to its announced end
    REFUSED = "refused"  # 429, with a reason: the queue is full, and the client knows it
    BROKEN = "broken"  # a stream that had begun and ended with an error event that says why
    LOST = "lost"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One request.

    Attributes:
        stream: Whether its answer was asked for as a stream.
        waited_s: The longest that nothing came: until the answer began, or between two pieces of it. Of an answer in
            one piece, until it was there.
        reason: Why it is not whole; empty where it is.
    """

    stream: bool
    outcome: Outcome
    waited_s: float
    reason: str = ""


def of_answer(status: int, body: bytes) -> tuple[Outcome, str]:
    """What an answer in one piece is, and why where it is not whole.

    >>> of_answer(200, b'{"choices": [{"finish_reason": "stop"}]}')
    (<Outcome.WHOLE: 'whole'>, '')
    """
    parsed = _parsed(body)
    if status == 200:
        if parsed.get("choices"):
            return Outcome.WHOLE, ""
        return Outcome.LOST, f"200 with a body that is no answer: {_short(body.decode(errors='replace'))}"
    said = _said(parsed.get("error"))
    if status == 429 and said:
        return Outcome.REFUSED, said
    return Outcome.LOST, f"{status} {said or 'without a reason'}"


class Reading:
    """One stream of server-sent events, line by line.

    Attributes:
        began: Whether a piece of the answer came.
    """

    def __init__(self) -> None:
        self.began = False
        self._finished = False
        self._done = False
        self._error = ""

    def take(self, line: str) -> bool:
        """One line; returns whether it brought anything."""
        if not line.startswith("data:"):
            return False
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            self._done = True
            return True
        event = _parsed(data.encode())
        self._error = self._error or _said(event.get("error"))
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            self.began = True
            self._finished = self._finished or (isinstance(choice, dict) and bool(choice.get("finish_reason")))
        return True

    def end(self, broken_by: str = "") -> tuple[Outcome, str]:
        """What the stream was, now that nothing more comes.

        Args:
            broken_by: The transport's error that ended it; empty where it ended by itself.
        """
        if self._error:
            return Outcome.BROKEN, self._error
        if self._done and self._finished and not broken_by:
            return Outcome.WHOLE, ""
        where = "in the middle" if self.began else "before its first piece"
        if broken_by:
            return Outcome.LOST, f"cut {where}, without an error event: {broken_by}"
        if self._done:
            return Outcome.LOST, "[DONE] without the reason why the answer is finished"
        return Outcome.LOST, f"ended {where}, without [DONE] and without an error event"


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _said(error: object) -> str:
    """The code and the message of an error in OpenAI's shape; empty where it does not say what happened."""
    if not isinstance(error, dict) or not error.get("message"):
        return ""
    return _short(f"{error.get('code') or ''} {error['message']}".strip())


def _short(text: str) -> str:
    return text if len(text) <= _REASON_SHOWN else f"{text[:_REASON_SHOWN]}…"
