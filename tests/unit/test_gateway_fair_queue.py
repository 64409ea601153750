"""Fairness among keys: the virtual token counter, its order, its bound and its memory."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.openai.usage import Usage
from headrace.gateway.fair_queue import FIRST_OUTPUT_TOKENS, REMEMBERED_KEYS, FairQueue, Visit, cost

TOKENS = st.integers(0, 1000)


def visit(key_id: str, prompt_tokens: int = 0, **more: Any) -> Visit:
    """Somebody who would stand in line."""
    comes = Visit(key_id, prompt_tokens=prompt_tokens, **more)
    comes.turn = asyncio.get_running_loop().create_future()
    return comes


def over(queue: FairQueue, gone: Visit, prompt_tokens: int, output_tokens: int) -> None:
    """Leave, having used so much."""
    gone.used = Usage(prompt_tokens, output_tokens)
    queue.release(gone)


def test_who_had_least_goes_next() -> None:
    """A key with a long line does not keep another one waiting, and one that uses little goes more often."""

    async def main() -> None:
        queue, order = FairQueue(), ""
        for key_id in "aaaaaabbb":
            queue.join(visit(key_id))
        while (let_in := queue.next()) is not None:
            order += let_in.key_id
            over(queue, let_in, 0, {"a": 10, "b": 20}[let_in.key_id])
        assert order == "abaabaaba"

    asyncio.run(main())


def test_tokens_count_as_stated() -> None:
    """A prompt token counts one, an output token two; the estimate holds until the usage is told."""

    async def main() -> None:
        queue = FairQueue()
        first, second = visit("a", 100), visit("a", 100, generates=False)
        queue.enter(first)
        assert queue.served("a") == first.charged == 100 + 2 * FIRST_OUTPUT_TOKENS
        queue.enter(second)
        assert second.charged == 100
        before = queue.served("a") or 0
        over(queue, first, 30, 5)
        assert queue.served("a") == before - first.charged + 40

    asyncio.run(main())


def test_what_was_not_told_stays_estimated() -> None:
    """Where an answer tells nothing the estimate stands."""

    async def main() -> None:
        queue, stays, goes = FairQueue(), visit("a"), visit("a", 50)
        queue.enter(stays)
        queue.enter(goes)
        before = queue.served("a")
        queue.release(goes)
        assert queue.served("a") == before

    asyncio.run(main())


def test_the_estimate_follows_a_keys_answers() -> None:
    """A key whose answers are long is soon charged for long ones when it is let in."""

    async def main() -> None:
        queue, stays = FairQueue(), visit("a")
        queue.enter(stays)
        for _ in range(40):
            comes = visit("a", 10)
            queue.enter(comes)
            over(queue, comes, 10, 1000)
        last = visit("a", 10)
        queue.enter(last)
        assert cost(10, 990) <= last.charged <= cost(10, 1000)

    asyncio.run(main())


def test_absence_saves_nothing_up() -> None:
    """A key that was away begins where the others are: it goes next, and then takes turns."""

    async def main() -> None:
        queue, order = FairQueue(), ""
        for _ in range(50):
            queue.join(visit("busy"))
        for _ in range(40):
            let_in = queue.next()
            assert let_in is not None
            over(queue, let_in, 10, 10)
        for _ in range(10):
            queue.join(visit("back"))
        while (let_in := queue.next()) is not None:
            order += let_in.key_id[1]
            over(queue, let_in, 10, 10)
        assert order[:10] in ("uauauauaua", "auauauauau")

    asyncio.run(main())


STEPS = st.lists(st.tuples(TOKENS, TOKENS, TOKENS, st.integers(0, 100)), max_size=60)


@settings(deadline=None)
@given(steps=STEPS, max_running=st.integers(1, 5))
def test_the_bound_of_unfairness(steps: list[tuple[int, int, int, int]], max_running: int) -> None:
    """While two keys always have somebody in line, their counters differ by at most what runs at a time can bring: the
    number of places times the largest request, by estimate or in truth. What they were really served, twice that."""

    async def main() -> None:
        queue, running, real = FairQueue(), list[Visit](), {"a": 0, "b": 0}
        largest = 0
        for key_id in "aabb":
            queue.join(visit(key_id))
        for expected, prompt_tokens, output_tokens, which in steps:
            while len(running) < max_running:
                let_in = queue.next()
                assert let_in is not None
                running.append(let_in)
                queue.join(visit(let_in.key_id, expected))
                largest = max(largest, let_in.charged)
            gone = running.pop(which % len(running))
            used = cost(prompt_tokens, output_tokens)
            largest = max(largest, used)
            real[gone.key_id] += used
            over(queue, gone, prompt_tokens, output_tokens)
            served_a, served_b = queue.served("a"), queue.served("b")
            assert served_a is not None
            assert served_b is not None
            assert abs(served_a - served_b) <= max_running * largest
            assert abs(real["a"] - real["b"]) <= 2 * max_running * largest

    asyncio.run(main())


MOVES = st.lists(
    st.tuples(st.sampled_from(["join", "join", "next", "over", "hang up", "enter"]), st.integers(0, 100), TOKENS),
    max_size=80,
)


@settings(deadline=None)
@given(moves=MOVES)
def test_order_and_memory(moves: list[tuple[str, int, int]]) -> None:
    """Whatever happens, who goes next is the first of its key, of a key that had least; and only keys that are needed
    are remembered."""

    async def main() -> None:
        queue, line, running = FairQueue(), list[Visit](), list[Visit]()
        for move, n, tokens in moves:
            if move in ("join", "enter"):
                comes = visit("abcdef"[n % 6], tokens)
                (queue.join if move == "join" else queue.enter)(comes)
                (line if move == "join" else running).append(comes)
            elif move == "next" and line:
                served = {each.key_id: queue.served(each.key_id) for each in line}
                let_in = queue.next()
                assert let_in is not None
                assert served[let_in.key_id] == min(each for each in served.values() if each is not None)
                assert let_in is next(each for each in line if each.key_id == let_in.key_id)
                line.remove(let_in)
                running.append(let_in)
            elif move == "over" and running:
                over(queue, running.pop(n % len(running)), tokens, n)
            elif move == "hang up" and line:
                queue.leave(line.pop(n % len(line)))
            assert len(queue) == len(line)
            assert all(queue.held(key) == sum(each.key_id == key for each in line) for key in "abcdef")
            assert queue.keys <= 6
            assert running or line or not queue.keys

    asyncio.run(main())


def test_memory_is_bounded() -> None:
    """However many keys come and go while somebody is there, no more are remembered than is stated."""

    async def main() -> None:
        queue, stays = FairQueue(), visit("stays")
        queue.enter(stays)
        for n in range(2 * REMEMBERED_KEYS):
            comes = visit(f"key-{n}", n)
            queue.enter(comes)
            over(queue, comes, n, 10)
        assert queue.keys <= REMEMBERED_KEYS + 1
        queue.release(stays)
        assert queue.keys == 0

    asyncio.run(main())
