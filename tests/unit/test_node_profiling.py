"""A replica that its node measures before anybody else is let in: real processes; engine and control are stand-ins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from node_standins import ControlStandIn, listening
from test_node_agent import agent, end_of, layout, model, replica, working

from headrace.resources.assignments import NodeReport, ProfileOrder, ReplicaReport, StageOrder
from headrace.resources.layout import Layout
from headrace.resources.profiles import Grid

__all__ = ["layout", "model"]  # fixtures

GRID = Grid(prompts=(4, 40), outputs=(2,), concurrency=(1, 12))
SLOW_DEATH = Grid(prompts=(4,), outputs=(3,), concurrency=(1,))
"""What the stand-in refuses, or dies of."""


async def measured(layout: Layout, model: StageOrder, name: str, order: ProfileOrder) -> list[ReplicaReport]:
    """All reports of a replica until it was READY."""
    control = ControlStandIn()
    async with listening(control, layout), working(agent(layout)):
        await control.order(replicas=(replica(model, name, profile=order),))
        await control.replica("7", "READY", "FAILED")
        return [one for report in control.reports for one in report.replicas]


def test_points_come_with_ready(layout: Layout, model: StageOrder) -> None:
    """Of each combination, more at a time than a client's usual connections; while that lasts the report says so."""
    reports = asyncio.run(measured(layout, model, "chat", ProfileOrder(grid=GRID, budget_s=20.0)))
    ready = reports[-1]
    assert (ready.state, ready.detail) == ("READY", "")
    assert ready.warmup is not None
    assert ready.profile is not None
    assert ready.profile.failure is None
    seen = {(one.prompt_tokens, one.output_tokens, one.concurrency) for one in ready.profile.points}
    assert seen == {(prompt, 2, at) for prompt in GRID.prompts for at in GRID.concurrency}
    assert all(one.requests > 0 and one.first_s > 0 for one in ready.profile.points)
    assert any(one.state == "WARMING" and one.detail.startswith("Measuring") for one in reports)


@pytest.mark.parametrize(
    ("name", "order", "code"),
    [
        ("refuses-measured", ProfileOrder(grid=SLOW_DEATH, budget_s=20.0), "ENGINE_BROKE_OFF"),
        ("chat", ProfileOrder(grid=GRID, budget_s=20.0, before_at=1.0), "ENGINE_TIMEOUT"),
        ("embeds", ProfileOrder(grid=GRID, budget_s=20.0), "ENGINE_TIMEOUT"),
    ],
    ids=["refused", "no time", "no tokens"],
)
def test_a_measurement_that_fails_leaves_a_ready_replica(
    layout: Layout, model: StageOrder, name: str, order: ProfileOrder, code: str
) -> None:
    """With the reason, and without points."""
    ready = asyncio.run(measured(layout, model, name, order))[-1]
    assert ready.state == "READY"
    assert ready.profile is not None
    assert ready.profile.failure is not None
    assert (ready.profile.failure.code, ready.profile.points) == (code, ())


def test_an_engine_that_dies_of_it_is_dead(layout: Layout, model: StageOrder) -> None:
    """It is never READY: no request is sent to where nobody is."""
    order = replica(model, "dies-measured", profile=ProfileOrder(grid=SLOW_DEATH, budget_s=20.0))
    failed = asyncio.run(end_of(layout, model, order))
    assert failed.failure is not None
    assert (failed.failure.code, failed.exit_status, failed.profile) == ("ENGINE_DIED", 4, None)


def test_it_may_be_ordered_while_the_engine_starts_and_a_stop_ends_it(layout: Layout, model: StageOrder) -> None:
    """Another deployed model of the deployment was sold a throughput; and an undeploy need not wait for the end."""

    def shows(detail: str) -> Callable[[NodeReport], bool]:
        return lambda report: any(one.detail.startswith(detail) for one in report.replicas)

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout), working(agent(layout)):
            wanted = ProfileOrder(grid=Grid(prompts=(4,), outputs=(2,), concurrency=(1,)), budget_s=600.0)
            await control.order(replicas=(replica(model, "chat"),))
            await control.order(replicas=(replica(model, "chat", profile=wanted),))
            await control.until(shows("Measuring"))
            await control.order(replicas=(replica(model, "chat", wanted="stop"),))
            gone = await control.replica("7", "GONE")
            assert gone.failure is None
            assert not [one for report in control.reports for one in report.replicas if one.state == "READY"]

    asyncio.run(live())
