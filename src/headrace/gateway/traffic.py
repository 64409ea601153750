"""Which deployed model of an endpoint gets the next request."""

from __future__ import annotations

from collections.abc import Mapping


class TrafficSplit:
    """Smooth weighted round robin, as nginx has it: exact over each full round, and spread evenly within it.

    Each pick raises every candidate's credit by its weight, takes the highest credit, and lowers that one's by the sum
    of the weights. Credits add up to zero, and while the candidates stay the same they are all zero again after as many
    picks as the weights' sum.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self.weights = dict(weights)
        self._weighted = frozenset(key for key, weight in self.weights.items() if weight > 0)
        self._credit = dict.fromkeys(self.weights, 0)
        self._candidates: frozenset[str] = frozenset()

    def pick(self, ready: frozenset[str]) -> str | None:
        """The next one among those that are ready and have a weight; if none is ready, among all that have a weight.

        Returns:
            None when nothing has a weight.
        """
        candidates = (self._weighted & ready) or self._weighted
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
