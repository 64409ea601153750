"""What a node tells of what its replicas have to do, with real processes."""

from __future__ import annotations

import asyncio

import pytest
from node_standins import ControlStandIn, listening
from test_node_agent import agent, layout, model, replica, working

from headrace.hardware import duty_percent
from headrace.node.load import KV_CACHE, metric
from headrace.resources.assignments import NodeReport, ReplicaLoad, StageOrder
from headrace.resources.layout import Layout

__all__ = ["layout", "model"]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent measures ten times a second."""
    monkeypatch.setattr("headrace.node.agent._WEIGH_S", 0.1)


def _load(report: NodeReport) -> ReplicaLoad | None:
    return next((one.load for one in report.replicas if one.load is not None), None)


@pytest.mark.usefixtures("often")
def test_a_replica_whose_number_goes_by_it_is_measured(layout: Layout, model: StageOrder) -> None:
    """Its processor time, of the cores that it has; what its engine says of line and cache; only from READY on, and
    only where that was ordered."""

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout), working(agent(layout)):
            await control.order(replicas=(replica(model, "busy"),))
            await control.replica("7", "READY")
            await control.order(replicas=(replica(model, "busy", measured=True),))
            load = _load(await control.until(lambda report: _load(report) is not None))
            assert load is not None
            assert (load.waiting, load.kv_cache_percent) == (3.0, 25.0)
            assert load.cpu_percent is not None
            assert 0.0 <= load.cpu_percent <= 100.0
            assert load.over_s > 0.0
            busy = await control.until(lambda report: ((_load(report) or load).cpu_percent or 0.0) > 5.0)
            assert busy.replicas[0].state == "READY"

    asyncio.run(live())


@pytest.mark.usefixtures("often")
def test_an_engine_that_tells_no_metrics_has_none(layout: Layout, model: StageOrder) -> None:
    """And is measured all the same by what the kernel knows."""

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout), working(agent(layout)):
            await control.order(replicas=(replica(model, measured=True),))
            load = _load(await control.until(lambda report: _load(report) is not None))
            assert load is not None
            assert (load.waiting, load.kv_cache_percent) == (None, None)
            assert load.cpu_percent is not None

    asyncio.run(live())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", None),
        (b"# TYPE vllm:num_requests_waiting gauge\n", None),
        (b"vllm:num_requests_waiting 2\n", 2.0),
        (b'vllm:num_requests_waiting{a="1"} 2.0\nvllm:num_requests_waiting{a="2"} 1e1\n', 12.0),
        (b'vllm:num_requests_waiting_by_reason{a="1"} 2.0\n', None),
        (b"vllm:num_requests_waiting NaN\n", None),
        (b"\xff\xfe", None),
    ],
)
def test_a_gauge_is_read_or_is_not_known(text: bytes, told: float | None) -> None:
    """Summed over its series, which are an engine's processes; what is no number is none."""
    assert metric(text, "num_requests_waiting") == told


def test_where_there_is_no_gpu_its_use_is_not_known() -> None:
    """Not zero: that would take replicas away."""
    assert duty_percent({1}) is None


@pytest.mark.parametrize("name", [b"kv", b"gpu"])
def test_the_cache_has_two_names(name: bytes) -> None:
    """vLLM's older one and its newer one."""
    assert metric(b"vllm:" + name + b"_cache_usage_perc 0.5\n", KV_CACHE) == 0.5
