"""Which deployed model of an endpoint gets the next request."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

from headrace.gateway.request_head import RequestHead

SESSION_HEADER = b"x-session-id"
"""Whatever a caller sends here names its session: one deployed model answers all of it, as long as the split stays."""

_HASHES = 2**64


class TrafficSplit:
    """Smooth weighted round robin, as nginx has it: exact over each full round, and spread evenly within it.

    Each pick raises every candidate's credit by its weight, takes the highest credit, and lowers that one's by the sum
    of the weights. Credits add up to zero, and while the candidates stay the same they are all zero again after as many
    picks as the weights' sum. Sessions are picked apart from that, and leave the credits alone.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self.weights = dict(weights)
        self._weighted = frozenset(key for key, weight in self.weights.items() if weight > 0)
        self._credit = dict.fromkeys(self.weights, 0)
        self._candidates: frozenset[str] = frozenset()

    def pick(self, ready: frozenset[str], session: bytes = b"") -> str | None:
        """The next one among those that are ready and have a weight; if none is ready, among all that have a weight.

        Args:
            ready: Those that answer.
            session: What the request belongs to; empty where it does not say.

        Returns:
            None when nothing has a weight.
        """
        candidates = (self._weighted & ready) or self._weighted
        if session and len(candidates) > 1:
            return max(sorted(candidates), key=lambda key: _claim(session, key, self.weights[key]))
        if len(candidates) <= 1:
            self._candidates = candidates
            return next(iter(candidates), None)
        if candidates != self._candidates:  # credit earned among others means nothing among these
            self._candidates = candidates
            self._credit = dict.fromkeys(self.weights, 0)
        for key in candidates:
            self._credit[key] += self.weights[key]
        chosen = max(sorted(candidates), key=self._credit.__getitem__)
        self._credit[chosen] -= sum(self.weights[key] for key in candidates)
        return chosen


def session_of(head: RequestHead) -> bytes:
    """The session that a request says it belongs to; empty where it does not say."""
    return (head.header(SESSION_HEADER) or b"").strip()


def _claim(session: bytes, key: str, weight: int) -> float:
    """How strongly a candidate claims a session: weighted rendezvous hashing.

    A hash makes a number u between 0 and 1 of the session and the candidate; with -weight / ln(u) for the claim, the
    candidate's chance of the highest one is its share of the weights (as of the shortest of several exponential times).
    Every gateway comes to the same, and where one candidate goes, only its own sessions move.
    https://www.snia.org/sites/default/files/SDC15_presentations/dist_sys/Jason_Resch_New_Consistent_Hashings_Rev.pdf
    """
    digest = hashlib.blake2b(b"%b\0%b" % (key.encode(), session), digest_size=8).digest()
    share = (int.from_bytes(digest, "big") + 0.5) / _HASHES
    return -weight / math.log(share) if share < 1.0 else math.inf  # the largest hashes round to 1
