"""Reads tool calls out of text that comes in pieces. Pure.

What is told does not depend on how the text is cut. Every character ends up in the content, in a call's arguments, or
in a call's frame: its markers, its envelope, and white space that touches it. Text that begins like a call and is none
stays content; a call is announced once its name is one of the request's tools and its arguments have begun. From then
on arguments are passed on as they come, word for word, well-formed or not, as OpenAI's are.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from headrace_engines.serving.tools.formats import ToolFormat


class CallPiece(NamedTuple):
    """News of one call.

    Attributes:
        call_index: Which call of the answer.
        name: The tool, in the call's first piece.
        arguments: What to append to its arguments.
    """

    call_index: int
    name: str | None
    arguments: str


class Reading(NamedTuple):
    """What some text was.

    Attributes:
        content: Text for people.
        calls: Pieces of calls, in order.
    """

    content: str
    calls: list[CallPiece]


class Reader(Protocol):
    """Something that takes an answer's text apart."""

    calls_begun: int
    calls_done: int

    def push(self, text: str) -> Reading:
        """What is certain with these characters."""

    def flush(self) -> Reading:
        """What the rest is, once nothing more follows."""


class ForcedCall:
    """The text of a model that was made to write one tool's arguments and nothing else.

    Args:
        name: The tool.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.calls_begun = self.calls_done = 0

    def push(self, text: str) -> Reading:
        """All of it is arguments."""
        calls = [] if self.calls_begun or not text else [CallPiece(0, self._name, "")]
        if text:
            self.calls_begun = 1
            calls.append(CallPiece(0, None, text))
        return Reading("", calls)

    def flush(self) -> Reading:
        """Nothing is ever held back."""
        self.calls_done = self.calls_begun
        return Reading("", [])


class CallReader(ABC):
    """Finds the blocks of calls of one `ToolFormat`, and what stands between calls. A subclass reads a call.

    Args:
        form: How the model writes calls.
        tools: The tools there are, with the JSON Schema of each one's parameters; whatever names another is content.
        only_one: Nothing after the first call is told.
    """

    def __init__(self, form: ToolFormat, tools: Mapping[str, Any], *, only_one: bool = False) -> None:
        self._only_one = only_one
        self.calls_begun = self.calls_done = 0
        self._form = form
        self._tools = tools
        not_opening = f"(?!{re.escape(form.opening)})" if form.opening else ""
        self._separators = re.compile(rf"(?:{not_opening}[\s{re.escape(form.separators)}])*")
        self._pending = ""
        self._final = False
        self._frame = ""  # consumed since the block opened; content after all if no call comes of it
        self._block_has_calls = False
        self._clean = True  # nothing but white space since the start, or since a call
        self._at_start = True
        self._content: list[str] = []
        self._calls: list[CallPiece] = []
        self._state: Callable[[], bool] = self._text

    def push(self, text: str) -> Reading:
        """What is certain with these characters."""
        self._pending += text
        while self._pending and self._state():
            pass
        return self._reading()

    def flush(self) -> Reading:
        """What the rest is: of a call that never began, content."""
        self._final = True
        while self._pending and self._state():
            pass
        self._cut_off()
        self._content += [self._frame if not self._block_has_calls else "", self._pending]
        self._frame = self._pending = ""
        return self._reading()

    def _reading(self) -> Reading:
        reading = Reading("".join(self._content), self._calls)
        self._content, self._calls = [], []
        return reading

    # Each state reads from the front of the pending text. It returns False when it needs more of it.

    def _text(self) -> bool:
        """Outside of calls."""
        if self._clean and self.calls_done:
            self._pending = self._pending.lstrip()
        words = self._pending.lstrip()
        if self._at_start and self._form.starts_with:
            if not words:
                return False
            if words[0] == self._form.starts_with:
                return self._open(len(self._pending) - len(words), 0)
        start = self._pending.find(self._form.opening) if self._form.opening else -1
        if start >= 0:
            before = self._pending[:start].rstrip()
            self._say(before)
            return self._open(start - len(before), len(self._form.opening))
        held_chars = 0 if self._final else overlap_chars(self._pending, self._form.opening)
        sure = self._pending[: len(self._pending) - held_chars]
        if not self._final:
            sure = sure.rstrip()
        self._say(sure)
        return False

    def _say(self, content: str) -> None:
        self._content.append(content)
        self._pending = self._pending[len(content) :]
        if content.strip():
            self._clean = self._at_start = False

    def _open(self, white_chars: int, marker_chars: int) -> bool:
        self._at_start = self._block_has_calls = False
        self._frame = self._pending[: white_chars + marker_chars]
        self._pending = self._pending[white_chars + marker_chars :]
        self._state = self._between
        return True

    def _between(self) -> bool:
        """In a block, before a call or after one."""
        opening, closing = self._form.opening, self._form.closing
        held_chars = 0 if self._final else overlap_chars(self._pending, opening)
        match = self._separators.match(self._pending, 0, len(self._pending) - held_chars)
        assert match is not None  # it matches nothing at least
        self._into_frame(match.end())
        if len(self._pending) == held_chars:
            return False
        if opening and self._pending.startswith(opening):
            self._into_frame(len(opening))
            return True
        if closing and self._pending.startswith(closing):
            self._into_frame(len(closing))
            return self._leave()
        if closing.startswith(self._pending):
            if self._final:
                self._into_frame(len(self._pending))
            return False
        begins = self._begins_call()
        if begins is None and not self._final:
            return False
        self._state = self._head
        return True if begins else self._leave()

    @abstractmethod
    def _begins_call(self) -> bool | None:
        """Whether the pending text, which is some, begins as a call does; None where it is too short to tell."""

    @abstractmethod
    def _head(self) -> bool:
        """Before the arguments of what may be a call: announces one, or finds that it is none."""

    def _cut_off(self) -> None:  # noqa: B027 - nothing to do for most
        """Nothing more follows, and every state has read what it could."""

    def _into_frame(self, chars: int) -> None:
        self._frame += self._pending[:chars]
        self._pending = self._pending[chars:]

    def _leave(self) -> bool:
        """The block is over; if no call was in it, it was content."""
        if not self._block_has_calls:
            self._say_frame()
        self._frame = ""
        self._state = self._text
        return True

    def _say_frame(self) -> None:
        self._content.append(self._frame)
        self._clean = self._at_start = False

    def _announce(self, name: str) -> None:
        self._calls.append(CallPiece(self.calls_begun, name, ""))
        self.calls_begun += 1
        self._block_has_calls = True
        self._frame = ""

    def _argue(self, arguments: str) -> None:
        """Append to the arguments of the call that was announced last."""
        if arguments:
            self._calls.append(CallPiece(self.calls_begun - 1, None, arguments))

    def _not_a_call(self, chars: int) -> bool:
        """What was taken for a call is content: its frame so far and so many characters."""
        if self._block_has_calls:
            self._frame = ""
        self._into_frame(chars)
        self._say_frame()
        self._frame = ""
        self._state = self._text
        return True

    def _end_call(self) -> bool:
        self.calls_done += 1
        self._clean = True
        self._state = self._over if self._only_one else self._between
        return True

    def _over(self) -> bool:
        self._pending = ""
        return False


def overlap_chars(text: str, marker: str) -> int:
    """Length of the longest end of `text` that is a beginning of `marker`."""
    longest = min(len(text), len(marker) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(marker[:size])), 0)
