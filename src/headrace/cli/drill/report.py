"""What a drill found: requests counted by what became of them, and their waits against those without a fault."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from headrace.cli.drill.outcomes import Outcome, Sample
from headrace.cli.output import duration

REASONS_SHOWN = 5
"""Of a fault, the losses whose reasons are told."""


class Usual(msgspec.Struct, frozen=True, kw_only=True):
    """How long clients wait while nothing happens, in seconds: of answers in one piece and of streams."""

    answers: tuple[float, ...] = ()
    streams: tuple[float, ...] = ()

    def of(self, *, stream: bool) -> tuple[float, ...]:
        """The waits of the one kind, or of the other."""
        return self.streams if stream else self.answers


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Some requests, counted.

    Attributes:
        requests: All of them.
        streams: Those among them that were streams.
        refused: Told that the queue is full.
        broken: Streams that ended with an error event where that may be: the engine that made them was killed.
        lost: Those whose client could not know, or should not have had to; also streams that ended with an error event
            where nothing should have ended them.
        added_p50_s: By how much the median wait was longer than without a fault, the larger of both kinds' figures; so
            also the next. An answer's wait is the time until it is there, a stream's the longest silence of it.
        added_p99_s: The same of the 99th percentile.
        worst_added_s: The longest wait of all, over the median without a fault.
        reasons: Why requests were lost, the first few; and how often.
    """

    requests: int = 0
    streams: int = 0
    refused: int = 0
    broken: int = 0
    lost: int = 0
    added_p50_s: float = 0.0
    added_p99_s: float = 0.0
    worst_added_s: float = 0.0
    reasons: tuple[tuple[str, int], ...] = ()

    def sentence(self) -> str:
        """For a person."""
        counted = f"{self.requests} requests, {self.streams} streams, {self.lost} lost"
        worst = f"worst added latency {duration(self.worst_added_s)}"
        more = [f"{self.refused} refused (429)"] if self.refused else []
        more += [f"{self.broken} broken off with an error"] if self.broken else []
        return ", ".join([counted, worst, *more])


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One fault.

    Attributes:
        done: What was done, in a sentence; empty where it was not.
        not_run: Why it was not run; empty where it was.
        failed: What did not come to its end, though it was begun; empty where all did.
    """

    fault: str
    done: str = ""
    not_run: str = ""
    failed: str = ""
    tally: Tally = Tally()


def usual(samples: Iterable[Sample]) -> Usual:
    """What whole answers took while nothing happened."""
    whole = [one for one in samples if one.outcome is Outcome.WHOLE]
    return Usual(
        answers=tuple(one.waited_s for one in whole if not one.stream),
        streams=tuple(one.waited_s for one in whole if one.stream),
    )


def tally(samples: Sequence[Sample], before: Usual, *, may_break: bool = False) -> Tally:
    """Count requests.

    Args:
        samples: What became of each.
        before: The waits without a fault.
        may_break: Whether a stream may end with an error event: the engine that made it was killed.
    """
    outcomes = Counter(one.outcome for one in samples)
    broken = outcomes[Outcome.BROKEN]
    lost = [one for one in samples if one.outcome is Outcome.LOST or (one.outcome is Outcome.BROKEN and not may_break)]
    both = [_added(samples, before, stream=stream) for stream in (False, True)]
    p50, p99, worst = (max(figures) for figures in zip(*both, strict=True))
    return Tally(
        requests=len(samples),
        streams=sum(one.stream for one in samples),
        refused=outcomes[Outcome.REFUSED],
        broken=broken if may_break else 0,
        lost=len(lost),
        added_p50_s=p50,
        added_p99_s=p99,
        worst_added_s=worst,
        reasons=tuple(Counter(one.reason for one in lost).most_common(REASONS_SHOWN)),
    )


def total(tallies: Sequence[Tally]) -> Tally:
    """All of them together; of the waits the worst. Reasons stay with their faults."""
    return Tally(
        requests=sum(one.requests for one in tallies),
        streams=sum(one.streams for one in tallies),
        refused=sum(one.refused for one in tallies),
        broken=sum(one.broken for one in tallies),
        lost=sum(one.lost for one in tallies),
        added_p50_s=max((one.added_p50_s for one in tallies), default=0.0),
        added_p99_s=max((one.added_p99_s for one in tallies), default=0.0),
        worst_added_s=max((one.worst_added_s for one in tallies), default=0.0),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that so many percent of them do not exceed (nearest rank); 0 of none.

    >>> percentile([3.0, 1.0, 2.0], 50), percentile([3.0, 1.0, 2.0], 99), percentile([], 50)
    (2.0, 3.0, 0.0)
    """
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)] if ranked else 0.0


def _added(samples: Sequence[Sample], before: Usual, *, stream: bool) -> tuple[float, float, float]:
    """By how much the waits of one kind are longer: at the median, at the 99th percentile, at worst; never below 0."""
    known = before.of(stream=stream)
    waits = [one.waited_s for one in samples if one.stream is stream and one.outcome is Outcome.WHOLE]
    if not waits or not known:
        return 0.0, 0.0, 0.0
    p50, p99 = (max(0.0, percentile(waits, at) - percentile(known, at)) for at in (50, 99))
    return p50, p99, max(0.0, max(waits) - percentile(known, 50))
