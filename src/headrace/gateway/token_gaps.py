"""Inter-token latency: how long the pieces of streams took to follow each other, in Prometheus's buckets.

A histogram of prometheus_client takes a lock and walks its buckets at each observation, which is too dear for each
piece of each stream. So every request counts its own gaps, and they are added up when it is over.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10)
"""vLLM's for ``vllm:inter_token_latency_seconds``, and finer ones below."""


class TokenGaps:
    """Gaps, counted.

    Attributes:
        sum_s: Of all of them.
    """

    __slots__ = ("_counts", "sum_s")

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def observe(self, gap_s: float) -> None:
        """Count one."""
        self._counts[bisect_left(BUCKETS_S, gap_s)] += 1
        self.sum_s += gap_s

    def add(self, other: TokenGaps) -> None:
        """Count all of another request's."""
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self.sum_s += other.sum_s

    @property
    def mean_s(self) -> float:
        """Of all of them; there must be one."""
        return self.sum_s / sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        """How many there are up to each bound, as Prometheus has it."""
        return list(zip([*map(str, map(float, BUCKETS_S)), "+Inf"], accumulate(self._counts), strict=True))
