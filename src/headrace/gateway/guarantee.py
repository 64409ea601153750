"""What of a tenant's work is within its guarantee: a bucket that holds five minutes' work and is filled at its rate.

It decides a request's class and never whether it is refused, so it may hold much. Arrivals at random at 95 % of the
rate are above it half of the time if one looks at some seconds; how far, grows with how few they are. Of a tenant with
nine requests a minute, by simulation, a bucket of one minute finds a twentieth of the work above its guarantee, and one
of five minutes nothing that would matter. Whoever asks no more than the rate in any 300 s never finds it empty. What
it costs is others' time, and not that of others with a guarantee: theirs goes before whatever is above a tenant's own,
and `KeptPlaces` bounds how much of a tenant's runs at a time.
"""

from __future__ import annotations

DEPTH_S = 300.0


class Guarantee:
    """Work in millionths of a model unit.

    Args:
        per_s: The guaranteed rate.
        now: Seconds that never go back.

    Attributes:
        per_s: The same.
        taken: What was taken and has not come back yet.
    """

    __slots__ = ("_at", "per_s", "taken")

    def __init__(self, per_s: float, now: float) -> None:
        self.per_s = per_s
        self.taken = 0.0
        self._at = now

    def take(self, work: int, now: float, *, share: float = 1.0) -> bool:
        """Take so much, if it is there; of a full bucket also more than it holds.

        Args:
            work: Of one request.
            now: By the clock.
            share: Of the rate that is to be had here, where several gateways share it.
        """
        per_s = self.per_s * share
        self.taken = max(self.taken - per_s * (now - self._at), 0.0)
        self._at = now
        if per_s <= 0.0 or (self.taken and self.taken + work > per_s * DEPTH_S):
            return False
        self.taken += work
        return True

    def correct(self, more: int) -> None:
        """What was taken turned out to be more, or less."""
        self.taken = max(self.taken + more, 0.0)
