"""The gateway's search for garbage: often and small, and of everything only while nobody waits."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from headrace.server import garbage


class Node:
    """What can hold another one."""

    def __init__(self) -> None:
        self.other: Node | None = None


def two_that_hold_each_other() -> Node:
    """One of the two."""
    node = Node()
    node.other = Node()
    node.other.other = node
    return node


class Hours:
    """A clock that is set by hand, and counts how often it was read: once for each sweep, at least."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.readings = 0

    def __call__(self) -> float:
        """The time."""
        self.readings += 1
        return self.now_s

    async def sweeps(self) -> None:
        """Wait until one has begun and ended that had not begun before this."""
        after = self.readings + 2
        async with asyncio.timeout(20):
            while self.readings < after:  # noqa: ASYNC110 - reading a clock is no event
                await asyncio.sleep(0)


@asynccontextmanager
async def sweeping(*, idle: bool) -> AsyncIterator[Hours]:
    """Sweeps, until the block ends; yields their clock."""
    hours = Hours()
    task = asyncio.create_task(garbage.sweep(lambda: idle, hours))
    try:
        yield hours
    finally:
        task.cancel()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody else looks for garbage, and afterwards everything is looked through as before."""
    monkeypatch.setattr(garbage, "SWEPT_EVERY_S", 0.001)
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def test_the_youngest_are_looked_through_all_the_time() -> None:
    """What nobody holds any more is gone after a sweep, whoever waits."""

    async def main() -> None:
        async with sweeping(idle=False) as hours:
            await hours.sweeps()
            gone = weakref.ref(two_that_hold_each_other())
            await hours.sweeps()
            assert gone() is None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("after_s", "idle", "searched"),
    [
        (garbage.WHOLE_EVERY_S - 1, True, False),
        (garbage.WHOLE_EVERY_S, False, False),
        (garbage.WHOLE_EVERY_S, True, True),
        (garbage.WHOLE_AT_LAST_S, False, True),
    ],
)
def test_what_outlived_a_sweep_is_looked_through_while_nobody_waits(after_s: float, idle: bool, searched: bool) -> None:
    """Only after a time, and only when no request is under way, until it was put off for long enough."""

    async def main() -> None:
        async with sweeping(idle=idle) as hours:
            held = two_that_hold_each_other()
            await hours.sweeps()
            kept = weakref.ref(held)
            del held
            await hours.sweeps()
            assert kept() is not None
            hours.now_s = after_s
            await hours.sweeps()
            assert (kept() is None) == searched

    asyncio.run(main())


def test_what_is_set_aside_goes_with_its_last_holder() -> None:
    """Nothing has to be searched for that."""

    async def main() -> None:
        async with sweeping(idle=False) as hours:
            held = Node()
            await hours.sweeps()
            gone = weakref.ref(held)
            assert not any(each is held for each in gc.get_objects())
            del held
            assert gone() is None

    asyncio.run(main())
