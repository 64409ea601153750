"""What a replica is predicted to carry: never more on a slower machine, and never beyond its latencies."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_models import V2

from headrace.capacity import PLANNED_SEQUENCES, Load, Place, unwritten
from headrace.capacity.carried import latencies, predicted
from headrace.capacity.cost import measured
from headrace.capacity.units import FIRST_S, GAP_S, OUTPUT_TOKENS, PROMPT_TOKENS, tokens_per_s
from headrace.resources.profiles import Carried, Cost, Point
from headrace.weights.config import parse_config
from headrace.weights.folder import ModelFolder

GB = 10**9
MODELS = {name: unwritten(parse_config(V2[name].config)) for name in ("Llama-3.1-8B", "Qwen2.5-7B")}
PLACES = st.builds(
    Place,
    name=st.just("machine"),
    devices=st.just(1),
    device_bytes=st.just(80 * GB),
    bandwidth_bytes_per_s=st.floats(1e9, 1e13),
    flops_per_s=st.floats(1e10, 1e16),
    measured=st.booleans(),
)
LOAD = Load(4096, PLANNED_SEQUENCES, "bfloat16", "vllm")


def carried(folder: ModelFolder, place: Place, **limits: float) -> Carried:
    """As it is predicted of a place whose rates are known."""
    found = predicted(folder, LOAD, place, **limits)
    assert found is not None
    return found


@given(st.sampled_from(sorted(MODELS)), PLACES, st.floats(1.0, 100.0), st.floats(1.0, 100.0))
def test_a_faster_machine_never_carries_less(name: str, place: Place, memory: float, arithmetic: float) -> None:
    """Whatever is faster about it, its memory or its arithmetic: as many at a time at least, and as many tokens."""
    faster = msgspec.structs.replace(
        place,
        bandwidth_bytes_per_s=place.bandwidth_bytes_per_s * memory,
        flops_per_s=place.flops_per_s * arithmetic,
    )
    slow, fast = carried(MODELS[name], place), carried(MODELS[name], faster)
    assert fast.concurrency >= slow.concurrency
    assert tokens_per_s(fast) >= tokens_per_s(slow) * (1 - 1e-9)


@given(st.sampled_from(sorted(MODELS)), PLACES, st.floats(1.0, 50.0), st.floats(1.0, 50.0))
def test_laxer_latencies_never_let_fewer_in(name: str, place: Place, first: float, gap: float) -> None:
    """And what is let in keeps them, one more would not, unless the planned cache is full."""
    usual = carried(MODELS[name], place)
    lax = carried(MODELS[name], place, first_s=first * FIRST_S, gap_s=gap * GAP_S)
    assert lax.concurrency >= usual.concurrency
    at_most = PLANNED_SEQUENCES * 4096 // (PROMPT_TOKENS + OUTPUT_TOKENS)
    assert usual.concurrency <= at_most
    if usual.concurrency:
        kept = latencies(usual.cost, usual.concurrency)
        assert kept[0] <= FIRST_S
        assert kept[1] <= GAP_S
    if usual.concurrency < at_most:
        beyond = latencies(usual.cost, usual.concurrency + 1)
        assert beyond[0] > FIRST_S or beyond[1] > GAP_S


@pytest.mark.parametrize("rates", [{"bandwidth_bytes_per_s": 0.0}, {"flops_per_s": 0.0}], ids=str)
def test_of_a_machine_that_is_not_known_nothing_is_predicted(rates: dict[str, Any]) -> None:
    """Neither of one that cannot compute in the model's number format."""
    known = Place("machine", 1, 80 * GB, 0.9, 300e9, 121e12)
    assert predicted(MODELS["Qwen2.5-7B"], LOAD, msgspec.structs.replace(known, **rates)) is None


def test_many_at_a_time_is_told_by_requests_of_the_stated_mix() -> None:
    """A prompt that is longer than its, and an answer so short that every gap holds a prompt, tell only costs."""
    cost = Cost(prompt=1e-3, prompt_squared=0.0, step=0.02, sequence=1e-3, context=0.0)

    def point(prompt: int, output: int, at: int, first_s: float, gap_s: float) -> Point:
        work_s = cost.work_s(prompt, output, at)
        return Point(
            prompt_tokens=prompt,
            output_tokens=output,
            concurrency=at,
            requests=10,
            wall_s=10 * work_s,
            first_s=first_s,
            gap_s=gap_s,
        )

    fast, slow = (0.5, 0.05), (9.0, 0.9)
    points = [
        point(prompt, output, at, *(fast if at == 1 or (prompt, output) == (256, 64) else slow))
        for prompt in (256, 2048)
        for output in (16, 64)
        for at in (1, 4)
    ]
    fitted, found = measured(points)
    assert (found.concurrency, found.measured, found.cost) == (4, True, fitted.cost)
    assert measured(points, first_s=0.1)[1].concurrency == 0
    only_long = [one for one in points if one.prompt_tokens > PROMPT_TOKENS] + [point(1024, 16, 1, *fast)]
    assert measured(only_long)[1].concurrency == 1
