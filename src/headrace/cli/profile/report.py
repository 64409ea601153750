"""What was measured, what it was fitted to, and what that says of throughput."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.capacity.cost import Fit
from headrace.capacity.units import chunk, tokens_per_s
from headrace.cli.output import Output, duration
from headrace.resources.profiles import Carried, Cost, Point

GOAL = 0.1
"""How far off a fit may be, on average, from what it was not fitted to."""

_COLUMNS = ("READ", "WRITTEN", "AT A TIME", "A REQUEST TAKES", "FITTED", "FIRST TOKEN P95", "BETWEEN P95")


def show(output: Output, points: Sequence[Point], fitted: Fit, carried: Carried) -> None:
    """For a person, or as one JSON document."""
    document: dict[str, Any] = {"fit": fitted, "points": points, "concurrency": carried.concurrency}
    document |= {"tokens_per_s": tokens_per_s(carried), "chunk": chunk(carried)}
    output.document(msgspec.to_builtins(document))
    output.line()
    output.table(_COLUMNS, [_row(point, fitted.cost) for point in points], empty="")
    output.line()
    for sentence in (_costs(fitted.cost), _error(fitted), *_carries(carried)):
        output.line(sentence)


def _row(point: Point, cost: Cost) -> tuple[object, ...]:
    off = cost.work_s(point.prompt_tokens, point.output_tokens, point.concurrency) / point.request_s - 1.0
    latencies = duration(point.first_s), duration(point.gap_s)
    request = f"{point.request_s * 1e3:,.1f} ms"
    return point.prompt_tokens, point.output_tokens, point.concurrency, request, f"{off:+.0%}", *latencies


def _costs(cost: Cost) -> str:
    read = f"A token read costs {cost.prompt * 1e3:.3f} ms of the replica and {cost.prompt_squared * 1e9:.2f} ns times"
    written = f"one written {cost.step * 1e3:.2f} ms shared by all at a time, {cost.sequence * 1e3:.3f} ms of its own"
    return f"{read} the prompt's length; {written}, and {cost.context * 1e9:.1f} ns for each token before it."


def _error(fitted: Fit) -> str:
    far = f"{fitted.mean_error:.0%} off on average, {fitted.worst_error:.0%} at worst"
    much = f": more than {GOAL:.0%}, so measure again on an idle machine" if fitted.mean_error > GOAL else ""
    return f"The {fitted.held_out} measurements that this was not fitted to are {far}{much}."


def _carries(carried: Carried) -> list[str]:
    if not carried.concurrency:
        return ["Not even one request at a time keeps the latencies asked for: --first-token, --inter-token."]
    speed = f"{tokens_per_s(carried):,.0f} tokens/s, three read for one written"
    return [
        f"{carried.concurrency} at a time keep the latencies.",
        "A full replica has 60 model units a minute, each a second of its time:",
        f"{speed}; a chunk, a fourth of it, is {chunk(carried):,} tokens/s.",
    ]
