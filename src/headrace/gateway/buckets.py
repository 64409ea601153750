"""Times, counted in Prometheus's buckets.

A histogram of prometheus_client takes locks and walks its buckets at each observation, which is too dear for each piece
of each stream, and for several a request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

INTER_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10)
"""vLLM's for ``vllm:inter_token_latency_seconds``, and finer ones below."""

REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""For what happens once a request."""


class Buckets:
    """How many times were up to each bound.

    Args:
        bounds_s: Upper ones, rising, in seconds.

    Attributes:
        sum_s: Of all times.
    """

    __slots__ = ("_bounds_s", "_counts", "sum_s")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self.sum_s += seconds

    def add(self, other: Buckets) -> None:
        """Count all of another's, which has the same bounds."""
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self.sum_s += other.sum_s

    @property
    def mean_s(self) -> float:
        """Of all of them; there must be one."""
        return self.sum_s / sum(self._counts)

    def cumulated(self) -> list[tuple[str, float]]:
        """How many there are up to each bound, as Prometheus has it."""
        return list(zip([*map(str, map(float, self._bounds_s)), "+Inf"], accumulate(self._counts), strict=True))
