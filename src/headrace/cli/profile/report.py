"""What was measured, what it was fitted to, and what that says of throughput."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.capacity.cost import GOAL, Fit
from headrace.capacity.units import UNITS_PER_MINUTE, chunk, tokens_per_s
from headrace.cli.output import Output, duration
from headrace.resources.profiles import Carried, Combination, Cost, Point

_DOUBT = (
    f"ATTENTION: the fit is more than {GOAL:.0%} off, so what is sold by it may not be kept. Measure again while\n"
    "nothing else runs on the machine, longer (`--seconds 10`), and with more lengths (`--prompts 32,128,384,768`);\n"
    "the newest profile counts. One that is worse than before: `headrace profiles delete ID`."
)

_COLUMNS = ("READ", "WRITTEN", "AT A TIME", "A REQUEST TAKES", "FITTED", "FIRST TOKEN P95", "BETWEEN P95")


def show(
    output: Output,
    points: Sequence[Point],
    fitted: Fit,
    carried: Carried,
    *,
    kept: dict[str, Any] | None = None,
    left_out: Sequence[Combination] = (),
) -> None:
    """For a person, or as one JSON document.

    Args:
        output: Where to.
        points: What was measured.
        fitted: What it was fitted to.
        carried: What that says.
        kept: The profile as the server stored it; None: it did not.
        left_out: What was too slow to be a point.
    """
    document: dict[str, Any] = {"fit": fitted, "points": points, "concurrency": carried.concurrency}
    document |= {"tokens_per_s": tokens_per_s(carried), "chunk": chunk(carried), "profile": kept}
    document["left_out"] = [
        dict(zip(("concurrency", "prompt_tokens", "output_tokens"), one, strict=True)) for one in left_out
    ]
    output.document(msgspec.to_builtins(document))
    output.line()
    output.table(_COLUMNS, [_row(point, fitted.cost) for point in points], empty="")
    output.line()
    if left_out:
        output.line(f"{len(left_out)} were too slow to be whole in time, and are left out.")
    for sentence in (_costs(fitted.cost), _error(fitted), *_carries(carried)):
        output.line(sentence)
    if kept is not None:
        output.line(f"Kept as profile {kept['id']}, for {kept['runtime']} on {kept['hardware']}.")
    if fitted.mean_error > GOAL:
        output.line()
        output.line(_DOUBT)


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
    return f"The {fitted.held_out} measurements that this was not fitted to are {far}."


def _carries(carried: Carried) -> list[str]:
    if not carried.concurrency:
        return ["Not even one request at a time keeps the latencies asked for: --first-token, --inter-token."]
    speed = f"{tokens_per_s(carried):,.0f} tokens/s, three read for one written"
    return [
        f"{carried.concurrency} at a time keep the latencies.",
        f"A full replica has {UNITS_PER_MINUTE} model units a minute, each a second of its time:",
        f"{speed}; a chunk, a fourth of it, is {chunk(carried):,} tokens/s.",
    ]
