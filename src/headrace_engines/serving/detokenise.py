"""Token ids to text, piece by piece: whole characters only, and nothing after a stop string. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

Decode = Callable[[Sequence[int]], str]
"""Token ids to text; U+FFFD where bytes are not valid UTF-8."""

REPLACEMENT = "\ufffd"

_REMEMBERED_TOKENS = 2**15
"""Some 5 MB of strings; a text's tokens come back sooner."""

_REMEMBERED_STOPS = 64
"""The sequences of a request have the same ones."""


def remembering(decode: Decode) -> Decode:
    """`decode`, which does not do single tokens twice: half of what `IncrementalDetokeniser` asks for."""
    single = lru_cache(_REMEMBERED_TOKENS)(lambda token_id: decode((token_id,)))
    return lambda token_ids: single(token_ids[0]) if len(token_ids) == 1 else decode(token_ids)


# A UTF-8 character has at most four bytes and a token carries at least one, so an incomplete character spans at most
# three tokens. Whatever is still undecodable after this many is not going to become a character.
_INCOMPLETE_MAX_TOKENS = 4


class IncrementalDetokeniser:
    """Decodes a growing sequence without showing half a character and without decoding it from the start each time.

    The pieces put together are what decoding the whole sequence after its context gives. Only a short window is
    decoded: the last tokens already shown give the context that tokenisers need (a leading space, for one).

    Args:
        decode: The tokeniser's decoding.
        context_ids: Last tokens of the prompt: the first piece continues them.
    """

    def __init__(self, decode: Decode, context_ids: Sequence[int] = ()) -> None:
        self._decode = decode
        self._window = list(context_ids)
        self._context_len = len(self._window)
        self._context_chars = len(decode(self._window)) if self._window else 0
        self._shown_chars = self._context_chars
        self._undecided_tokens = 0

    @property
    def holding(self) -> bool:
        """Whether the last token may be a part of a character whose rest is to come."""
        return 0 < self._undecided_tokens < _INCOMPLETE_MAX_TOKENS

    def push(self, token_id: int) -> str:
        """The text that became certain with this token; often empty for a part of a character."""
        self._window.append(token_id)
        self._undecided_tokens += 1
        text = self._decode(self._window)
        certain = text.rstrip(REPLACEMENT)
        if certain == text:
            return self._show_all(text)
        if self._undecided_tokens >= _INCOMPLETE_MAX_TOKENS:
            certain = text[:-1]
        piece = certain[self._shown_chars :]
        self._shown_chars = max(self._shown_chars, len(certain))
        return piece

    def flush(self) -> str:
        """What was held back, at the end: the bytes that never became a character, as U+FFFD."""
        text = self._decode(self._window)
        piece = text[self._shown_chars :]
        self._shown_chars = len(text)
        return piece

    def _show_all(self, text: str) -> str:
        """Show the rest of the window; its newest tokens become the context of the next ones."""
        piece = text[self._shown_chars :]
        self._undecided_tokens = 0
        if len(text) > self._context_chars:
            self._window = self._window[self._context_len :]
            self._context_len = len(self._window)
            self._shown_chars = self._context_chars = len(self._decode(self._window))
        elif self._context_chars:
            # Special tokens show as nothing; as a context they would cost the next token its leading space.
            del self._window[self._context_len :]
        return piece


class StopScanner:
    """Ends text before the first stop string, wherever the pieces are cut.

    The stop string that is complete first wins, and of several complete at once the longest; so the answer does not
    depend on how the text is cut into pieces. Each character is looked at once, however long the stop strings are.

    Args:
        stops: Stop strings, none of them empty.
        include_stop: End the text after the stop string instead.
    """

    def __init__(self, stops: Sequence[str], *, include_stop: bool = False) -> None:
        self._stops = [_Begun(stop) for stop in stops]
        self._include_stop = include_stop
        self._held = ""
        self.hit = False

    def push(self, piece: str) -> str:
        """The part of the text that can be shown now; `hit` tells whether a stop string ended it."""
        if not self._stops:
            return piece
        text = self._held + piece
        for end, char in enumerate(piece, start=len(self._held) + 1):
            complete = [len(begun.stop) for begun in self._stops if begun.goes_on_with(char)]
            if complete:
                self.hit = True
                self._held = ""
                return text[: end if self._include_stop else end - max(complete)]
        shown_chars = len(text) - max(begun.chars for begun in self._stops)
        self._held = text[shown_chars:]
        return text[:shown_chars]

    def flush(self) -> str:
        """What was held back, once nothing more can follow."""
        held, self._held = self._held, ""
        return held


class _Begun:
    """How much of one stop string the text ends with: the automaton of Knuth, Morris and Pratt.

    Attributes:
        stop: The string.
        chars: Length of its longest beginning that the text ends with.
    """

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.chars = 0
        self._borders = _borders(stop)

    def goes_on_with(self, char: str) -> bool:
        """Take the next character of the text; whether the string is complete with it."""
        while self.chars and self.stop[self.chars] != char:
            self.chars = self._borders[self.chars - 1]
        self.chars += self.stop[self.chars] == char
        return self.chars == len(self.stop)


@lru_cache(_REMEMBERED_STOPS)
def _borders(stop: str) -> tuple[int, ...]:
    """For each beginning of a string, the length of the longest shorter one that it also ends with."""
    borders = [0]
    for char in stop[1:]:
        border = borders[-1]
        while border and stop[border] != char:
            border = borders[border - 1]
        borders.append(border + (stop[border] == char))
    return tuple(borders)
