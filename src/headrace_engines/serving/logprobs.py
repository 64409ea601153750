"""Log probabilities on the wire: the text and bytes of tokens, and which of them belong to text already shown."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from headrace_engines.serving.codec import TextCodec
from headrace_engines.serving.detokenise import REPLACEMENT
from headrace_engines.serving.generator import TokenLogprob

_LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON does not have; as in vLLM."""


class TokenText(msgspec.Struct, frozen=True):
    r"""How one token is shown.

    Attributes:
        text: Its text; ``bytes:\xf0\x9f`` for a part of a character, as OpenAI writes it.
        raw: Its bytes: those of an answer's tokens make the answer.
    """

    text: str
    raw: bytes


class LoggedToken(msgspec.Struct, frozen=True):
    """One token of an answer and how likely it was.

    Attributes:
        token: The token.
        offset: Characters of the answer's text before it.
        logprob: Its log probability.
        top: The likeliest tokens in its place and theirs.
    """

    token: TokenText
    offset: int
    logprob: float
    top: tuple[tuple[TokenText, float], ...]


def token_texts(codec: TextCodec) -> Callable[[int], TokenText]:
    """The text of each token, remembered."""
    return lru_cache(2**15)(lambda token_id: _token_text(codec, token_id))


def _token_text(codec: TextCodec, token_id: int) -> TokenText:
    text, piece = codec.decode((token_id,), skip_special_tokens=False), codec.piece(token_id)
    if REPLACEMENT in text and REPLACEMENT not in piece:
        raw = _bytes_of(piece)
        return TokenText("bytes:" + "".join(f"\\x{byte:02x}" for byte in raw), raw)
    if piece.startswith("▁") and not text.startswith(" "):
        text = " " + text  # SentencePiece drops the space of what it takes for the beginning
    return TokenText(text, text.encode())


def _bytes_of(piece: str) -> bytes:
    """The bytes of a token that is no whole character: ``<0xF0>``, or spelled in GPT-2's alphabet."""
    if match := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece):
        return bytes.fromhex(match.group(1))
    alphabet = _byte_alphabet()
    if all(character in alphabet for character in piece):
        return bytes(alphabet[character] for character in piece)
    return piece.encode()


@lru_cache(1)
def _byte_alphabet() -> dict[str, int]:
    """GPT-2's letter for each byte: printable ones stand for themselves, the rest follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + index): byte for index, byte in enumerate(others)}


class TokenLog:
    """Keeps an answer's tokens back until the text that they are a part of is shown.

    Args:
        text_of: The text of a token.
        top: How many likeliest tokens to keep of each.
    """

    def __init__(self, text_of: Callable[[int], TokenText], top: int) -> None:
        self._text_of = text_of
        self._top = top
        self._held: deque[tuple[LoggedToken, int]] = deque()  # each with where its text ends
        self._undecided: list[LoggedToken] = []

    def add(self, token_id: int, logprob: TokenLogprob, *, start: int, end: int, undecided: bool) -> None:
        """A token came: the text before it has `start` characters, and `end` with it unless it is `undecided` yet."""
        top = tuple((self._text_of(each), _finite(value)) for each, value in logprob.top[: self._top])
        self._undecided.append(LoggedToken(self._text_of(token_id), start, _finite(logprob.logprob), top))
        if not undecided:
            self.decide(end)

    def decide(self, end: int) -> None:
        """What was undecided is text now, up to `end`."""
        self._held.extend((token, end) for token in self._undecided)
        self._undecided.clear()

    def shown(self, chars: int) -> list[LoggedToken]:
        """The tokens whose text is shown with the first `chars` characters, and were not told of before."""
        shown = []
        while self._held and self._held[0][1] <= chars:
            shown.append(self._held.popleft()[0])
        return shown

    def ended(self, cut_chars: int | None) -> list[LoggedToken]:
        """The last tokens of a text that is over; those from `cut_chars` on, if it was cut there, are no part of it."""
        tokens = [token for token, _ in self._held] + self._undecided
        self._held.clear()
        self._undecided.clear()
        return [token for token in tokens if cut_chars is None or token.offset < cut_chars]


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST_LOGPROB)


def completion_logprobs(tokens: Sequence[LoggedToken]) -> dict[str, Any]:
    """In the shape of ``/v1/completions``."""
    return {
        "text_offset": [each.offset for each in tokens],
        "token_logprobs": [each.logprob for each in tokens],
        "tokens": [each.token.text for each in tokens],
        "top_logprobs": [
            {each.token.text: each.logprob} | {token.text: logprob for token, logprob in each.top} for each in tokens
        ],
    }


def chat_logprobs(tokens: Sequence[LoggedToken]) -> dict[str, Any]:
    """In the shape of ``/v1/chat/completions``."""
    content = [
        _chat_token(each.token, each.logprob)
        | {"top_logprobs": [_chat_token(token, logprob) for token, logprob in each.top]}
        for each in tokens
    ]
    return {"content": content, "refusal": None}


def _chat_token(token: TokenText, logprob: float) -> dict[str, Any]:
    return {"token": token.text, "logprob": logprob, "bytes": list(token.raw)}
