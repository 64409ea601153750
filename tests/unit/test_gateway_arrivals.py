"""What the gateway tells of how many requests come."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway_serving import BASE, CHAT, deployed, gateway_before
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.arrivals import Arrivals
from standin import StandIn


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(0, 20)), max_size=60))
def test_a_minute_is_counted_to_within_two_questions(steps: list[tuple[float, int]]) -> None:
    """Asked at least every five seconds, it tells no less than what came in the last 60 s, and no more than in 66."""
    arrivals, now, came = Arrivals(), 100.0, []
    arrivals.per_minute(now)
    for pause_s, count in steps:
        now += pause_s
        arrivals.count += count
        came.append((now, count))
        told = arrivals.per_minute(now)
        within = [sum(count for at, count in came if at > now - seconds) for seconds in (60.0, 66.0)]
        assert within[0] * 60 / 66 - 1 <= told <= within[1]


def test_what_was_not_asked_about_for_long_is_a_mean() -> None:
    """Six hundred within ten minutes are sixty in one."""
    arrivals = Arrivals()
    arrivals.per_minute(0.0)
    arrivals.count = 600
    assert arrivals.per_minute(600.0) == 60


def test_control_hears_how_many_requests_came(tmp_path: Path) -> None:
    """Those that a model answers, each once; not those that only count tokens, nor any for others."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            assert (await served.admin_get("/status")).json()["per_minute"] == {}
            for _ in range(3):
                assert (await served.client.post(f"{BASE}/chat/completions", json=CHAT)).status_code == 200
            await served.client.post("/tokenize", json={"model": "my-model", "prompt": "x"})
            assert (await served.admin_get("/status")).json()["per_minute"] == {"dep-d1": 3}

    asyncio.run(main())
