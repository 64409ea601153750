"""Where a rate is going: what will come by the time at which a replica that is started now takes requests.

A rate is known as the sum of the last minute, looked at every few seconds. It grows where each of the last three
minutes had more of it than the one before, by more than a tenth: then the straight line through the three (their least
squares) goes on. Where it does not, what comes is what came. So noise of a few per cent, which goes up and down, is no
trend; and nothing is predicted to become less, for what is not needed any more is taken away late on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.capacity.autoscaling import Reading
from headrace.capacity.units import UNITS_PER_MINUTE
from headrace.resources.autoscaling import Metric

WORK_PERCENT = 90
"""Of what a replica carries, how much of it is to come. With the law's tenth of tolerance another one is started where
a pool would have more than 99 % of what it carries to do, and none for what is carried well."""

MINUTE_S = 60.0

AHEAD_S = 60.0
"""How far it looks: about what an engine takes to load. Where it takes longer, growth is met so much later."""

GROWS_BY = 1.1
"""By how much a minute must be above the one before. Twice that, noise of nine per cent either way never is."""

MOST_GROWTH = 2.0
"""A rate is never predicted to be more than so many times what it is."""

_NEAR_S = 7.5
"""How far from its minute's end a look may have been: they are five seconds apart."""

_KEPT_S = 2 * MINUTE_S + _NEAR_S


class Rate(msgspec.Struct, frozen=True):
    """What came within the minute before a time."""

    at: float
    per_minute: float


def work_reading(rates: Sequence[Rate], waiting: float, *, whole: bool = True) -> Reading:
    """The work that will come in a minute by the time a replica takes to start, and what stands in line, in percent.

    Args:
        rates: Model units of the last minutes.
        waiting: Model units in line: they are to be done within a minute.
        whole: Whether every gateway told.
    """
    return Reading(Metric.WORK, 100.0 * (ahead(rates) + waiting) / UNITS_PER_MINUTE, WORK_PERCENT, whole)


def with_rate(rates: Sequence[Rate], newest: Rate) -> tuple[Rate, ...]:
    """One look more, and those that count no more left out; after a clock that went back, it alone."""
    if rates and newest.at < rates[-1].at:
        return (newest,)
    return (*(one for one in rates if one.at >= newest.at - _KEPT_S), newest)


def ahead(rates: Sequence[Rate], ahead_s: float = AHEAD_S) -> float:
    """What a minute will have so long after the last look; 0 where none was.

    >>> ahead([Rate(0.0, 10.0), Rate(60.0, 20.0), Rate(120.0, 30.0)], ahead_s=30.0)
    40.0
    """
    if not rates:
        return 0.0
    now = rates[-1]
    middle, oldest = (_at(rates, now.at - minutes * MINUTE_S) for minutes in (1, 2))
    if middle is None or oldest is None:
        return now.per_minute
    if now.per_minute <= GROWS_BY * middle or middle <= GROWS_BY * oldest:
        return now.per_minute
    each_minute = (now.per_minute - oldest) / 2  # the slope of the least squares through three points evenly apart
    since = MINUTE_S / 2 + ahead_s  # the last minute's sum tells of its middle
    return min(now.per_minute + each_minute * since / MINUTE_S, MOST_GROWTH * now.per_minute)


def _at(rates: Sequence[Rate], at: float) -> float | None:
    """What was seen about then."""
    nearest = min(rates, key=lambda one: abs(one.at - at))
    return nearest.per_minute if abs(nearest.at - at) <= _NEAR_S else None
