"""The law by which pools of replicas grow and shrink: pure, with the clock passed in.

As Kubernetes' horizontal autoscaler has it, each metric says how many replicas would bring it to its target, and the
largest number counts. What is needed now becomes what runs like this:

* Within the tolerance of what runs already nothing is needed: so a noisy metric at its target changes nothing.
* More run once more were needed for `Law.raise_after_s` without a break, so that one spike starts no engine; at most
  twice as many at a time, and not again before those had time to start.
* Fewer run once fewer were enough for all of the time asked for, by the most that was needed within it; at most half
  as many at a time. What a metric that is not known would say nobody knows: so it keeps what runs.

https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale describes the same parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from headrace.resources.autoscaling import Metric

_ROUNDING = 1e-9
"""What sums of floats may be off by: 3.0000000001 replicas are three."""


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """How fast it goes.

    Attributes:
        tolerance: By how much, as a share, a metric may be off its target.
        raise_after_s: How long more must have been needed.
        lower_after_s: How long fewer must have been enough.
        raise_every_s: The least time from one raise to the next.
        lower_every_s: The least time from any change to a lowering.
        gap_s: A longer time without a look is a break: what was needed meanwhile is not known.
    """

    tolerance: float = 0.1
    raise_after_s: float = 10.0
    lower_after_s: float = 300.0
    raise_every_s: float = 15.0
    lower_every_s: float = 30.0
    gap_s: float = 30.0

    def most_after(self, replicas: int) -> int:
        """What a raise may come to."""
        return replicas + max(2, replicas)

    def fewest_after(self, replicas: int) -> int:
        """What a lowering may come to."""
        return replicas - max(1, replicas // 2)


class Reading(msgspec.Struct, frozen=True):
    """What one metric is.

    Attributes:
        total: Of all replicas together; of those that are known.
        target: Of one replica.
        whole: Whether it is known of all.
    """

    metric: Metric
    total: float
    target: int
    whole: bool = True


class Standing(msgspec.Struct, frozen=True):
    """What was decided before: it outlives the process that did.

    Attributes:
        replicas: How many should run.
        raised_at: When that became more the last time; 0: never.
        lowered_at: When fewer.
    """

    replicas: int
    raised_at: float = 0.0
    lowered_at: float = 0.0


class Look(msgspec.Struct, frozen=True):
    """How many were needed at one time."""

    at: float
    needed: int


class History(msgspec.Struct, frozen=True):
    """What was needed lately, without a break since it began."""

    began_at: float = 0.0
    looks: tuple[Look, ...] = ()


class Decision(msgspec.Struct, frozen=True):
    """What comes of a look.

    Attributes:
        standing: What should run from now on.
        history: For the next look.
        needed: What is needed now, within the bounds.
        by: The metric that says so; None where none is known.
    """

    standing: Standing
    history: History
    needed: int
    by: Reading | None


def needed(reading: Reading, replicas: int, tolerance: float) -> int:
    """How many replicas would bring a metric to its target, where so many are meant to share it.

    >>> needed(Reading(Metric.REQUESTS, total=95.0, target=10), 4, 0.1)
    10
    >>> needed(Reading(Metric.REQUESTS, total=43.0, target=10), 4, 0.1)
    4
    """
    wanted = reading.total / reading.target
    if abs(wanted - replicas) <= tolerance * replicas + _ROUNDING:
        return replicas
    return math.ceil(wanted - _ROUNDING)


def decide(
    law: Law,
    standing: Standing,
    history: History,
    readings: Sequence[Reading],
    *,
    bounds: tuple[int, int],
    now: float,
) -> Decision:
    """How many replicas should run from now on.

    Args:
        law: How fast it goes.
        standing: What was decided before; what is out of the bounds comes into them at once.
        history: Of the last look.
        readings: Every metric that counts.
        bounds: The least and the most that may run.
        now: Seconds of any clock; one that goes back is a break.
    """
    least, most = bounds
    replicas = _within(bounds, standing.replicas)
    by = max(readings, key=lambda one: needed(one, replicas, law.tolerance), default=None)
    wanted = replicas if by is None else needed(by, replicas, law.tolerance)
    if not all(one.whole for one in readings):
        wanted = max(wanted, replicas)
    wanted = _within(bounds, wanted)
    history = _with(law, history, Look(now, wanted))
    raised_at, lowered_at = min(standing.raised_at, now), min(standing.lowered_at, now)
    up = min(look.needed for look in history.looks if look.at >= now - law.raise_after_s)
    down = max(look.needed for look in history.looks)
    raises = now - history.began_at >= law.raise_after_s and now - raised_at >= law.raise_every_s
    lowers = now - history.began_at >= law.lower_after_s and now - max(raised_at, lowered_at) >= law.lower_every_s
    if up > replicas and raises:
        replicas, raised_at = min(up, law.most_after(replicas), most), now
    elif down < replicas and lowers:
        replicas, lowered_at = max(down, law.fewest_after(replicas), least), now
    return Decision(Standing(replicas, raised_at, lowered_at), history, wanted, by)


def _within(bounds: tuple[int, int], replicas: int) -> int:
    return min(max(replicas, bounds[0]), bounds[1])


def _with(law: Law, history: History, look: Look) -> History:
    """With one look more, and without those that count no more."""
    last_at = history.looks[-1].at if history.looks else -math.inf
    if not 0.0 <= look.at - last_at <= law.gap_s:
        return History(look.at, (look,))
    oldest_at = look.at - max(law.lower_after_s, law.raise_after_s)
    return History(history.began_at, (*(one for one in history.looks if one.at >= oldest_at), look))
