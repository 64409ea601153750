"""Whether a replica is to be trusted with requests, learnt from how those that it got went (passive health).

    trusted ──FAILURES in a row──▶ ejected ──its time is over──▶ one request at a time tries it
       ▲                              ▲                                  │           │
       │                              └──────────── it fails: longer ────┘           │
       └─────────────── an answer begins: its share grows over SLOW_START_S ─────────┘

Nothing here asks an engine by itself: nodes do (`headrace.node.probe`), and control takes what does not answer them out
of the snapshot. This is for what they cannot see, and for the seconds before they do. A replica that owes nothing but
unary answers fails none of them for minutes: that it stands still is seen by what it makes (`standstill`).
"""

from __future__ import annotations

import math

FAILURES = 3
"""In a row, no answer begun between them, after which a replica is ejected."""

FIRST_EJECTION_S, LONGEST_EJECTION_S = 2.0, 60.0
"""How long an ejection lasts: twice as long each time, up to the longest. A connection that is refused costs a trial
milliseconds, so it is looked for soon; one that is swallowed costs somebody seconds, so not often."""

SLOW_START_S, FIRST_SHARE = 15.0, 0.1
"""How long the share of a replica that came back grows, and what it is of a full one's at first."""


class Health:
    """What is known of one replica. Times are seconds of any clock that never goes back.

    Attributes:
        failures: In a row.
        heard_at: When it was last known to work, for whomever: an answer of it began, or its engine had made tokens.
        on_trial: Whether a request is under way that is to show whether it is back.
        stands_still: Whether it owes answers and makes nothing: it is not tried while that is so.
    """

    __slots__ = ("_ejected_until", "_ejections", "_returned_at", "failures", "heard_at", "on_trial", "stands_still")

    def __init__(self) -> None:
        self.failures = 0
        self.heard_at = -math.inf
        self.on_trial = self.stands_still = False
        self._ejected_until: float | None = None
        self._ejections = 0
        self._returned_at = -math.inf

    @property
    def trusted(self) -> bool:
        """Whether it takes its share of the requests."""
        return self._ejected_until is None

    def due(self, now: float) -> bool:
        """Whether its ejection is over and the next request should try it."""
        over = self._ejected_until is not None and now >= self._ejected_until
        return over and not (self.on_trial or self.stands_still)

    def badness(self) -> tuple[int, float]:
        """Sorts replicas of which none is trusted: the one that failed least comes first, then the one due first."""
        return self.failures, self._ejected_until or 0.0

    def share(self, now: float) -> float:
        """What part of a full share it should get: 1 but for the time after its return."""
        grown = (now - self._returned_at) / SLOW_START_S
        return 1.0 if grown >= 1.0 else FIRST_SHARE + (1.0 - FIRST_SHARE) * max(grown, 0.0)

    def answered(self, now: float) -> None:
        """An answer of it began."""
        self.failures = 0
        self.stands_still = False
        self.heard_at = now
        if self._ejected_until is not None:
            self._ejected_until = None
            self._returned_at = now

    def made_tokens(self, now: float) -> None:
        """Its engine has made some until now, or since it was looked at last, be it for another gateway."""
        self.heard_at = now

    def failed(self, now: float, *, at_once: bool = False) -> None:
        """A request got no answer from it, or half of one.

        Args:
            now: The time.
            at_once: Whether this one failure is enough.
        """
        self.failures += 1
        if self._ejected_until is None:
            if at_once or self.failures >= FAILURES:
                if now - self._returned_at > SLOW_START_S:  # else it is the same trouble as the last time
                    self._ejections = 0
                self._eject(now)
        elif now >= self._ejected_until:  # before that it is one of those sent before the ejection
            self._eject(now)

    def stood_still(self, now: float) -> None:
        """It has made nothing for too long of what it was asked."""
        self.stands_still = True
        if self.trusted:
            self.failed(now, at_once=True)

    def _eject(self, now: float) -> None:
        lasts_s = FIRST_EJECTION_S * 2.0 ** min(self._ejections, 16)
        self._ejections += 1
        self._ejected_until = now + min(lasts_s, LONGEST_EJECTION_S)
