"""The promises of the agent of one machine, kept with real processes; only engine and control are stand-ins."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from node_standins import TOKEN, ControlStandIn, NothingToInstall, ScriptedRuntime, listening

from headrace.compute.shim import record
from headrace.compute.shim.kin import Kin
from headrace.node import Agent
from headrace.node.chat_template import hidden_in
from headrace.node.probe import Patience
from headrace.resources.assignments import ReplicaOrder, ReplicaReport, StageOrder
from headrace.resources.layout import Layout
from headrace.storage import ModelCache, fingerprint, open_artifacts


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """A data directory; whatever the test left running in it is ended."""
    layout = Layout(tmp_path / "data")
    yield layout
    for spec in (layout.data_dir / "replicas").glob(f"*/{record.SPEC}"):
        state = record.read_json(str(spec.parent / record.STATE)) or {}
        if state and record.start_ticks(state["shim_pid"]) == state["shim_start"]:
            os.kill(state["shim_pid"], signal.SIGKILL)
        Kin(0, str(spec.parent)).end(engine_lives=False)


@pytest.fixture
def model(tmp_path: Path) -> StageOrder:
    """The order to bring a small folder here."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "scripted"}')
    uri = f"file://{folder}"
    return StageOrder(artifact_uri=uri, fingerprint=fingerprint(open_artifacts(uri)), runtime="scripted")


def replica(model: StageOrder, served_name: str = "chat", **changes: object) -> ReplicaOrder:
    """The order to run a replica of it."""
    fields = {
        "id": "7",
        "deployment_id": "d",
        "epoch": 2,
        "nonce": "secret",
        "wanted": "run",
        "artifact_uri": model.artifact_uri,
        "fingerprint": model.fingerprint,
        "runtime": model.runtime,
        "served_name": served_name,
        "max_model_len": 2048,
    }
    return ReplicaOrder(**(fields | changes))  # type: ignore[arg-type]


def agent(
    layout: Layout,
    patience: Patience = Patience(),  # noqa: B008 - it never changes
    runtime: ScriptedRuntime | None = None,
    model_cache_bytes: int | None = None,
    unclaimed_timeout_s: float = 600.0,
) -> Agent:
    """An agent that can run scripted engines."""
    return Agent(
        layout,
        f"unix:{layout.control_socket}",
        TOKEN,
        runtimes={"scripted": runtime or ScriptedRuntime()},
        installer=NothingToInstall(),
        model_cache_bytes=model_cache_bytes,
        unclaimed_timeout_s=unclaimed_timeout_s,
        patience=patience,
    )


@contextlib.asynccontextmanager
async def working(one: Agent) -> AsyncIterator[Agent]:
    """An agent at work; stopped with all its replicas at the end."""
    running = asyncio.create_task(one.run())
    try:
        yield one
        await one.stop()
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def nothing_runs(layout: Layout) -> bool:
    """Whether no process of any replica is left, shims included."""
    for spec in (layout.data_dir / "replicas").glob(f"*/{record.SPEC}"):
        state = record.read_json(str(spec.parent / record.STATE)) or {}
        if state:
            wait_for_end(state["shim_pid"])
        if Kin(0, str(spec.parent)).look(engine_lives=False) - children_of_this_test():
            return False
    return True


def children_of_this_test() -> set[int]:
    """`Kin` takes children of whoever asks for orphans of the engine; here they are not."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(pid) for path in children for pid in path.read_text().split()}


def wait_for_end(pid: int) -> None:
    """Block until a process that is no child of ours has ended."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        assert select.select([descriptor], [], [], 60)[0], f"process {pid} goes on"
        os.close(descriptor)


async def end_of(layout: Layout, model: StageOrder, order: ReplicaOrder) -> ReplicaReport:
    """Run one replica until it failed."""
    control = ControlStandIn()
    async with listening(control, layout), working(agent(layout)):
        await control.order(replicas=(order,))
        return await control.replica(order.id, "FAILED")


def test_an_order_becomes_a_ready_replica_and_a_stop_leaves_nothing(layout: Layout, model: StageOrder) -> None:
    """Staged, started, warmed and measured, READY at its address; then drained and gone, with nothing left running."""

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout), working(agent(layout)):
            await control.order(stages=(model,))
            staged = (
                await control.until(lambda report: bool(report.stages) and report.stages[0].phase == "done")
            ).stages[0]
            assert (staged.fingerprint, staged.failure) == (model.fingerprint, None)
            await control.order(replicas=(replica(model),), stages=())
            ready = await control.replica("7", "READY")
            assert ready.address == f"unix:{layout.engine_socket('7')}"
            assert ready.warmup is not None
            assert ready.warmup.output_tokens == 16
            assert ready.warmup.tokens_per_s > 0
            assert record.start_ticks(ready.pid)
            await control.order(replicas=(replica(model, wanted="stop"),))
            assert (await control.replica("7", "GONE")).exit_status == -signal.SIGTERM
            assert nothing_runs(layout)
            await control.order(replicas=())
            await control.until(lambda report: report.replicas == ())

    asyncio.run(live())


def test_a_template_of_the_versions_own_lies_beside_its_replica_as_long_as_that_lives(
    layout: Layout, model: StageOrder
) -> None:
    """Readable by this user alone, byte for byte, where the engine is told; what else is wished reaches the launch."""
    template = "{{ bos_token }}\r\n{% for m in messages %}é{% endfor %}"
    wished = {"tensor_parallel": 2, "prefix_caching": False, "tool_parser": "xlam"}

    async def live() -> None:
        control, runtime = ControlStandIn(), ScriptedRuntime()
        async with listening(control, layout), working(agent(layout, runtime=runtime)):
            order = replica(model, chat_template=template, **wished)
            await control.order(replicas=(order,))
            await control.replica("7", "READY")
            (launch,) = runtime.launches
            assert launch.chat_template is not None
            assert launch.chat_template.parent == layout.replica_dir("7")
            assert stat.S_IMODE(launch.chat_template.stat().st_mode) == 0o600
            assert launch.chat_template.read_bytes() == template.encode()
            assert {name: getattr(launch, name) for name in wished} == wished
            await control.order(replicas=(msgspec.structs.replace(order, wanted="stop"),))
            await control.replica("7", "GONE")
            assert not launch.chat_template.exists()

    asyncio.run(live())


def test_a_template_that_no_tokenizer_looks_for_is_handed_to_the_engine(layout: Layout, model: StageOrder) -> None:
    """An older processor's file is all that the folder has: the engine is told of it as of a version's own template."""
    folder = Path(model.artifact_uri.removeprefix("file://"))
    (folder / "chat_template.json").write_text('{"chat_template": "{{ messages }}"}')
    order = msgspec.structs.replace(model, fingerprint=fingerprint(open_artifacts(model.artifact_uri)))

    async def live() -> None:
        control, runtime = ControlStandIn(), ScriptedRuntime()
        async with listening(control, layout), working(agent(layout, runtime=runtime)):
            await control.order(replicas=(replica(order),))
            await control.replica("7", "READY")
            (launch,) = runtime.launches
            assert launch.chat_template is not None
            assert launch.chat_template.read_text() == "{{ messages }}"
            await control.order(replicas=(replica(order, wanted="stop"),))
            await control.replica("7", "GONE")

    asyncio.run(live())


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"chat_template.json": {"chat_template": "older"}}, "older"),
        ({"chat_template.json": {"chat_template": "older"}, "tokenizer_config.json": {"bos_token": "<s>"}}, "older"),
        ({"chat_template.json": {"chat_template": "older"}, "tokenizer_config.json": {"chat_template": "new"}}, None),
        ({"chat_template.json": {"chat_template": "older"}, "chat_template.jinja": "new"}, None),
        ({"chat_template.json": {"chat_template": "older"}, "modules.json": []}, None),
        ({"chat_template.json": {}}, None),
        ({"chat_template.json": []}, None),
        ({"tokenizer_config.json": {"chat_template": "new"}}, None),
    ],
)
def test_only_a_template_that_engines_overlook_is_handed_to_them(
    tmp_path: Path, files: dict[str, object], found: str | None
) -> None:
    """Of a folder with another they take that by themselves; one that embeds has no chats."""
    for name, content in ({"config.json": {"model_type": "llama"}} | files).items():
        (tmp_path / name).write_bytes(msgspec.json.encode(content))
    assert hidden_in(tmp_path) == found


def test_a_template_goes_with_a_replica_that_fails_and_stays_with_one_that_is_handed_on(
    layout: Layout, model: StageOrder
) -> None:
    """An agent that leaves its engines to the next leaves their files; an engine that died leaves none."""
    template = layout.replica_dir("7") / "chat_template.jinja"

    async def live() -> None:
        control, first = ControlStandIn(), agent(layout)
        async with listening(control, layout):
            running = asyncio.create_task(first.run())
            await control.order(replicas=(replica(model, chat_template="{{ messages }}"),))
            pid = (await control.replica("7", "READY")).pid
            await first.stop(keep_replicas=True)
            await running
            assert template.exists()
            async with working(agent(layout)):
                await control.until(lambda report: len(control.reports) > 1 and bool(report.replicas))
                os.kill(pid, signal.SIGKILL)
                await control.replica("7", "FAILED")
                assert not template.exists()

    asyncio.run(live())


def test_a_model_is_claimed_as_long_as_anything_needs_it(layout: Layout, model: StageOrder) -> None:
    """By its stage, then by its replica, between replicas by its deployment; by nobody once all of them are gone."""

    async def live() -> None:
        control = ControlStandIn()
        cache = ModelCache(layout.models_dir)
        async with listening(control, layout), working(agent(layout)):
            await control.order(stages=(model,))
            await control.until(lambda report: any(stage.phase == "done" for stage in report.stages))
            assert not cache.remove(model.fingerprint)
            await control.order(stages=(), replicas=(replica(model),))
            await control.replica("7", "READY")
            assert not cache.remove(model.fingerprint)
            assert [(one.fingerprint, one.in_use) for one in cache.report().models] == [(model.fingerprint, True)]
            await control.order(replicas=(), kept=(model.fingerprint,))
            await control.until(lambda report: not report.replicas)
            assert not cache.remove(model.fingerprint)
            await control.order(kept=())
            await control.until(lambda report: report.orders_generation == 4)
            assert cache.remove(model.fingerprint)
            assert cache.models() == []

    asyncio.run(live())


def test_a_model_that_nobody_uses_makes_room_for_the_next(layout: Layout, model: StageOrder, tmp_path: Path) -> None:
    """Under a limit that holds one of two: the first goes once its replica is gone, and the second's stage says so."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "scripted", "other": 1}')
    uri = f"file://{other}"
    second = StageOrder(artifact_uri=uri, fingerprint=fingerprint(open_artifacts(uri)), runtime="scripted")

    async def notes(control: ControlStandIn) -> tuple[str, ...]:
        done = (second.fingerprint, "done")
        report = await control.until(lambda report: done in [(one.fingerprint, one.phase) for one in report.stages])
        return next(one.notes for one in report.stages if one.fingerprint == second.fingerprint)

    async def live() -> None:
        control = ControlStandIn()
        limited = agent(layout, model_cache_bytes=50)
        async with listening(control, layout), working(limited):
            await control.order(replicas=(replica(model),))
            await control.replica("7", "READY")
            await control.order(stages=(second,))
            assert "all that is left in it is in use" in (await notes(control))[0]
            assert (layout.models_dir / model.fingerprint).is_dir()
            await control.order(stages=(), replicas=())
            await control.until(lambda report: not report.replicas and not report.stages)
            ModelCache(layout.models_dir).remove(second.fingerprint)
            await control.order(stages=(second,))
            assert (await notes(control))[0].startswith(f"Evicted staged model {model.fingerprint[:12]} ")
            assert not (layout.models_dir / model.fingerprint).is_dir()

    asyncio.run(live())


def test_a_replica_that_is_in_no_order_is_stopped_but_not_by_a_control_without_orders(
    layout: Layout, model: StageOrder
) -> None:
    """Orders are levels: missing means stop. Generation 0 means that there are no orders yet, and stops nothing."""

    async def live() -> None:
        control = ControlStandIn()
        first = agent(layout)
        async with listening(control, layout):
            running = asyncio.create_task(first.run())
            await control.order(replicas=(replica(model),))
            pid = (await control.replica("7", "READY")).pid
            await first.stop(keep_replicas=True)
            await running
        control = ControlStandIn()
        async with listening(control, layout), working(agent(layout)):
            await control.until(lambda report: len(control.reports) > 1)
            assert (await control.replica("7", "READY")).pid == pid
            await control.order(replicas=())
            await control.until(lambda report: report.replicas == () and report.orders_generation == 1)
            assert nothing_runs(layout)

    asyncio.run(live())


def test_a_stop_that_comes_while_replicas_are_being_adopted_ends_them_too(layout: Layout, model: StageOrder) -> None:
    """An agent told to stop in its first moments leaves nothing of what an earlier one started."""

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout):
            first = agent(layout)
            running = asyncio.create_task(first.run())
            await control.order(replicas=(replica(model),))
            await control.replica("7", "READY")
            await first.stop(keep_replicas=True)
            await running
            async with working(agent(layout)):
                pass
        assert nothing_runs(layout)

    asyncio.run(live())


def test_a_dead_engine_is_classified_with_its_status_and_last_lines(layout: Layout, model: StageOrder) -> None:
    """What the engine said last, its exit status and its log reach control; the log outlives the replica."""
    failed = asyncio.run(end_of(layout, model, replica(model, "crash")))
    assert failed.failure is not None
    assert (failed.failure.code, failed.failure.evidence, failed.exit_status) == ("ENGINE_BAD_TENSOR", "lm_head", 3)
    assert failed.log_tail[0] == "engine crash"
    assert (layout.replica_dir("7") / record.ENGINE_LOG).exists()


def test_an_engine_that_dies_in_its_warm_up_is_dead_and_not_mute(layout: Layout, model: StageOrder) -> None:
    """The broken connection is told as what it was: the end of the process."""
    failed = asyncio.run(end_of(layout, model, replica(model, "dies-warming")))
    assert failed.failure is not None
    assert (failed.failure.code, failed.exit_status) == ("ENGINE_DIED", 4)


@pytest.mark.parametrize(
    ("name", "timeout_s", "code"),
    [("never-healthy", 1.0, "ENGINE_START_TIMEOUT"), ("mute", 60.0, "ENGINE_WARMUP_FAILED")],
)
def test_an_engine_that_cannot_serve_is_ended(
    layout: Layout, model: StageOrder, name: str, timeout_s: float, code: str
) -> None:
    """Not healthy in time, or healthy and without a token: FAILED with the reason, and nothing of it runs."""
    failed = asyncio.run(end_of(layout, model, replica(model, name, startup_timeout_s=timeout_s)))
    assert failed.failure is not None
    assert failed.failure.code == code
    assert failed.log_tail == (f"engine {name}",)
    assert nothing_runs(layout)


def test_a_starting_replica_can_be_stopped(layout: Layout, model: StageOrder) -> None:
    """A stop does not wait for an engine to become healthy."""

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout), working(agent(layout)):
            await control.order(replicas=(replica(model, "never-healthy"),))
            await control.replica("7", "STARTING")
            await control.order(replicas=(replica(model, "never-healthy", wanted="stop"),))
            await control.replica("7", "GONE")
        assert nothing_runs(layout)

    asyncio.run(live())


def test_what_cannot_be_staged_fails_with_the_reason(layout: Layout, model: StageOrder) -> None:
    """Files that are not those registered fail the stage, and a replica that needs them, without starting anything."""
    changed = StageOrder(artifact_uri=model.artifact_uri, fingerprint="0" * 64, runtime="scripted")
    unknown = StageOrder(artifact_uri=model.artifact_uri, fingerprint=model.fingerprint, runtime="other")

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout), working(agent(layout)):
            await control.order(stages=(changed, unknown), replicas=(replica(changed),))
            failed = await control.replica("7", "FAILED")
            report = await control.until(lambda report: {one.phase for one in report.stages} == {"failed"})
            codes = {one.runtime: one.failure.code for one in report.stages if one.failure is not None}
            assert codes == {"scripted": "ARTIFACTS_CHANGED", "other": "RUNTIME_UNKNOWN"}
            assert failed.failure is not None
            assert failed.failure.code == "ARTIFACTS_CHANGED"
            assert not layout.replica_dir("7").exists()

    asyncio.run(live())


def test_a_killed_shim_costs_nothing(layout: Layout, model: StageOrder) -> None:
    """A new shim takes over; the replica stays READY, with the same engine, and can still be stopped."""

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout), working(agent(layout)):
            await control.order(replicas=(replica(model),))
            ready = await control.replica("7", "READY")
            state_file = str(layout.replica_dir("7") / record.STATE)
            old = (record.read_json(state_file) or {})["shim_pid"]
            os.kill(old, signal.SIGKILL)
            while (record.read_json(state_file) or {})["shim_pid"] == old:
                await control.until(lambda report: True)
                await asyncio.sleep(0.01)
            seen = len(control.reports)
            await control.until(lambda report: len(control.reports) > seen)
            assert {one.state for report in control.reports[seen:] for one in report.replicas} == {"READY"}
            assert (await control.replica("7", "READY")).pid == ready.pid
        assert nothing_runs(layout)

    asyncio.run(live())


def test_a_frozen_engine_is_told_of_and_one_that_recovers_is_well_again(layout: Layout, model: StageOrder) -> None:
    """It stays READY, with the failure that keeps requests away, until it answers again."""
    patience = Patience(every_s=0.05, timeout_s=0.2, give_up_s=600.0)

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout), working(agent(layout, patience)):
            await control.order(replicas=(replica(model),))
            ready = await control.replica("7", "READY")
            os.kill(ready.pid, signal.SIGSTOP)
            told = await control.until(lambda report: report.replicas[0].failure is not None)
            assert told.replicas[0].failure is not None
            assert (told.replicas[0].state, told.replicas[0].failure.code) == ("READY", "ENGINE_UNREACHABLE")
            os.kill(ready.pid, signal.SIGCONT)
            well = await control.until(lambda report: report.replicas[0].failure is None)
            assert (well.replicas[0].state, well.replicas[0].pid) == ("READY", ready.pid)
        assert nothing_runs(layout)

    asyncio.run(live())


def test_an_engine_that_stays_frozen_is_killed(layout: Layout, model: StageOrder) -> None:
    """FAILED with the reason, without waiting for a grace that it cannot use, and nothing of it runs."""
    patience = Patience(every_s=0.05, timeout_s=0.2, give_up_s=1.0)

    async def live() -> ReplicaReport:
        control = ControlStandIn()
        async with listening(control, layout), working(agent(layout, patience)):
            await control.order(replicas=(replica(model, drain_timeout_s=600.0),))
            ready = await control.replica("7", "READY")
            os.kill(ready.pid, signal.SIGSTOP)
            failed = await control.replica("7", "FAILED")
            assert nothing_runs(layout)
            return failed

    failed = asyncio.run(live())
    assert failed.failure is not None
    assert (failed.failure.code, failed.exit_status) == ("ENGINE_UNREACHABLE", -signal.SIGKILL)


KILLED_AGENT = """
import asyncio, sys
from pathlib import Path
from headrace.resources.layout import Layout
sys.path.insert(0, {tests!r})
from node_standins import ScriptedRuntime
from test_node_agent import agent
runtime = ScriptedRuntime(sleeps={sleeps!r})
asyncio.run(agent(Layout(Path({data!r})), runtime=runtime, unclaimed_timeout_s={unclaimed_timeout_s!r}).run())
"""


def killed_agent(
    layout: Layout, *, sleeps: bool = False, unclaimed_timeout_s: float = 600.0
) -> subprocess.Popen[bytes]:
    """An agent in a process of its own, to be killed."""
    program = KILLED_AGENT.format(
        tests=str(Path(__file__).parent),
        data=str(layout.data_dir),
        sleeps=sleeps,
        unclaimed_timeout_s=unclaimed_timeout_s,
    )
    return subprocess.Popen([sys.executable, "-c", program])


def test_a_killed_node_is_replaced_by_one_that_adopts(layout: Layout, model: StageOrder) -> None:
    """The engine goes on; the next agent's first report has it READY with the same process, before any order."""

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout):
            node = killed_agent(layout)
            await control.order(replicas=(replica(model),))
            ready = await control.replica("7", "READY")
            node.kill()
            await asyncio.to_thread(node.wait)
            control.reports.clear()
            async with working(agent(layout)):
                adopted = await control.replica("7", "READY")
                first = control.reports[0]
                assert (first.orders_generation, [one.state for one in first.replicas]) == (0, ["READY"])
                assert (adopted.pid, adopted.warmup, adopted.since) == (ready.pid, ready.warmup, ready.since)
                assert not ModelCache(layout.models_dir).remove(model.fingerprint)
                await control.until(lambda report: any(one.in_use for one in report.model_cache.models))
            assert nothing_runs(layout)

    asyncio.run(live())


def test_an_engine_that_died_while_there_was_no_node_is_told_with_its_status(layout: Layout, model: StageOrder) -> None:
    """The shim kept the exit status and the log; the next agent reports the failure and starts no second engine."""

    async def live() -> None:
        control = ControlStandIn()
        async with listening(control, layout):
            node = killed_agent(layout)
            await control.order(replicas=(replica(model),))
            ready = await control.replica("7", "READY")
            shim = (record.read_json(str(layout.replica_dir("7") / record.STATE)) or {})["shim_pid"]
            node.kill()
            await asyncio.to_thread(node.wait)
            os.kill(ready.pid, signal.SIGSEGV)
            await asyncio.to_thread(wait_for_end, shim)
            async with working(agent(layout)):
                failed = await control.replica("7", "FAILED")
                assert failed.failure is not None
                assert (failed.failure.code, failed.exit_status) == ("ENGINE_DIED", -signal.SIGSEGV)
                assert failed.log_tail == ("engine chat",)

    asyncio.run(live())


def test_replicas_outlive_control_and_a_new_control_is_told_everything(layout: Layout, model: StageOrder) -> None:
    """While control is down nothing changes; the next one gets the whole report without asking."""

    async def live() -> None:
        control = ControlStandIn()
        async with contextlib.AsyncExitStack() as stack:
            async with listening(control, layout):
                await stack.enter_async_context(working(agent(layout)))
                await control.order(replicas=(replica(model),))
                ready = await control.replica("7", "READY")
            successor = ControlStandIn()
            async with listening(successor, layout):
                report = await successor.replica("7", "READY")
                assert (report.pid, report.since) == (ready.pid, ready.since)

    asyncio.run(live())
    assert nothing_runs(layout)


def test_an_agent_is_light() -> None:
    """What a node loads leaves out everything heavy that other processes need."""
    loaded = subprocess.run(
        [sys.executable, "-c", "import headrace.node, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = {
        "numpy",
        "torch",
        "sqlalchemy",
        "alembic",
        "fastapi",
        "starlette",
        "pydantic",
        "rich",
        "httpx",
        "typer",
        "safetensors",
    }
    assert not heavy & set(loaded)
