"""Throughput that is sold: chunks of tokens a second, each a slice of what a replica carries within its latencies."""

from __future__ import annotations

import msgspec

from headrace.resources.errors import BadField
from headrace.resources.profiles import Cost

SLICES = 4
"""Of a replica, the smallest that is given away by itself."""

PROMPT_TOKENS, OUTPUT_TOKENS = 768, 256
"""Of the requests that a throughput is stated for. Databricks does not publish its own mix; three tokens read for one
written is near to the conversations of the Azure LLM inference trace of 2023 (1,155 and 211 on average; CC-BY-4.0)."""

_ROUND = 10


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica carries within its latencies.

    Attributes:
        cost: The replica's.
        concurrency: Sequences at a time with which the latencies are kept.
    """

    cost: Cost
    concurrency: int

    def tokens_per_s(self, prompt_tokens: int = PROMPT_TOKENS, output_tokens: int = OUTPUT_TOKENS) -> float:
        """Tokens of requests like these, read and written, that a full replica gets done."""
        return (prompt_tokens + output_tokens) / self.cost.work_s(prompt_tokens, output_tokens, self.concurrency)

    @property
    def chunk(self) -> int:
        """Tokens a second of the smallest slice; 0 where a replica carries none.

        Rounded down to tens, from ten on: slices never add up to more than the replica carries.
        """
        slice_tokens = int(self.tokens_per_s() / SLICES)
        return slice_tokens - slice_tokens % _ROUND if slice_tokens > _ROUND else slice_tokens

    def units(self, prompt_tokens: int, output_tokens: int) -> float:
        """Model units of one request: seconds of a full replica. A replica has 60 of them a minute."""
        return self.cost.work_s(prompt_tokens, output_tokens, self.concurrency)

    def replicas(self, tokens_per_s: int) -> int:
        """How many replicas carry so much, of a replica that carries at least a chunk.

        Raises:
            BadField: It is no whole number of chunks.
        """
        chunks, rest = divmod(tokens_per_s, self.chunk)
        if rest or chunks < 0:
            below, above = max(chunks, 0) * self.chunk, max(chunks + 1, 1) * self.chunk
            raise BadField(
                f"A throughput of {tokens_per_s:,} tokens a second is no whole number of chunks.",
                evidence=f"A chunk of this model is {self.chunk:,} tokens a second here.",
                fix=f"Ask for {below:,} or {above:,}.",
            )
        return -(-chunks // SLICES)
