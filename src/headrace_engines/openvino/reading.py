"""How much of the waiting prompts a step reads, and of whose: the oldest's first.

A step that reads prompts gives everybody else a token later. Where few are written to, somebody looks at each of them:
a step may then read what makes it `serving.pace.SHARE` times longer, or `LEAST_TOKENS`. With more of them, or with more
prompts than there are answers, small pieces would move the wait and not shorten it: sequences would stand in line for
their first token instead of having theirs late, and each piece costs a whole step. There a step reads `MANY_TOKENS`.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace_engines.serving.pace import PIECE_TOKENS, Pace

FEW = 4
"""Sequences that are written to, up to which a prompt is read so that they hardly notice."""

LEAST_TOKENS = 64
"""Tokens of prompts in a step, at least: below, the step's own cost is most of it."""

MANY_TOKENS = 192
"""Tokens of prompts in a step while others are written to, at most; larger pieces save 7 % of the work."""


def room(pace: Pace, waiting: int, decoding: int) -> int:
    """Tokens of prompts that the next step may read.

    Args:
        pace: What was learned of the steps so far.
        waiting: Sequences that wait for their first token.
        decoding: Others that wait for their next one meanwhile.
    """
    if not decoding:
        return PIECE_TOKENS
    if decoding > FEW or waiting > decoding:
        return MANY_TOKENS
    return min(MANY_TOKENS, max(LEAST_TOKENS, pace.piece_tokens(1, decoding)))


def shares(unread: Sequence[int], room: int, block_tokens: int) -> list[int]:
    """How many tokens of each prompt a step reads.

    One prompt after the other, since prompts that are read in turns all end late. Only one that fits whole into half
    of what is left passes the first that does not fit, which therefore gets the other half at least in every step.

    Args:
        unread: Tokens left of each prompt, the oldest first; at least one of each.
        room: Tokens in all.
        block_tokens: A prompt is cut at multiples of so many only.
    """
    given = [0] * len(unread)
    for place, tokens in enumerate(unread):
        if tokens <= room:
            given[place] = tokens
            room -= tokens
            continue
        passing = room // 2
        for later in range(place + 1, len(unread)):
            if unread[later] <= passing:
                given[later] = unread[later]
                passing -= unread[later]
                room -= unread[later]
        given[place] = room // block_tokens * block_tokens
        break
    return given
