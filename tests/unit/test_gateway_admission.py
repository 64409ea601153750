"""Admission and traffic: exact shares, first in first out, bounded lines, honest refusals."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.gateway.fair_queue import Visit
from headrace.gateway.traffic import TrafficSplit
from headrace.gateway.waiting_room import WaitingRoom
from headrace.resources.errors import NotReady, QueueFull, QueueTimeout

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 100), min_size=1)


@settings(deadline=None)
@given(weights=WEIGHTS, rounds=st.integers(1, 3))
def test_split_is_exact(weights: dict[str, int], rounds: int) -> None:
    """After each full round every candidate has had exactly its weight's share."""
    split, ready = TrafficSplit(weights), frozenset(weights)
    total = sum(weights.values())
    if total == 0:
        assert split.pick(ready) is None
        return
    picks = Counter(split.pick(ready) for _ in range(total * rounds))
    assert picks == Counter({key: weight * rounds for key, weight in weights.items() if weight})


@settings(deadline=None)
@given(weights=WEIGHTS, n=st.integers(1, 500))
def test_split_is_smooth(weights: dict[str, int], n: int) -> None:
    """At no moment is anybody further from its share than there are candidates."""
    total = sum(weights.values())
    split, ready = TrafficSplit(weights), frozenset(weights)
    picks = Counter(split.pick(ready) for _ in range(n if total else 0))
    for key, weight in weights.items():
        assert abs(picks[key] - n * weight / max(total, 1)) < len(weights) or not total


@settings(deadline=None)
@given(weights=WEIGHTS, readiness=st.lists(st.sets(st.sampled_from("abcdef")), min_size=1, max_size=50))
def test_what_is_not_ready_is_not_picked(weights: dict[str, int], readiness: list[set[str]]) -> None:
    """Whatever comes and goes, only what has a weight is picked, and only what is ready while something is."""
    split = TrafficSplit(weights)
    weighted = {key for key, weight in weights.items() if weight}
    for ready in readiness:
        pick = split.pick(frozenset(ready))
        assert pick in ((weighted & ready) or weighted) if weighted else pick is None


def room(max_running: int = 1, max_waiting: int = 10, max_wait_s: float = 60) -> WaitingRoom:
    """A waiting room."""
    return WaitingRoom("a model", max_running=max_running, max_waiting=max_waiting, max_wait_s=max_wait_s)


@asynccontextmanager
async def place(room: WaitingRoom, visit: Visit | None = None) -> AsyncIterator[None]:
    """A turn for as long as the block takes; without a visit, of somebody without a key."""
    visitor = visit or Visit()
    await room.come_in(visitor)
    try:
        yield
    finally:
        room.depart(visitor)


async def stay(room: WaitingRoom, leave: asyncio.Event, order: list[int] | None = None, n: int = 0) -> None:
    """Hold a place until told to leave."""
    async with place(room):
        if order is not None:
            order.append(n)
        await leave.wait()


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_first_in_first_out() -> None:
    """Waiters are let in in the order in which they came."""

    async def main() -> None:
        places, order, leave = room(), list[int](), asyncio.Event()
        tasks = [asyncio.create_task(stay(places, leave, order, n)) for n in range(5)]
        await settle()
        assert (places.running, places.waiting, order) == (1, 4, [0])
        leave.set()
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4]
        assert (places.running, places.waiting) == (0, 0)

    asyncio.run(main())


def test_full_line_is_refused_with_a_time() -> None:
    """One more than may wait is refused, with numbers and a time to come back."""

    async def main() -> None:
        places, leave = room(max_waiting=1, max_wait_s=7), asyncio.Event()
        tasks = [asyncio.create_task(stay(places, leave)) for _ in range(2)]
        await settle()
        with pytest.raises(QueueFull) as caught:
            await stay(places, leave)
        assert caught.value.retry_after_s == 7  # nothing has left yet: by then the line has moved, or is gone
        assert "1 are running and 1 of at most 1" in caught.value.evidence
        leave.set()
        await asyncio.gather(*tasks)
        assert places.retry_after_s() == 1  # two left within this test

    asyncio.run(main())


def test_line_has_an_end() -> None:
    """Whoever waits too long is told so, and leaves no trace."""

    async def main() -> None:
        places, leave = room(max_wait_s=0.01), asyncio.Event()
        holder = asyncio.create_task(stay(places, leave))
        await settle()
        with pytest.raises(QueueTimeout):
            await stay(places, leave)
        assert (places.running, places.waiting) == (1, 0)
        leave.set()
        await holder

    asyncio.run(main())


def test_dismissed_waiters_hear_why() -> None:
    """When the deployment goes away its line is told so at once."""

    async def main() -> None:
        places, leave = room(max_running=0), asyncio.Event()
        waiter = asyncio.create_task(stay(places, leave))
        await settle()
        places.dismiss(NotReady("gone"))
        with pytest.raises(NotReady):
            await waiter

    asyncio.run(main())


MOVES = st.lists(
    st.one_of(
        st.just(("come", 0)),
        st.tuples(st.sampled_from(["leave", "hang up"]), st.integers(0, 30)),
        st.tuples(st.just("resize"), st.integers(0, 4)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(moves=MOVES)
def test_no_place_is_lost_or_doubled(moves: list[tuple[str, int]]) -> None:
    """Whatever comes, leaves, hangs up or is resized, running and waiting add up, and at the end nobody is left."""

    async def main() -> None:
        places, tasks = room(max_running=2, max_waiting=5), list[tuple[asyncio.Task[None], asyncio.Event]]()
        for move, n in moves:
            if move == "come":
                leave = asyncio.Event()
                tasks.append((asyncio.create_task(stay(places, leave)), leave))
            elif move == "resize":
                places.resize(max_running=n, max_waiting=5, max_wait_s=60)
            elif tasks:
                task, leave = tasks[n % len(tasks)]
                leave.set() if move == "leave" else task.cancel()
                if n % 2:
                    continue  # the next move comes before anybody has noticed this one
            await settle()
            assert places.waiting <= 5
            assert not places.waiting or places.running >= places.max_running
        places.resize(max_running=100, max_waiting=5, max_wait_s=60)
        for _, leave in tasks:
            leave.set()
        await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert (places.running, places.waiting) == (0, 0)

    asyncio.run(main())
