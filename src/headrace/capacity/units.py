"""Throughput that is sold: chunks of tokens a second, each a slice of what a replica carries within its latencies.

All of it is of `headrace.resources.profiles.Carried`, measured or predicted; nothing is carried where its concurrency
is 0.
"""

from __future__ import annotations

from headrace.resources.errors import BadField
from headrace.resources.profiles import Carried

UNITS_PER_MINUTE = 60
"""Model units of a full replica: one is a second of its time."""

SLICES = 4
"""Of a replica, the smallest that is given away by itself."""

PROMPT_TOKENS, OUTPUT_TOKENS = 768, 256
"""Of the requests that a throughput is stated for. Databricks does not publish its own mix; three tokens read for one
written is near to the conversations of the Azure LLM inference trace of 2023 (1,155 and 211 on average; CC-BY-4.0)."""

FIRST_S, GAP_S = 2.0, 0.2
"""Time to first token and inter-token latency that 99 of 100 requests keep, where nobody says others: about what a
person takes for an answer at once, and for one that comes as fast as it is read."""

_ROUND = 10


def tokens_per_s(carried: Carried, prompt_tokens: int = PROMPT_TOKENS, output_tokens: int = OUTPUT_TOKENS) -> float:
    """Tokens of requests like these, read and written, that a full replica gets done in a second."""
    if not carried.concurrency:
        return 0.0
    return (prompt_tokens + output_tokens) / carried.units(prompt_tokens, output_tokens)


def chunk(carried: Carried) -> int:
    """Tokens a second of the smallest slice; 0 where a replica carries none.

    Rounded down to tens, from ten on: slices never add up to more than the replica carries.
    """
    slice_tokens = int(tokens_per_s(carried) / SLICES)
    return slice_tokens - slice_tokens % _ROUND if slice_tokens > _ROUND else slice_tokens


def share(carried: Carried, asked_tokens_per_s: float) -> float:
    """Full replicas that a throughput is, as a fraction: model units a second."""
    return asked_tokens_per_s / tokens_per_s(carried)


def require_chunks(asked_tokens_per_s: int, of_chunk: int) -> None:
    """Hold that a throughput is a whole number of chunks.

    Raises:
        BadField: It is none; the nearest ones are named.
    """
    chunks, rest = divmod(asked_tokens_per_s, of_chunk)
    if rest or chunks < 0:
        below, above = max(chunks, 0) * of_chunk, max(chunks + 1, 1) * of_chunk
        raise BadField(
            f"A throughput of {asked_tokens_per_s:,} tokens a second is no whole number of chunks.",
            evidence=f"A chunk of this model is {of_chunk:,} tokens a second here.",
            fix=f"Ask for {below:,} or {above:,}.",
        )


def replicas(carried: Carried, asked_tokens_per_s: int) -> int:
    """How many replicas carry so much, of a replica that carries at least a chunk.

    Raises:
        BadField: It is no whole number of chunks.
    """
    of_chunk = chunk(carried)
    require_chunks(asked_tokens_per_s, of_chunk)
    return -(-(asked_tokens_per_s // of_chunk) // SLICES)
