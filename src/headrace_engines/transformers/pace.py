"""How much of the waiting prompts one pass reads, learned from how long passes take."""

from __future__ import annotations

import statistics
from collections import deque

PIECE_TOKENS = 512
"""Tokens of one pass while nobody waits for a next token, and the most of any; more are hardly computed faster."""

COMPANY_TOKENS, COMPANY_TOKENS_PER_ROW = 16, 3
"""Tokens of one pass while others wait for their next token: at least so many, and so many for each of the others.

What a pass of so many takes is learned, but on the slowest machine that was looked at (two cores without matrix
instructions) so many take about as long as the others' own pass.
"""

SHARE = 1.5
"""How long a pass over prompts may take, in terms of the pass that gives the others their next token.

These then see two and a half times the quiet time between two tokens where the goal is three.
"""

MOST_PATIENCE = 4.0
"""So many times `SHARE` at most, where more sequences wait for their first token than for a next one.

Everyone's wait counts alike: of 32 requests that come together the first would otherwise hold up the 31 others.
"""

_LEARNED = 0.25
"""The weight of the newest measurement: one that other work disturbed does not decide the next piece alone."""

_DECODED, _REMEMBERED = 5, 64
"""Steps whose median is the time that the others wait for a token, and passes whose fastest is what any pass costs."""

_LEAST_SHARE_OF_TOKENS = 0.1
"""Of a pass' time, what its tokens took at least: where all passes took equally long, more are tried by and by."""


class Pace:
    """Keeps the times of passes, and says from them how many tokens of prompts the next one may read.

    A pass takes as long as any pass does, for every weight is read once, and then so long for each token. On a GPU,
    where a pass over a part of a prompt is not waited for, it seems to take no time, and `PIECE_TOKENS` is the bound.
    """

    def __init__(self) -> None:
        self._token_s: float | None = None
        self._decode_s: deque[float] = deque(maxlen=_DECODED)
        self._pass_s: deque[float] = deque(maxlen=_REMEMBERED)

    def decoded(self, seconds: float) -> None:
        """A step gave everyone past the prompt a token, in so long."""
        self._decode_s.append(seconds)
        self._pass_s.append(seconds)

    def read(self, tokens: int, seconds: float) -> None:
        """A pass read so many tokens of prompts, padding included, in so long."""
        self._pass_s.append(seconds)
        measured_s = max(seconds - min(self._pass_s), _LEAST_SHARE_OF_TOKENS * seconds) / tokens
        known_s = self._token_s
        self._token_s = measured_s if known_s is None else known_s + _LEARNED * (measured_s - known_s)

    def piece_tokens(self, prompts: int, decoding: int) -> int:
        """Tokens of prompts that the next pass may read.

        Args:
            prompts: Sequences that wait for their first token.
            decoding: Others that wait for their next one meanwhile.
        """
        if not decoding:
            return PIECE_TOKENS
        least = min(PIECE_TOKENS, max(COMPANY_TOKENS, COMPANY_TOKENS_PER_ROW * decoding))
        if not self._token_s or not self._decode_s:
            return least
        patience = min(MOST_PATIENCE, max(1.0, prompts / decoding))
        left_s = SHARE * patience * statistics.median(self._decode_s) - min(self._pass_s)
        return int(min(PIECE_TOKENS, max(least, left_s / self._token_s)))
