"""Which replica gets a request: the least work, kept prefixes, bounded load; and who is trusted, on a clock of ours."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from gateway_serving import deployed
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.openai.demand import PROMPT_BYTES, Demand, demand_of
from headrace.gateway.balancing import OVERLOAD, best
from headrace.gateway.expectation import START_OUTPUT_TOKENS, Expectation
from headrace.gateway.fleet import Assignment, Pool, Replica
from headrace.gateway.health import FAILURES, FIRST_EJECTION_S, FIRST_SHARE, LONGEST_EJECTION_S, SLOW_START_S, Health
from headrace.gateway.prefix_map import CUTS, PrefixMap, prefixes
from headrace.gateway.retry_budget import FLOOR_PER_S, SHARE, RetryBudget

CHAT = "/v1/chat/completions"


class Clock:
    """A clock that stands until it is told to go."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


def pool_of(count: int, clock: Callable[[], float], **more: int) -> Pool:
    """A pool of so many replicas, none of which is there."""
    route = deployed(*(f"unix:/nowhere/{number}" for number in range(count)), max_model_len=100_000, **more)
    pool = Pool(route, clock)
    pool.follow(route, tuple(Replica(one, connect_timeout_s=1) for one in route.replicas))
    return pool


def asked(prompt: str, max_tokens: int = 100) -> Demand:
    """What a request with this prompt asks."""
    return Demand(len(prompt), max_tokens, prompt.encode())


def assigned(pool: Pool, demand: Demand, but: tuple[Replica, ...] = ()) -> Assignment:
    """An assignment where there must be one."""
    assignment = pool.assign(demand, but=but)
    assert assignment is not None
    return assignment


def eject(replica: Replica, clock: Clock) -> None:
    """Make a replica fail until it is ejected."""
    for _ in range(FAILURES):
        replica.health.failed(clock.now)
    assert not replica.health.trusted


# --- health ---


def test_failures_in_a_row_eject_and_others_do_not() -> None:
    """An answer between failures forgives them; without one they eject, for a time in which nobody tries."""
    health = Health()
    for _ in range(5):
        for _ in range(FAILURES - 1):
            health.failed(1.0)
        assert health.trusted
        health.answered(1.0)
    for _ in range(FAILURES):
        health.failed(1.0)
    assert not health.trusted
    assert not health.due(1.0 + FIRST_EJECTION_S - 0.01)
    assert health.due(1.0 + FIRST_EJECTION_S)


def test_ejections_grow_to_their_longest() -> None:
    """Each trial that fails ejects for twice as long, up to the stated maximum; stragglers do not prolong it."""
    health, now, lasted = Health(), 0.0, []
    for _ in range(FAILURES):
        health.failed(now)
    for _ in range(10):
        health.failed(now)  # one that was sent before the ejection
        _, until = health.badness()
        lasted.append(until - now)
        now = until
        health.failed(now)
    assert lasted[:3] == [FIRST_EJECTION_S, 2 * FIRST_EJECTION_S, 4 * FIRST_EJECTION_S]
    assert lasted[-1] == max(lasted) == LONGEST_EJECTION_S


def test_one_trial_at_a_time() -> None:
    """While a request tries a replica no other does, and one that is called off lets the next one try."""
    clock = Clock()
    pool = pool_of(2, clock)
    eject(pool.replicas[0], clock)
    clock.now += FIRST_EJECTION_S
    trial = assigned(pool, asked("x"))
    assert (trial.replica, trial.on_trial) == (pool.replicas[0], True)
    others = [assigned(pool, asked("x")) for _ in range(5)]
    assert {other.replica for other in others} == {pool.replicas[1]}
    trial.release()
    assert assigned(pool, asked("x")).on_trial


def test_a_retry_is_no_trial() -> None:
    """A request that failed elsewhere goes to a replica that is trusted, not to one that is on trial."""
    clock = Clock()
    pool = pool_of(3, clock)
    eject(pool.replicas[0], clock)
    clock.now += FIRST_EJECTION_S
    assert assigned(pool, asked("x"), but=(pool.replicas[1],)).replica is pool.replicas[2]


def test_the_share_grows_after_a_return() -> None:
    """A replica that came back gets few requests at first, and as many as the others once its slow start is over."""
    clock = Clock()
    pool = pool_of(2, clock)
    back = pool.replicas[0]
    eject(back, clock)
    clock.now += FIRST_EJECTION_S
    trial = assigned(pool, asked("x"))
    trial.answered()
    trial.release()
    assert back.health.trusted
    assert back.health.share(clock.now) == FIRST_SHARE

    def shares() -> int:
        held = [assigned(pool, asked("x")) for _ in range(110)]
        got = sum(one.replica is back for one in held)
        for one in held:
            one.release()
        return got

    few = shares()
    assert 5 <= few <= 11  # a tenth of what the other gets
    clock.now += SLOW_START_S / 2
    assert few < shares() < 50
    clock.now += SLOW_START_S / 2
    assert shares() == 55


def test_trouble_in_the_slow_start_is_the_same_trouble() -> None:
    """A replica ejected again while its share still grows is out for longer; after that it begins anew."""
    health = Health()
    for lasts_s in (FIRST_EJECTION_S, 2 * FIRST_EJECTION_S):
        for _ in range(FAILURES):
            health.failed(0.0)
        assert health.badness()[1] == lasts_s
        health.answered(0.0)
    for _ in range(FAILURES):
        health.failed(SLOW_START_S + 1)
    assert health.badness()[1] == SLOW_START_S + 1 + FIRST_EJECTION_S


def test_silence_ejects_at_once() -> None:
    """One time-out of a replica that nobody has heard since is enough; where others are answered it is one failure."""
    clock = Clock()
    pool = pool_of(2, clock)
    for heard in (False, True):
        assignment = assigned(pool, asked("x"))
        clock.now += 120
        if heard:
            assignment.replica.health.answered(clock.now)
        assignment.timed_out()
        assert assignment.replica.health.trusted is heard
        assignment.release()
    [quiet] = [replica for replica in pool.replicas if replica.health.trusted]
    streaming = assigned(pool, asked("x"), but=tuple(one for one in pool.replicas if one is not quiet))
    streaming.answered()
    clock.now += 1
    late = assigned(pool, asked("x"), but=tuple(one for one in pool.replicas if one is not quiet))
    late.timed_out()
    assert quiet.health.trusted


def test_the_last_one_is_never_left_out() -> None:
    """When all are ejected the one that failed least is used: requests go on alternating, not nowhere."""
    clock = Clock()
    pool = pool_of(2, clock)
    for replica in pool.replicas:
        eject(replica, clock)
    used = []
    for _ in range(4):
        assignment = assigned(pool, asked("x"))
        used.append(assignment.replica)
        assignment.failed()
        assignment.release()
    assert Counter(used) == dict.fromkeys(pool.replicas, 2)
    alone = pool_of(1, clock)
    eject(alone.replicas[0], clock)
    assert assigned(alone, asked("x")).replica is alone.replicas[0]


# --- retries ---

BUDGET_MOVES = st.lists(st.one_of(st.just("earn"), st.just("spend"), st.floats(0, 5)), max_size=200)


@settings(deadline=None)
@given(moves=BUDGET_MOVES, burst=st.integers(0, 20))
def test_retries_stay_in_their_budget(moves: list[str | float], burst: int) -> None:
    """Whatever happens, retries are at most the burst, a tenth of the requests, and the floor for each second."""
    clock = Clock()
    budget, earned, began_at = RetryBudget(clock, burst), 0, clock.now
    for move in moves:
        if move == "earn":
            budget.earn()
            earned += 1
        elif move == "spend":
            budget.spend()
        else:
            clock.now += float(move)
        assert budget.spent <= burst + SHARE * earned + FLOOR_PER_S * (clock.now - began_at) + 1e-6


def test_a_crash_of_a_full_replica_is_covered() -> None:
    """All requests of one replica may move in the same moment."""
    pool = pool_of(2, Clock())
    assert all(pool.retries.spend() for _ in range(256))
    assert not pool.retries.spend()


# --- prefixes ---

PROMPTS = st.lists(st.text("ab", max_size=6), max_size=20)


def long(text: str) -> bytes:
    """A prompt with one block for each letter."""
    return "".join(letter * 256 for letter in text).encode()


@settings(deadline=None)
@given(seen=st.lists(st.tuples(st.text("ab", max_size=6), st.sampled_from("xyz")), max_size=20), asks=PROMPTS)
def test_what_a_holder_has_seen_is_told_exactly(seen: list[tuple[str, str]], asks: list[str]) -> None:
    """Of every prompt each holder has as many blocks as the longest beginning that it shares with one that it got."""
    prefix_map: PrefixMap[str] = PrefixMap()
    prefix_map.follow("xyz")
    for text, holder in seen:
        prefix_map.note(prefixes(long(text)), holder)
    for text in asks:
        expected = {}
        for holder in "xyz":
            shared = [_common(text, other) for other, by in seen if by == holder]
            if longest := max(shared, default=0):
                expected[holder] = longest * 256
        assert prefix_map.held_bytes(prefixes(long(text))) == expected


def _common(one: str, other: str) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@settings(deadline=None)
@given(texts=PROMPTS, capacity=st.integers(1, 10))
def test_memory_of_prefixes_is_bounded(texts: list[str], capacity: int) -> None:
    """However much is seen, no more than the capacity is remembered, and the newest prompt's beginning is among it."""
    prefix_map: PrefixMap[str] = PrefixMap(capacity)
    prefix_map.follow("x")
    for text in texts:
        prefix_map.note(prefixes(long(text)), "x")
        assert len(prefix_map) <= capacity
        assert prefix_map.held_bytes(prefixes(long(text))).get("x", 0) == min(len(text), capacity) * 256


def test_holders_come_and_go() -> None:
    """One that left holds nothing, in a thousand generations too, and newcomers begin with nothing."""
    prefix_map: PrefixMap[int] = PrefixMap()
    numbers = prefixes(long("abab"))
    for generation in range(1000):
        prefix_map.follow((generation, generation + 1))
        assert generation + 1 not in prefix_map.held_bytes(numbers)
        prefix_map.note(numbers, generation + 1)
        assert prefix_map.held_bytes(numbers)[generation + 1] == 1024
    prefix_map.follow(())
    assert prefix_map.held_bytes(numbers) == {}


def test_cuts_are_few() -> None:
    """However long a prompt is, it costs a bounded number of steps, and short ones are known in blocks of 256 bytes."""
    assert len(prefixes(b"x" * 10_000_000)) == len(CUTS) < 50
    assert CUTS[-1] <= PROMPT_BYTES
    assert prefixes(b"x" * 255) == []
    assert list(CUTS[:3]) == [256, 512, 768]
    assert all(later <= earlier * 9 / 8 + 256 for earlier, later in pairwise(CUTS))


# --- the choice ---

REPLICAS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 5_000)), min_size=1, max_size=8)


@settings(deadline=None)
@given(replicas=REPLICAS)
def test_bounded_load_holds(replicas: list[tuple[int, int]]) -> None:
    """What is chosen has the least load, or a cache and no more load than stated; of those the deepest cache."""
    loads, saved = [load for load, _ in replicas], [tokens for _, tokens in replicas]
    chosen = best(loads, saved)
    assert chosen
    for place in chosen:
        others = loads[:place] + loads[place + 1 :]
        bound = OVERLOAD * sum(others) / max(len(others), 1) + saved[place]
        assert loads[place] == min(loads) or (saved[place] and loads[place] <= bound)
    assert len({(loads[place], saved[place]) for place in chosen}) == 1 or not any(saved)
    if not any(saved):
        assert chosen == [place for place, load in enumerate(loads) if load == min(loads)]


def test_a_conversation_stays() -> None:
    """Turn after turn of a conversation goes to the same replica while nothing else is under way."""
    pool = pool_of(4, Clock())
    for conversation in range(8):
        text, used = f"{conversation}" * 300, set()
        for turn in range(10):
            assignment = assigned(pool, asked(text))
            used.add(assignment.replica)
            assignment.answered()
            assignment.release()
            text += f"{turn}" * 500
        assert len(used) == 1


def test_a_cache_is_left_when_it_is_overloaded() -> None:
    """Of many at once that share a short beginning no replica gets far more than the others."""
    pool = pool_of(4, Clock())
    held = [assigned(pool, asked("s" * 512 + f"{number:03}" * 200, max_tokens=200)) for number in range(100)]
    own, saved = 278 + 128, 128
    works = [replica.work for replica in pool.replicas]
    for work in works:
        assert work <= OVERLOAD * ((sum(works) - work) / 3 + own) + saved
    for assignment in held:
        assignment.release()
    assert [replica.work for replica in pool.replicas] == [0] * 4


def test_work_is_not_requests() -> None:
    """A long request weighs as much as several short ones; its prompt weighs nothing once its answer has begun."""
    pool = pool_of(2, Clock())
    large = assigned(pool, asked("x" * 200, max_tokens=100))
    small = [assigned(pool, Demand(40, 10)) for _ in range(4)]
    assert {one.replica for one in small}.isdisjoint({large.replica})
    before = large.replica.work
    large.answered()
    assert large.replica.work == before - 50
    assert large.replica.outstanding == large.replica.answering == 1
    large.release()
    assert (large.replica.work, large.replica.outstanding, large.replica.answering) == (0, 0, 0)


def test_no_replica_gets_more_than_it_takes() -> None:
    """A replica that has as many requests as it takes at a time gets no more while another has room, however idle."""
    pool = pool_of(2, Clock(), max_running=3)
    large = assigned(pool, asked("l" * 40_000))
    small = [assigned(pool, asked("s" * 300, max_tokens=1)) for _ in range(5)]
    assert sum(one.replica is large.replica for one in small) == 2
    assert {replica.outstanding for replica in pool.replicas} == {3}
    assert assigned(pool, asked("s" * 300, max_tokens=1)).replica in pool.replicas


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "retry", "answered", "failed", "timed out", "release", "wait", "replace"]),
        st.integers(0, 1000),
    ),
    max_size=80,
)


@settings(deadline=None)
@given(moves=MOVES, count=st.integers(1, 4))
def test_no_move_breaks_the_books(moves: list[tuple[str, int]], count: int) -> None:  # noqa: C901 - one branch a move
    """Whatever happens, nobody untrusted is used but on trial or in panic, and at the end nothing is charged."""
    clock = Clock()
    pool = pool_of(count, clock)
    held: list[Assignment] = []
    ever = set(pool.replicas)
    for move, number in moves:
        if move in ("ask", "retry"):
            but = (pool.replicas[number % count],) if move == "retry" else ()
            candidates = set(pool.replicas) - set(but)
            trusted = [one for one in candidates if one.health.trusted]
            assignment = pool.assign(asked("ab"[number % 2] * (number % 4) * 300), but=but)
            assert (assignment is None) == (not candidates)
            if assignment is not None:
                held.append(assignment)
                assert assignment.replica in candidates
                assert assignment.on_trial or not trusted or assignment.replica in trusted
        elif move == "wait":
            clock.now += number / 50
        elif move == "replace":
            route = deployed(*(f"unix:/elsewhere/{number}" for number in range(count)), max_model_len=100_000)
            new = Replica(route.replicas[0], connect_timeout_s=1)
            ever.add(new)
            pool.follow(route, (*pool.replicas[1:], new))
        elif held:
            assignment = held.pop(number % len(held))
            if move == "answered":
                assignment.answered()
            elif move == "failed":
                assignment.failed()
            elif move == "timed out":
                assignment.timed_out()
            assignment.release()
        trials = Counter(one.replica for one in held if one.on_trial)
        assert all(tries == 1 for tries in trials.values())
        for replica in ever:
            assert replica.work >= 0
            assert FIRST_SHARE <= replica.health.share(clock.now) <= 1
            assert replica.health.badness()[1] <= clock.now + LONGEST_EJECTION_S
    for assignment in held:
        assignment.release()
    assert all((one.work, one.outstanding, one.answering, one.health.on_trial) == (0, 0, 0, False) for one in ever)


# --- what requests come to ---


def test_expectations_follow_what_is_counted() -> None:
    """What engines count moves the means, and what a request asks caps what is expected of it."""
    expectation = Expectation()
    assert expectation.output(Demand(0, None)) == START_OUTPUT_TOKENS
    for _ in range(200):
        expectation.learn(size_bytes=2000, prompt_tokens=1000, output_tokens=80, answers=2)
    assert expectation.prompt(100, 1000) in (49, 50)
    assert expectation.prompt(10_000, 1000) == 1000
    assert expectation.output(Demand(0, None)) in (40, 41)
    assert expectation.output(Demand(0, 7)) == 7
    assert expectation.output(Demand(0, 0)) == 0


@pytest.mark.parametrize(
    ("fields", "max_tokens"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6, "max_tokens": 9}, 6),
        ({"max_tokens": None}, None),
        ({"max_tokens": "5"}, None),
        ({"max_tokens": 10**30}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": [1]}, None),
    ],
)
def test_a_request_is_read_for_its_cap(fields: dict[str, object], max_tokens: int | None) -> None:
    """The cap is read where it is one; anything else is the engine's to refuse, and no cap."""
    assert demand_of(CHAT, json.dumps({"messages": []} | fields).encode()).max_tokens == max_tokens


def test_a_conversation_begins_as_it_did() -> None:
    """The next turn's prompt begins with the last one's; tools come first; what generates nothing has no prompt."""
    messages = [{"role": "system", "content": "x" * 300}, {"role": "user", "content": "hi"}]
    first = demand_of(CHAT, json.dumps({"model": "m", "messages": messages}).encode())
    later = [*messages, {"role": "assistant", "content": "yes"}]
    second = demand_of(CHAT, json.dumps({"temperature": 0, "messages": later, "model": "m"}).encode())
    assert second.prompt.startswith(first.prompt[:-1])
    tools = demand_of(CHAT, json.dumps({"messages": messages, "tools": [{"type": "function"}]}).encode())
    assert tools.prompt == b'[{"type": "function"}]' + first.prompt
    assert demand_of("/v1/completions", b'{"prompt": "abc"}').prompt == b'"abc"'
    assert demand_of("/v1/embeddings", b'{"input": "abc"}') == Demand(16, 0)
    assert demand_of(CHAT, b"{") == Demand(1, None)
    alone = pool_of(1, Clock())
    assert alone.demand_of(CHAT, b'{"messages": []}') == Demand(16, None)  # nothing to choose: it is not read
