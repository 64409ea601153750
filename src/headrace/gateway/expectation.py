"""How much work a request will be, in tokens: from its size, and from what earlier ones came to.

Only for the choice of a replica. What is charged or limited is counted exactly, elsewhere.
"""

from __future__ import annotations

import math

from headrace.contracts.openai.demand import Demand

START_TOKENS_PER_BYTE = 0.25
START_OUTPUT_TOKENS = 128
"""Before anything is known of a deployment: English text in JSON, and a short answer."""

_MEMORY = 32
"""Answers that the means reach back, about: each new one counts a thirty-second."""


class Expectation:
    """Means of one deployment, which newer answers move more than older ones (exponentially weighted).

    A prompt token counts as much as an output token. Engines prefill a few times as many tokens a second as they
    decode when they are full, but each also holds its place in the KV cache until the end; nothing here needs it
    finer, since errors even out over the requests of a replica.

    Attributes:
        tokens_per_byte: Of a request's body.
        output_tokens: Of an answer.
    """

    __slots__ = ("_seen", "output_tokens", "tokens_per_byte")

    def __init__(self) -> None:
        self.tokens_per_byte = START_TOKENS_PER_BYTE
        self.output_tokens = float(START_OUTPUT_TOKENS)
        self._seen = 1

    def prompt(self, size_bytes: int, at_most: int) -> int:
        """Tokens in so many bytes, at most so many: what the model takes."""
        return min(math.ceil(size_bytes * self.tokens_per_byte), at_most)

    def output(self, demand: Demand) -> int:
        """Tokens that will be made, at most what was asked for."""
        expected = int(self.output_tokens)
        return expected if demand.max_tokens is None else min(expected, demand.max_tokens)

    def learn(self, *, size_bytes: int, prompt_tokens: int, output_tokens: int, answers: int = 1) -> None:
        """Take account of answers that are over, by what their engine counted.

        Args:
            size_bytes: Of all their requests' bodies.
            prompt_tokens: Of all of them.
            output_tokens: Of all of them.
            answers: How many.
        """
        self._seen = min(self._seen + 1, _MEMORY)
        density = min(prompt_tokens / max(size_bytes, 1), 1.0)
        self.tokens_per_byte += (density - self.tokens_per_byte) / self._seen
        self.output_tokens += (output_tokens / answers - self.output_tokens) / self._seen
