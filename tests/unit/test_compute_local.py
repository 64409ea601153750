"""The promises of a shim and of its owner's end, kept with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from headrace.compute.backend import EngineExit, EngineSpec
from headrace.compute.local import LocalBackend
from headrace.compute.process import LocalProcess
from headrace.compute.shim import record
from headrace.compute.shim.kin import Kin
from headrace.compute.shim.server import OPERATIONS
from headrace.resources.errors import EngineDied
from headrace.resources.layout import Layout

SLEEP = "import time; time.sleep(600)"
HEARING = (
    "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); print('up', flush=True); time.sleep(600)"
)
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
WITH_GRANDCHILDREN = """
import os, subprocess, sys, time
# One in the group, one that left it as daemons do, one that also lost its environment.
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True),
            subprocess.Popen(sleep, start_new_session=True, env={})]
print(*[child.pid for child in children], flush=True)
time.sleep(600)
"""


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """A data directory; whatever the test left running in it is ended."""
    layout = Layout(tmp_path)
    yield layout
    for spec in (tmp_path / "replicas").glob(f"*/{record.SPEC}"):
        state = record.read_json(str(spec.parent / record.STATE)) or {}
        for name in ("shim", "engine"):
            if state and record.start_ticks(state[f"{name}_pid"]) == state[f"{name}_start"]:
                os.kill(state[f"{name}_pid"], signal.SIGKILL)
        Kin(0, str(spec.parent)).end(engine_lives=False)


def spec(program: str, **changes: object) -> EngineSpec:
    """An engine that is a few lines of Python."""
    fields = {
        "id": "7",
        "epoch": 3,
        "nonce": "secret",
        "argv": [sys.executable, "-c", program],
        "env": {"PATH": os.defpath},
        "stop_grace_s": 20.0,
    }
    return EngineSpec(**(fields | changes))  # type: ignore[arg-type]


async def first_line(process: LocalProcess) -> str:
    """Wait for the engine's first line of output."""
    await until(lambda: bool(process.log_tail(1)))
    return process.log_tail(1)[0]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other processes do with files: there is no event for it."""
    while not condition():  # noqa: ASYNC110 - see above
        await asyncio.sleep(0.01)


def wait_for_end(pid: int) -> None:
    """Block until a process that is no child of ours has ended."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        assert select.select([descriptor], [], [], 60)[0], f"process {pid} goes on"
        os.close(descriptor)


def runs(pid: int) -> bool:
    """Whether a process runs, zombies not counted."""
    return record.start_ticks(pid) is not None


def request(path: Path, line: bytes) -> bytes:
    """What a shim answers to one line; nothing when it hangs up."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(line + b"\n")
        with contextlib.suppress(ConnectionResetError):  # hung up on with bytes unread
            return connection.makefile("rb").readline()
    return b""


def test_the_exit_status_the_log_and_the_peak_memory_of_an_engine_are_kept(layout: Layout) -> None:
    """An engine that ends by itself leaves its status, its last lines and its peak memory, for later nodes too."""

    async def live() -> EngineExit:
        process = await LocalBackend(layout).start(
            spec("import sys; print('first', flush=True); print('last words', file=sys.stderr); sys.exit(5)")
        )
        end = await process.wait()
        assert process.log_tail(1) == ("last words",)
        return end

    end = asyncio.run(live())
    assert (end.exit_status, end.why_stopped) == (5, "")
    assert end.peak_resident_bytes > 1_000_000

    async def look_again() -> LocalProcess:
        (found,) = await LocalBackend(layout).discover()
        return found

    found = asyncio.run(look_again())
    assert found.ended == end
    assert set(found.log_tail(2)) == {"first", "last words"}
    assert not layout.shim_socket("7").exists()


def test_a_signal_is_told_as_a_negative_status(layout: Layout) -> None:
    """An engine that was killed from outside has minus the signal as its status, and nobody asked for it."""

    async def live() -> EngineExit:
        process = await LocalBackend(layout).start(spec(SLEEP))
        os.kill(process.pid, signal.SIGKILL)
        return await process.wait()

    end = asyncio.run(live())
    assert (end.exit_status, end.why_stopped) == (-signal.SIGKILL, "")


def test_stop_ends_the_engine_and_everything_it_started(layout: Layout) -> None:
    """After a stop nothing is left: not children, not daemons, not those that lost their environment, not the shim."""

    async def live() -> tuple[EngineExit, list[int]]:
        process = await LocalBackend(layout).start(spec(WITH_GRANDCHILDREN))
        pids = [int(pid) for pid in (await first_line(process)).split()]
        end = await process.stop()
        return end, [process.pid, process.shim_pid, *pids]

    end, pids = asyncio.run(live())
    assert (end.exit_status, end.why_stopped) == (-signal.SIGTERM, "request")
    wait_for_end(pids[1])
    assert not [pid for pid in pids if runs(pid)]
    assert not layout.shim_socket("7").exists()
    assert not layout.engine_socket("7").exists()


def test_an_engine_that_ignores_sigterm_is_killed_after_its_grace(layout: Layout) -> None:
    """SIGKILL follows SIGTERM when the grace is over."""

    async def live() -> EngineExit:
        process = await LocalBackend(layout).start(spec(DEAF, stop_grace_s=0.05))
        await first_line(process)
        return await process.stop()

    assert asyncio.run(live()).exit_status == -signal.SIGKILL


def test_a_replica_whose_shim_was_killed_is_adopted_by_a_new_one(layout: Layout) -> None:
    """Its engine goes on with the same process; its end is seen, with an unknown status; nothing of it is left."""

    async def live() -> tuple[EngineExit, int, list[int]]:
        process = await LocalBackend(layout).start(spec(WITH_GRANDCHILDREN))
        pids = [int(pid) for pid in (await first_line(process)).split()]
        old_shim, engine = process.shim_pid, process.pid
        os.kill(old_shim, signal.SIGKILL)
        await until(lambda: process.shim_pid != old_shim)
        assert process.pid == engine
        assert runs(engine)
        return await process.stop(), process.shim_pid, [engine, *pids]

    end, shim_pid, pids = asyncio.run(live())
    assert (end.exit_status, end.why_stopped) == (None, "request")
    wait_for_end(shim_pid)
    assert not [pid for pid in pids if runs(pid)]


def test_a_stop_survives_the_death_of_the_shim_it_was_said_to(layout: Layout) -> None:
    """The shim that takes over is told to stop as well."""

    async def live() -> EngineExit:
        process = await LocalBackend(layout).start(spec(DEAF, stop_grace_s=2.0))
        await first_line(process)
        stopping = asyncio.create_task(process.stop())
        await asyncio.sleep(0)
        os.kill(process.shim_pid, signal.SIGKILL)
        return await stopping

    assert asyncio.run(live()).why_stopped == "request"


def test_an_engine_and_a_shim_that_both_died_are_told_as_dead(layout: Layout) -> None:
    """Whoever looks later finds an end with an unknown status, and orphans of the engine are ended."""

    async def live() -> list[int]:
        process = await LocalBackend(layout).start(spec(WITH_GRANDCHILDREN))
        pids = [int(pid) for pid in (await first_line(process)).split()]
        await process.release()
        for pid in (process.shim_pid, process.pid):
            os.kill(pid, signal.SIGKILL)
            wait_for_end(pid)
        (found,) = await LocalBackend(layout).discover()
        assert found.ended is not None
        assert found.ended.exit_status is None
        return pids

    pids = asyncio.run(live())
    try:
        assert not [pid for pid in pids[:2] if runs(pid)]
    finally:
        os.kill(pids[2], signal.SIGKILL)  # a daemon without environment whose parents all died: nothing leads to it


def test_a_killed_owner_leaves_the_engine_and_the_next_one_finds_it(layout: Layout) -> None:
    """The engine outlives the node; a later node claims the same process and the same epoch."""
    program = f"""
import asyncio, os, signal, sys
from pathlib import Path
from headrace.compute.backend import EngineSpec
from headrace.compute.local import LocalBackend
from headrace.resources.layout import Layout
async def main():
    await LocalBackend(Layout(Path({str(layout.data_dir)!r}))).start(EngineSpec(
        id="7", epoch=3, nonce="secret", argv=[sys.executable, "-c", {SLEEP!r}], env={{}}))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    state = record.read_json(str(layout.replica_dir("7") / record.STATE))
    assert state is not None

    async def look() -> None:
        (found,) = await LocalBackend(layout).discover()
        assert (found.id, found.epoch, found.pid, found.shim_pid) == ("7", 3, state["engine_pid"], state["shim_pid"])
        assert found.ended is None
        assert found.resident_bytes() > 1_000_000
        await found.stop()

    asyncio.run(look())


def test_an_engine_that_nobody_claims_is_ended(layout: Layout) -> None:
    """When the last claim is given up and no other comes in time, shim and engine end by themselves."""

    async def live() -> tuple[int, int]:
        process = await LocalBackend(layout).start(spec(SLEEP, unclaimed_timeout_s=0.5))
        await process.release()
        return process.pid, process.shim_pid

    for pid in asyncio.run(live()):
        wait_for_end(pid)
    end = record.read_json(str(layout.replica_dir("7") / record.EXIT))
    assert end is not None
    assert (end["exit_status"], end["why_stopped"]) == (-signal.SIGTERM, "unclaimed")


def test_sigterm_to_the_shim_stops_its_engine(layout: Layout) -> None:
    """A shim told to end takes its engine with it."""

    async def live() -> EngineExit:
        process = await LocalBackend(layout).start(spec(SLEEP))
        os.kill(process.shim_pid, signal.SIGTERM)
        return await process.wait()

    assert asyncio.run(live()).why_stopped == "signal"


def test_a_shim_answers_nobody_without_the_nonce(layout: Layout) -> None:
    """Each operation hangs up on a wrong or missing nonce, and nonsense too; with the right one it answers."""

    async def live() -> None:
        process = await LocalBackend(layout).start(spec(SLEEP))
        path = layout.shim_socket("7")
        for operation in OPERATIONS:
            for wrong in ({"nonce": "guess"}, {}, {"nonce": None}):
                line = json.dumps({"op": operation} | wrong).encode()
                assert await asyncio.to_thread(request, path, line) == b""
        for line in (b"not json", b"[]", b'{"nonce": "secret", "op": "delete"}', b"x" * 10_000):
            assert await asyncio.to_thread(request, path, line) == b""
        answer = await asyncio.to_thread(request, path, b'{"nonce": "secret", "op": "status"}')
        assert json.loads(answer)["engine_pid"] == process.pid
        assert path.stat().st_mode & 0o077 == 0
        await process.stop()

    asyncio.run(live())


def test_a_replica_is_never_started_twice(layout: Layout) -> None:
    """A second start of the same replica is refused, and the first engine is left alone."""

    async def live() -> None:
        backend = LocalBackend(layout)
        process = await backend.start(spec(SLEEP))
        with pytest.raises(EngineDied):
            await backend.start(spec(SLEEP))
        assert runs(process.pid)
        await process.stop()

    asyncio.run(live())


def test_a_command_that_does_not_exist_ends_with_its_name_in_the_log(layout: Layout) -> None:
    """The end of an engine that could not be executed says what was tried."""

    async def live() -> None:
        process = await LocalBackend(layout).start(spec("", argv=["/nowhere/python"]))
        assert (await process.wait()).exit_status == 127
        assert "/nowhere/python" in process.log_tail(1)[0]

    asyncio.run(live())


def test_a_memory_limit_is_the_engines_and_not_the_shims(layout: Layout) -> None:
    """An engine over its limit fails to allocate; the shim reports it as any other end."""

    async def live() -> None:
        process = await LocalBackend(layout).start(spec("x = bytearray(10**9)", memory_limit_bytes=300_000_000))
        assert (await process.wait()).exit_status == 1
        assert process.log_tail(1) == ("MemoryError",)

    asyncio.run(live())


def test_the_log_stays_bounded_and_loses_no_last_line(layout: Layout) -> None:
    """A log over its bound is put aside and cut; the tail reads across the cut."""
    program = "import time\nfor n in range(2000): print('line', n, flush=True)\ntime.sleep(600)"

    async def live() -> None:
        process = await LocalBackend(layout).start(spec(program, log_max_bytes=5_000))
        put_aside = process.directory / f"{record.ENGINE_LOG}.1"
        await until(put_aside.exists)
        assert process.log_tail(1) == ("line 1999",)
        await process.stop()

    asyncio.run(live())


def test_the_engine_gets_the_environment_it_was_given_and_no_other(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No secret of the node reaches an engine."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")

    async def live() -> None:
        process = await LocalBackend(layout).start(
            spec("import os; print(sorted(os.environ))", env={"MINE": "1", "LC_CTYPE": "C.UTF-8"})
        )
        await process.wait()
        assert process.log_tail(1) == ("['HEADRACE_REPLICA_DIR', 'LC_CTYPE', 'MINE']",)

    asyncio.run(live())


def test_records_of_the_last_twenty_dead_replicas_are_kept(layout: Layout) -> None:
    """Older ones go; the living stay whatever their number."""
    for number in range(25):
        directory = layout.replica_dir(str(number))
        directory.mkdir(parents=True)
        (directory / record.EXIT).write_text("{}")
        os.utime(directory / record.EXIT, (number, number))
    alive = layout.replica_dir("alive")
    alive.mkdir()
    LocalBackend(layout).sweep()
    assert {path.name for path in alive.parent.iterdir()} == {"alive", *map(str, range(5, 25))}


def test_a_shim_is_small_and_needs_the_standard_library_only(layout: Layout) -> None:
    """One runs beside every engine: under 15 MB resident, with nothing of ours but itself loaded."""

    async def live() -> int:
        process = await LocalBackend(layout).start(spec(SLEEP))
        resident: int = psutil.Process(process.shim_pid).memory_info().rss
        await process.stop()
        return resident

    assert asyncio.run(live()) < 15_000_000
    loaded = subprocess.run(
        [sys.executable, "-S", "-P", "-c", "import headrace.compute.shim.__main__, sys; print(*sys.modules)"],
        env={"PYTHONPATH": str(Path(record.__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    ours = {name for name in loaded if name.startswith("headrace")}
    assert {name for name in ours if not name.startswith("headrace.compute.shim")} == {"headrace", "headrace.compute"}
    assert not {"asyncio", "subprocess", "typing", "pathlib", "msgspec", "hashlib"} & set(loaded)


@pytest.mark.parametrize("name", ["start_ticks", "peak_resident_bytes", "stat_fields"])
def test_a_process_that_is_no_more_has_no_records(name: str) -> None:
    """Asking about a process that has ended answers nothing, not an error."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not getattr(record, name)(ended.pid)
    assert record.start_ticks(os.getpid())


@pytest.mark.parametrize("at_once", [False, True])
def test_a_stopped_engine_is_killed(layout: Layout, at_once: bool) -> None:
    """SIGSTOP holds SIGTERM back, and not SIGKILL: after the grace, or without one where it was not to have any."""

    async def live() -> EngineExit:
        process = await LocalBackend(layout).start(spec(HEARING, stop_grace_s=600.0 if at_once else 0.2))
        await first_line(process)
        os.kill(process.pid, signal.SIGSTOP)
        end = await process.stop(at_once=at_once)
        assert not runs(process.pid)
        return end

    end = asyncio.run(live())
    assert (end.exit_status, end.why_stopped) == (-signal.SIGKILL, "request")


def test_a_stop_at_once_shortens_a_grace_that_runs(layout: Layout) -> None:
    """Whoever asked first with patience may lose it."""

    async def live() -> EngineExit:
        process = await LocalBackend(layout).start(spec(DEAF, stop_grace_s=600.0))
        await first_line(process)
        patient = asyncio.create_task(process.stop())
        await asyncio.sleep(0)
        await process.stop(at_once=True)
        return await patient

    assert asyncio.run(live()).exit_status == -signal.SIGKILL


def test_an_unclaimed_engine_is_killed_even_when_it_is_stopped(layout: Layout) -> None:
    """Nobody claims it, and it does not hear: it ends all the same."""

    async def live() -> int:
        process = await LocalBackend(layout).start(spec(HEARING, stop_grace_s=0.1, unclaimed_timeout_s=0.1))
        await first_line(process)
        os.kill(process.pid, signal.SIGSTOP)
        await process.release()
        return process.shim_pid

    wait_for_end(asyncio.run(live()))
    end = record.read_json(str(layout.replica_dir("7") / record.EXIT)) or {}
    assert (end["exit_status"], end["why_stopped"]) == (-signal.SIGKILL, "unclaimed")


def test_a_shim_that_was_killed_at_its_start_leaves_evidence(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing itself; the signal that ended it is named."""
    doomed = tmp_path / "python"
    doomed.write_text("#!/bin/sh\nkill -9 $$\n")
    doomed.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(doomed))
    with pytest.raises(EngineDied) as caught:
        asyncio.run(LocalBackend(layout).start(spec(SLEEP)))
    assert caught.value.evidence == "It was ended by SIGKILL."
