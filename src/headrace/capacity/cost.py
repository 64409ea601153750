"""What a request costs a replica, fitted to what a replica was seen to do.

A replica that is busy with ``n`` sequences at a time spends on a request of ``p`` tokens of prompt and ``o`` of output

    prompt·p + prompt_squared·p² + (step/n + sequence)·o + context·o·(p + o/2)

seconds: reading the prompt, its attention; the output's steps, whose fixed part (the weights' way from memory) the
``n`` sequences share; and reading the KV cache in each of them, which holds half of the output on average. The same
terms stand in `headrace.capacity.roofline`, there from a machine's rates, here from measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.capacity.units import FIRST_S, GAP_S, PROMPT_TOKENS
from headrace.resources.errors import ProfileTooSmall
from headrace.resources.profiles import Carried, Cost, Point, terms

GOAL = 0.1
"""How far off a fit may be, on average, from what it was not fitted to: beyond that, what is sold by it is doubtful."""

_ABOUT = 1.1
"""A prompt has so many times as many tokens as were asked for, or fewer."""

HELD_OUT_EVERY = 3
"""Every third point is not fitted to, and tells how far off the fit is."""


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """Coefficients and how well they tell what they were not fitted to.

    Attributes:
        mean_error: Of the points held out, how far off they are on average, as a share of what was measured.
        worst_error: The farthest.
        points: Fitted to.
        held_out: Looked at afterwards.
    """

    cost: Cost
    mean_error: float
    worst_error: float
    points: int
    held_out: int


def fit(points: Sequence[Point]) -> Fit:
    """Fit the coefficients to points of at least two lengths of prompt, of output, and numbers at a time.

    Least squares of relative errors (else long requests would decide alone) under coefficients that are not negative:
    of all the ways to leave terms out, the best one that has no negative coefficient.

    Raises:
        ProfileTooSmall: The points do not tell the terms apart.
    """
    ordered = sorted(points, key=lambda point: (point.concurrency, point.prompt_tokens, point.output_tokens))
    held = ordered[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    seen = [point for place, point in enumerate(ordered) if (place + 1) % HELD_OUT_EVERY]
    _tell_apart(seen, held)
    rows = np.array([_row(point) for point in seen])
    cost = Cost(**dict(zip(Cost.__struct_fields__, map(float, _least_squares(rows)), strict=True)))
    errors = [abs(_predicted(cost, point) / point.request_s - 1.0) for point in held]
    return Fit(
        cost=cost,
        mean_error=float(np.mean(errors)),
        worst_error=max(errors),
        points=len(seen),
        held_out=len(held),
    )


def measured(points: Sequence[Point], *, first_s: float = FIRST_S, gap_s: float = GAP_S) -> tuple[Fit, Carried]:
    """What a replica carries by what was measured of it; its concurrency is 0 where nothing kept the latencies.

    How many sequences at a time do is told by requests that are like those that throughputs are stated for
    (`headrace.capacity.units`): of prompts no longer than theirs the longest, because shorter ones are read sooner; and
    the longest answers that were measured, because in a short answer every gap between two tokens holds somebody else's
    prompt. A number at a time for which there was no time is not taken for one that keeps them.

    Raises:
        ProfileTooSmall: As `fit`.
    """
    fitted = fit(points)
    usual = [point for point in points if point.prompt_tokens <= PROMPT_TOKENS * _ABOUT] or list(points)
    usual = _longest(usual, lambda point: point.output_tokens)
    most = most_at_once(_longest(usual, lambda point: point.prompt_tokens), first_s=first_s, gap_s=gap_s)
    return fitted, Carried(cost=fitted.cost, concurrency=most, first_s=first_s, gap_s=gap_s, measured=True)


def _longest(points: Sequence[Point], length: Callable[[Point], int]) -> list[Point]:
    """Those of about the greatest length: words make no exact number of tokens."""
    most = max(map(length, points))
    return [point for point in points if length(point) * _ABOUT >= most]


def most_at_once(points: Sequence[Point], *, first_s: float, gap_s: float) -> int:
    """The greatest number at a time with which both latencies were kept; 0 if none did.

    Args:
        points: Measured.
        first_s: The longest time to first token, at the 99th percentile.
        gap_s: The longest time between two tokens, on average over a request, likewise.
    """
    kept: dict[int, bool] = {}
    for point in points:
        good = point.first_s <= first_s and point.gap_s <= gap_s
        kept[point.concurrency] = kept.get(point.concurrency, True) and good
    most = 0
    for concurrency in sorted(kept):
        if not kept[concurrency]:
            break
        most = concurrency
    return most


def _row(point: Point) -> list[float]:
    """The terms as shares of what was measured: all rows should add up to one."""
    of_point = terms(point.prompt_tokens, point.output_tokens, point.concurrency)
    return [term / point.request_s for term in of_point]


def _predicted(cost: Cost, point: Point) -> float:
    return cost.work_s(point.prompt_tokens, point.output_tokens, point.concurrency)


def _least_squares(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    columns, ones = rows.shape[1], np.ones(len(rows))
    scale = np.linalg.norm(rows, axis=0)  # terms differ by six orders of magnitude
    best, least = np.zeros(columns), np.inf
    for many in range(1, columns + 1):
        for chosen in map(list, combinations(range(columns), many)):
            found, *_ = np.linalg.lstsq(rows[:, chosen] / scale[chosen], ones, rcond=None)
            off = float(np.sum((rows[:, chosen] / scale[chosen] @ found - ones) ** 2))
            if off < least and (found >= 0.0).all():
                least, best = off, np.zeros(columns)
                best[chosen] = found / scale[chosen]
    return best


def _tell_apart(points: Sequence[Point], held: Sequence[Point]) -> None:
    if not held:
        raise ProfileTooSmall(
            "A replica's cost cannot be told from so few measurements.",
            evidence=f"{len(points)} of them, so that none is left to test the fit.",
            fix="Measure at least two lengths of prompt, two of output, and two numbers at a time.",
        )
    for what in ("prompt_tokens", "output_tokens", "concurrency"):
        if len({getattr(point, what) for point in points}) < 2:
            raise ProfileTooSmall(
                "A replica's cost cannot be told from so few measurements.",
                evidence=f"{len(points)} of them to fit to, with fewer than two values of {what}.",
                fix="Measure at least two lengths of prompt, two of output, and two numbers at a time.",
            )
