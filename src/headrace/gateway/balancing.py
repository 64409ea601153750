"""Which of several replicas gets a request: one that need not compute its beginning again, or has the least to do."""

from __future__ import annotations

from collections.abc import Sequence

OVERLOAD = 1.25
"""A replica whose load is more than so many times the mean of the others is spared, whatever its cache holds."""


def best(loads: Sequence[float], saved: Sequence[int]) -> list[int]:
    """The places of those that are best, of equals all.

    Bounded load: a cache draws a request only where the load is at most `OVERLOAD` times the mean load of the others,
    plus what the cache saves. The last term is what makes it worth while on a quiet pool: a replica may be ahead of
    the others by the work that is spared there, and no more. Among those that may, the deepest cache wins, then the
    least load; where there is none, the least load.

    Args:
        loads: What each would have to do with the request, in tokens; not empty.
        saved: Tokens of the request that each has in its cache.
    """
    places: Sequence[int] = range(len(loads))
    if len(loads) > 1 and any(saved):
        total, others = sum(loads), len(loads) - 1
        near = [
            place
            for place, load in enumerate(loads)
            if saved[place] and load <= OVERLOAD * (total - load) / others + saved[place]
        ]
        deepest = max((saved[place] for place in near), default=0)
        places = [place for place in near if saved[place] == deepest] or places
    least = min(loads[place] for place in places)
    return [place for place in places if loads[place] == least]
