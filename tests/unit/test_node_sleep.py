"""An engine that is put to sleep and woken by its node: real processes; only the engine and control are stand-ins."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from node_standins import ControlStandIn, ScriptedRuntime, listening
from test_node_agent import agent, killed_agent, layout, model, nothing_runs, replica, wait_for_end, working

from headrace.compute.shim import record
from headrace.node.probe import Patience
from headrace.resources.assignments import ReplicaOrder, ReplicaReport, StageOrder
from headrace.resources.layout import Layout

__all__ = ["layout", "model"]  # fixtures


def sleeper(model: StageOrder, name: str = "sleeper", **changes: object) -> ReplicaOrder:
    """The order to run, or to do something else with, a replica that may sleep."""
    return replica(model, name, **({"may_sleep": True} | changes))


@contextlib.asynccontextmanager
async def asleep(
    layout: Layout, model: StageOrder, name: str = "sleeper", patience: Patience | None = None
) -> AsyncIterator[tuple[ControlStandIn, ReplicaReport]]:
    """A replica that sleeps, and what was said of it when it was READY."""
    control = ControlStandIn()
    at_work = working(agent(layout, patience or Patience(every_s=0.05), ScriptedRuntime(sleeps=True)))
    async with listening(control, layout), at_work:
        await control.order(replicas=(sleeper(model, name),))
        ready = await control.replica("7", "READY")
        await control.order(replicas=(sleeper(model, name, wanted="sleep"),))
        await control.replica("7", "ASLEEP")
        yield control, ready


async def until_waiting(layout: Layout, replica_id: str = "7", *, times: int = 1) -> None:
    """The engine waits before what it was told to do, for the so manieth time."""
    log = layout.replica_dir(replica_id) / record.ENGINE_LOG
    async with asyncio.timeout(20):
        while log.read_text(encoding="utf-8").count("waiting before") < times:  # noqa: ASYNC110 - another process's file
            await asyncio.sleep(0.01)


def let_go(gate: Path) -> None:
    """What waits at this FIFO goes on."""
    gate.write_text("", encoding="utf-8")


def test_an_engine_sleeps_and_wakes_with_its_process(layout: Layout, model: StageOrder) -> None:
    """Told to, it says how long it took; told to run, it is READY again where it was, and its health was looked at."""

    async def live() -> None:
        async with asleep(layout, model) as (control, ready):
            slept = await control.replica("7", "ASLEEP")
            assert slept.detail.startswith("Sleeping, memory released in 0.")
            await control.order(replicas=(sleeper(model),))
            woken = await control.replica("7", "READY")
            assert woken.detail.startswith("Awake after 0.")
            assert (woken.pid, woken.address, woken.warmup) == (ready.pid, ready.address, ready.warmup)
        assert nothing_runs(layout)

    asyncio.run(live())


@pytest.mark.parametrize(("sleeps", "may_sleep"), [(False, True), (True, False)])
def test_one_that_cannot_sleep_ends_instead(layout: Layout, model: StageOrder, sleeps: bool, may_sleep: bool) -> None:
    """Where the runtime does not offer it, and where the engine was not started for it."""

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout), working(agent(layout, runtime=ScriptedRuntime(sleeps=sleeps))):
            await control.order(replicas=(sleeper(model, may_sleep=may_sleep),))
            await control.replica("7", "READY")
            await control.order(replicas=(sleeper(model, may_sleep=may_sleep, wanted="sleep"),))
            gone = await control.replica("7", "GONE")
            assert (gone.failure, gone.exit_status) == (None, -signal.SIGTERM)
            assert nothing_runs(layout)

    asyncio.run(live())


def test_one_that_is_to_sleep_and_is_not_there_is_gone(layout: Layout, model: StageOrder) -> None:
    """After the machine was switched off and on nothing is started only to sleep."""

    async def live() -> None:
        control, runtime = ControlStandIn(), ScriptedRuntime(sleeps=True)
        async with listening(control, layout), working(agent(layout, runtime=runtime)):
            await control.order(replicas=(sleeper(model, wanted="sleep"),))
            assert (await control.replica("7", "GONE")).failure is None
            assert runtime.launches == []

    asyncio.run(live())


@pytest.mark.parametrize(
    ("name", "code", "exit_status"),
    [("sleeper-refuses", "ENGINE_SLEEP_FAILED", -signal.SIGTERM), ("sleeper-dies", "ENGINE_DIED", 4)],
)
def test_one_that_does_not_wake_fails_and_nothing_is_left(
    layout: Layout, model: StageOrder, name: str, code: str, exit_status: int
) -> None:
    """Whether it refuses or dies; what it was is told."""

    async def live() -> None:
        async with asleep(layout, model, name) as (control, _):
            await control.order(replicas=(sleeper(model, name),))
            failed = await control.replica("7", "FAILED")
            assert failed.failure is not None
            assert (failed.failure.code, failed.exit_status) == (code, exit_status)
            assert nothing_runs(layout)

    asyncio.run(live())


def test_one_that_only_says_that_it_slept_fails(layout: Layout, model: StageOrder) -> None:
    """It is asked afterwards."""

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout), working(agent(layout, runtime=ScriptedRuntime(sleeps=True))):
            await control.order(replicas=(sleeper(model, "sleeper-lies"),))
            await control.replica("7", "READY")
            await control.order(replicas=(sleeper(model, "sleeper-lies", wanted="sleep"),))
            failed = await control.replica("7", "FAILED")
            assert failed.failure is not None
            assert (failed.failure.code, failed.failure.message) == (
                "ENGINE_SLEEP_FAILED",
                "The engine did not fall asleep.",
            )
            assert nothing_runs(layout)

    asyncio.run(live())


def test_one_that_does_not_wake_in_time_is_killed(layout: Layout, model: StageOrder) -> None:
    """Nobody waits for it to end by itself."""

    async def live() -> None:
        async with asleep(layout, model, patience=Patience(turn_s=0.3)) as (control, _):
            os.mkfifo(f"{layout.engine_socket('7')}.gate")
            await control.order(replicas=(sleeper(model),))
            failed = await control.replica("7", "FAILED")
            assert failed.failure is not None
            assert failed.failure.message == "The engine did not wake within 0.3 s."
            assert failed.exit_status == -signal.SIGKILL
            assert nothing_runs(layout)

    asyncio.run(live())


def test_one_that_dies_asleep_is_told_at_once(layout: Layout, model: StageOrder) -> None:
    """Its process is looked after as if it were awake."""

    async def live() -> None:
        async with asleep(layout, model) as (control, ready):
            os.kill(ready.pid, signal.SIGKILL)
            assert (await control.replica("7", "FAILED")).exit_status == -signal.SIGKILL

    asyncio.run(live())


def test_one_that_is_wanted_while_it_falls_asleep_sleeps_first_and_wakes(layout: Layout, model: StageOrder) -> None:
    """What is begun is ended: it is DOZING until it sleeps, and not READY before it woke."""

    async def live() -> None:
        control = ControlStandIn()
        gate = Path(f"{layout.engine_socket('7')}.gate")
        async with listening(control, layout), working(agent(layout, runtime=ScriptedRuntime(sleeps=True))):
            await control.order(replicas=(sleeper(model),))
            await control.replica("7", "READY")
            os.mkfifo(gate)
            await control.order(replicas=(sleeper(model, wanted="sleep"),))
            await until_waiting(layout)
            await control.order(replicas=(sleeper(model),))
            await control.until(lambda report: report.orders_generation == 3)
            assert (await control.replica("7", "DOZING")).state == "DOZING"
            let_go(gate)
            await until_waiting(layout, times=2)
            await control.replica("7", "WAKING")
            let_go(gate)
            await control.replica("7", "READY")
            told = [str(one.state) for report in control.reports for one in report.replicas]
            assert list(dict.fromkeys(told[told.index("DOZING") :]))[-2:] == ["WAKING", "READY"]
            assert "READY" not in told[told.index("DOZING") : told.index("WAKING")]

    asyncio.run(live())


@pytest.mark.parametrize("wanted", ["sleep", "stop"])
def test_the_next_agent_leaves_it_asleep_or_ends_it(layout: Layout, model: StageOrder, wanted: str) -> None:
    """An agent that ends hands a sleeping engine on; the next one has it as it was, and it wakes, or goes."""

    async def live() -> None:
        control, first = ControlStandIn(), agent(layout, runtime=ScriptedRuntime(sleeps=True))
        async with listening(control, layout):
            running = asyncio.create_task(first.run())
            await control.order(replicas=(sleeper(model),))
            pid = (await control.replica("7", "READY")).pid
            await control.order(replicas=(sleeper(model, wanted="sleep"),))
            await control.replica("7", "ASLEEP")
            await first.stop(keep_replicas=True)
            await running
            control.reports.clear()
            async with working(agent(layout, runtime=ScriptedRuntime(sleeps=True))):
                await control.order(replicas=(sleeper(model, wanted=wanted),))
                if wanted == "sleep":
                    await control.until(lambda report: report.orders_generation == 3)
                    assert {one.state for report in control.reports for one in report.replicas} == {"ASLEEP"}
                    await control.order(replicas=(sleeper(model),))
                    assert (await control.replica("7", "READY")).pid == pid
                else:
                    await control.replica("7", "GONE")
            wait_for_end(pid)
            assert nothing_runs(layout)

    asyncio.run(live())


@contextlib.asynccontextmanager
async def killed(
    layout: Layout, model: StageOrder, *, unclaimed_timeout_s: float = 600.0
) -> AsyncIterator[tuple[ControlStandIn, subprocess.Popen[bytes], ReplicaReport]]:
    """A replica that sleeps under an agent that can be killed, and was not yet."""
    control = ControlStandIn()
    async with listening(control, layout):
        node = killed_agent(layout, sleeps=True, unclaimed_timeout_s=unclaimed_timeout_s)
        try:
            await control.order(replicas=(sleeper(model),))
            ready = await control.replica("7", "READY")
            await control.order(replicas=(sleeper(model, wanted="sleep"),))
            await control.replica("7", "ASLEEP")
            yield control, node, ready
        finally:
            node.kill()
            await asyncio.to_thread(node.wait)


async def kill(node: subprocess.Popen[bytes], control: ControlStandIn) -> None:
    """No agent runs, and nothing of what it said is left to be taken for the next one's."""
    node.kill()
    await asyncio.to_thread(node.wait)
    control.reports.clear()


@pytest.mark.parametrize("with_shim", [False, True], ids=["node", "node and shim"])
def test_one_whose_node_is_killed_sleeps_on_and_wakes(layout: Layout, model: StageOrder, with_shim: bool) -> None:
    """The next agent's first report has it ASLEEP, before any order; it wakes as the process it was, none is started,
    and nothing is left of it afterwards."""

    async def live() -> None:
        async with killed(layout, model) as (control, node, ready):
            shim = (record.read_json(str(layout.replica_dir("7") / record.STATE)) or {})["shim_pid"]
            await kill(node, control)
            if with_shim:
                os.kill(shim, signal.SIGKILL)
                await asyncio.to_thread(wait_for_end, shim)
            runtime = ScriptedRuntime(sleeps=True)
            async with working(agent(layout, runtime=runtime)):
                slept = await control.replica("7", "ASLEEP")
                first = control.reports[0]
                assert (first.orders_generation, [one.state for one in first.replicas]) == (0, ["ASLEEP"])
                assert slept.pid == ready.pid
                await control.order(replicas=(sleeper(model),))
                woken = await control.replica("7", "READY")
                assert (woken.pid, woken.address, woken.warmup) == (ready.pid, ready.address, ready.warmup)
                assert runtime.launches == []
            assert nothing_runs(layout)

    asyncio.run(live())


@pytest.mark.parametrize(("wanted", "state"), [("sleep", "ASLEEP"), ("run", "READY")])
def test_what_a_killed_node_began_is_ended_by_the_next(
    layout: Layout, model: StageOrder, wanted: str, state: str
) -> None:
    """Killed while the engine falls asleep, or while it wakes: the next agent brings it to where it is wanted, asleep
    or awake, and it can still be turned the other way."""

    async def live() -> None:
        async with killed(layout, model) as (control, node, ready):
            if wanted == "sleep":
                await control.order(replicas=(sleeper(model),))
                await control.replica("7", "READY")
            gate = Path(f"{layout.engine_socket('7')}.gate")
            os.mkfifo(gate)
            await control.order(replicas=(sleeper(model, wanted=wanted),))
            await until_waiting(layout)
            await kill(node, control)
            released = os.open(gate, os.O_RDWR)
            os.unlink(gate)
            os.close(released)
            async with working(agent(layout, runtime=ScriptedRuntime(sleeps=True))):
                assert (await control.replica("7", state)).pid == ready.pid
                other, other_state = ("run", "READY") if wanted == "sleep" else ("sleep", "ASLEEP")
                await control.order(replicas=(sleeper(model, wanted=other),))
                assert (await control.replica("7", other_state)).pid == ready.pid
            assert nothing_runs(layout)

    asyncio.run(live())


def test_one_that_sleeps_and_that_no_node_claims_is_ended(layout: Layout, model: StageOrder) -> None:
    """An engine is no orphan for being asleep: its shim ends it, and the next agent tells why it is gone."""

    async def live() -> None:
        async with killed(layout, model, unclaimed_timeout_s=5.0) as (control, node, ready):
            await kill(node, control)
            await asyncio.to_thread(wait_for_end, ready.pid)
            assert nothing_runs(layout)
            async with working(agent(layout, runtime=ScriptedRuntime(sleeps=True))):
                failed = await control.replica("7", "FAILED")
                assert failed.failure is not None
                assert failed.failure.message == "The engine ended because no node claimed it."

    asyncio.run(live())
