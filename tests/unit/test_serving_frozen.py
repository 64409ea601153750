"""What computes and stands still is noticed, with real processes that are really stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from serving_fake import MODEL, Bytes, Client, Saying

from headrace_engines.serving.app import build_app
from headrace_engines.serving.engine import Engine
from headrace_engines.serving.frozen import Compute, FrozenWatch, descendants
from headrace_engines.serving.generator import ServedModel

AFTER_S = 0.4
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

BUSY = "while True: pass"
IDLE = "import time; time.sleep(600)"


@pytest.fixture(name="start")
def fixture_start() -> Iterator[Callable[[str], int]]:
    """Starts a process of Python's; all are ended with the test."""
    started = []

    def start(program: str) -> int:
        process = subprocess.Popen([sys.executable, "-S", "-c", program])
        started.append(process)
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def settles(watch: FrozenWatch, compute: Compute) -> bool:
    """What the watch says after it has been asked for long enough."""
    until = time.monotonic() + 4 * AFTER_S
    said = False
    while time.monotonic() < until:
        said = watch.frozen(lambda: compute)
        time.sleep(AFTER_S / 8)
    return said


def test_a_process_that_is_stopped_is_frozen_until_it_goes_on(start: Callable[[str], int]) -> None:
    """SIGSTOP is noticed within the time, SIGCONT with the next look."""
    pid = start(BUSY)
    watch = FrozenWatch(AFTER_S)
    assert not settles(watch, Compute([pid], 1))
    os.kill(pid, signal.SIGSTOP)
    assert settles(watch, Compute([pid], 1))
    os.kill(pid, signal.SIGCONT)
    time.sleep(AFTER_S)
    assert not settles(watch, Compute([pid], 1))


def test_who_has_nothing_to_do_is_not_frozen(start: Callable[[str], int]) -> None:
    """Only requests that wait make stillness one; and one that waits for ever by itself is as bad as stopped."""
    pid = start(IDLE)
    time.sleep(AFTER_S)  # its own start is work
    assert not settles(FrozenWatch(AFTER_S), Compute([pid], 0))
    assert settles(FrozenWatch(AFTER_S), Compute([pid], 1))
    assert not settles(FrozenWatch(AFTER_S), Compute([], 1))


def test_one_that_is_stopped_is_not_hidden_by_others_that_look_for_it(start: Callable[[str], int]) -> None:
    """A worker that polls for its stopped engine core uses the processor all the while."""
    stopped, busy = start(BUSY), start(BUSY)
    os.kill(stopped, signal.SIGSTOP)
    assert settles(FrozenWatch(AFTER_S), Compute([stopped, busy], 1))


def test_who_was_not_asked_for_long_begins_anew(start: Callable[[str], int]) -> None:
    """A machine that slept is not frozen when it wakes up."""
    now = [100.0]
    pid = start(IDLE)
    time.sleep(AFTER_S)
    watch = FrozenWatch(30, clock=lambda: now[0])
    assert not watch.frozen(lambda: Compute([pid], 1))
    now[0] += 3600
    assert not watch.frozen(lambda: Compute([pid], 1))
    for _ in range(4):
        now[0] += 10
        frozen = watch.frozen(lambda: Compute([pid], 1))
    assert frozen


def test_processors_time_is_read_once_a_second_at_most(start: Callable[[str], int]) -> None:
    """Whoever asks often gets the last answer."""
    now, looks = [100.0], 0
    pid = start(IDLE)

    def compute() -> Compute:
        nonlocal looks
        looks += 1
        return Compute([pid], 1)

    watch = FrozenWatch(30, clock=lambda: now[0])
    for _ in range(50):
        watch.frozen(compute)
        now[0] += 0.1
    assert looks <= 5


def test_descendants_are_children_and_theirs(start: Callable[[str], int]) -> None:
    """And nobody else."""
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {IDLE.replace('600', '3')!r}])"
    pid = start(nested)
    until = time.monotonic() + 5
    while not (grandchildren := descendants(pid)) and time.monotonic() < until:
        time.sleep(0.02)
    assert len(grandchildren) == 1
    assert {pid, *grandchildren} <= set(descendants(os.getpid()))
    assert os.getpid() not in descendants(os.getpid())


class _Elsewhere(Saying):
    """Computed by another process."""

    def __init__(self, pid: int) -> None:
        super().__init__("a")
        self.pid = pid
        self.waiting = 0

    def compute(self) -> Compute:
        """That process."""
        return Compute([self.pid], self.waiting)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_shell_whose_process_is_stopped_is_not_healthy(start: Callable[[str], int]) -> None:
    """503 and "frozen", so that the node routes around it; without requests it is healthy."""
    generator = _Elsewhere(start(BUSY))
    engine = Engine(MODEL, {"engine": "openvino"}, lambda _: None, frozen_after_s=AFTER_S)
    await engine.start(lambda loop, on_death: ServedModel(generator, Bytes(None)))
    async with Client(transport=httpx.ASGITransport(build_app(engine, None)), base_url="http://engine") as client:

        async def health() -> tuple[int, str]:
            until = time.monotonic() + 3 * AFTER_S
            while time.monotonic() < until:
                response = await client.get("/health")
                await asyncio.sleep(AFTER_S / 8)
            return response.status_code, response.json()["status"]

        os.kill(generator.pid, signal.SIGSTOP)
        assert await health() == (200, "ready")
        generator.waiting = 1
        assert await health() == (503, "frozen")
        os.kill(generator.pid, signal.SIGCONT)
        assert await health() == (200, "ready")
