"""What a request meets when replicas are dead, dying or silent: another try, in time, and within bounds."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from gateway_serving import BASE, CHAT, Served, deployed, gateway_before, pieces_of

from headrace.contracts.openai.demand import Demand
from headrace.gateway.attempts import WORTH, Attempts, deadline_of, patience_of
from headrace.gateway.fleet import Pool, Replica
from headrace.gateway.health import FAILURES
from headrace.gateway.request_head import RequestHead
from headrace.gateway.upstream import TimedOut, Unreachable
from standin import Script, StandIn

PATH = f"{BASE}/chat/completions"


def pool_of(served: Served) -> Pool:
    """The one pool of a gateway."""
    return served.gateway._routing.fleet.pools["dep-d1"]


def replica_at(served: Served, engine: StandIn) -> Replica:
    """The gateway's view of an engine."""
    return next(one for one in pool_of(served).replicas if one.route.address == engine.address)


def reason(answer: httpx.Response) -> str:
    """The stable code of an error in Google's shape."""
    code: str = answer.json()["error"]["details"][0]["reason"]
    return code


async def engines(stack: AsyncExitStack, folder: Path, count: int, script: Script) -> list[StandIn]:
    """So many engines of one script."""
    started = [await stack.enter_async_context(StandIn(folder / f"e{number}")) for number in range(count)]
    for engine in started:
        engine.script = script
    return started


def test_a_dead_replica_is_left_alone(tmp_path: Path) -> None:
    """A replica that cannot be reached costs no client anything, is ejected after a few, and the metrics say both."""

    async def main() -> None:
        gone = f"unix:{tmp_path / 'gone'}"
        async with (
            StandIn(tmp_path / "e") as living,
            gateway_before(tmp_path, deployed(gone, living.address)) as served,
        ):
            for _ in range(64):
                assert (await served.client.post(PATH, json=CHAT)).is_success
            assert [one.health.trusted for one in pool_of(served).replicas] == [False, True]
            metrics = (await served.admin_get("/metrics")).text
            assert 'headrace_gateway_replicas_ejected{deployment="dep-d1"} 1.0' in metrics
            [retries] = re.findall(r'headrace_gateway_retries_total\{deployment="dep-d1"\} (\S+)', metrics)
            assert float(retries) >= FAILURES

    asyncio.run(main())


def test_a_silent_replica_is_noticed(tmp_path: Path) -> None:
    """One that takes a stream and never begins is ejected after the longest silence; a third is not tried after two."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            silent = await engines(stack, tmp_path, 4, Script(hang=True))
            model = deployed(*(engine.address for engine in silent))
            served = await stack.enter_async_context(gateway_before(tmp_path, model, first_byte_timeout_s=0.3))
            answer = await served.client.post(PATH, json=CHAT | {"stream": True})
            assert (answer.status_code, reason(answer)) == (504, "ENGINE_TIMEOUT")
            assert sorted(engine.seen.began for engine in silent) == [0, 0, 1, 1]
            assert [one.health.trusted for one in pool_of(served).replicas] == [not one.seen.began for one in silent]

    asyncio.run(main())


def test_a_stream_leaves_a_silent_replica_for_one_that_answers(tmp_path: Path) -> None:
    """Its client sees the whole answer, the replica is ejected, and one retry is spent."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            silent, living = await engines(stack, tmp_path, 2, Script(hang=True))
            model = deployed(silent.address, living.address)
            served = await stack.enter_async_context(gateway_before(tmp_path, model, first_byte_timeout_s=0.3))
            living.script = Script()
            while replica_at(served, silent).health.trusted:
                answer = await served.client.post(PATH, json=CHAT | {"stream": True})
                assert answer.text.endswith("data: [DONE]\n\n")
            assert silent.seen.began == pool_of(served).retries.spent == 1

    asyncio.run(main())


def test_a_silent_replica_holds_nobody_else_up(tmp_path: Path) -> None:
    """While one replica keeps a request without a word, the others' requests are answered."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            silent, living = await engines(stack, tmp_path, 2, Script())
            silent.script = Script(hang=True)
            model = deployed(silent.address, living.address)
            served = await stack.enter_async_context(gateway_before(tmp_path, model))
            asking = []
            while not silent.seen.began:
                asking.append(asyncio.create_task(served.client.post(PATH, json=CHAT)))
                caught = asyncio.create_task(silent.until(began=1))
                await asyncio.wait((asking[-1], caught), return_when=asyncio.FIRST_COMPLETED)
                caught.cancel()
            for _ in range(20):
                assert (await served.client.post(PATH, json=CHAT)).is_success
            assert silent.seen.began == 1
            asking[-1].cancel()

    asyncio.run(main())


def test_what_breaks_two_replicas_gets_no_third(tmp_path: Path) -> None:
    """A request on which two replicas broke off is answered with an error, however many are left."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            dying = await engines(stack, tmp_path, 4, Script(die_after=0))
            model = deployed(*(engine.address for engine in dying))
            served = await stack.enter_async_context(gateway_before(tmp_path, model))
            answer = await served.client.post(PATH, json=CHAT)
            assert reason(answer) == "ENGINE_UNREACHABLE"
            assert sorted(engine.seen.began for engine in dying) == [0, 0, 1, 1]

    asyncio.run(main())


def test_the_one_that_lives_is_found(tmp_path: Path) -> None:
    """Replicas that cannot be reached have not begun on anything: a request goes on until it comes to one that can."""

    async def main() -> None:
        gone = [f"unix:{tmp_path / f'gone{number}'}" for number in range(3)]
        async with (
            StandIn(tmp_path / "e") as living,
            gateway_before(tmp_path, deployed(*gone, living.address)) as served,
        ):
            for _ in range(16):
                assert (await served.client.post(PATH, json=CHAT)).is_success

    asyncio.run(main())


def test_an_engine_that_cannot_now_is_passed_over(tmp_path: Path) -> None:
    """503 of one replica is hidden by another; where all say so it is passed on, and a 400 is never tried again."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            ending, living = await engines(stack, tmp_path, 2, Script(refuse=503))
            living.script = Script()
            model = deployed(ending.address, living.address)
            served = await stack.enter_async_context(gateway_before(tmp_path, model))
            for _ in range(32):
                assert (await served.client.post(PATH, json=CHAT)).is_success
            assert ending.seen.began > 0
            living.script = Script(refuse=503)
            both = ending.seen.began + living.seen.began
            assert reason(await served.client.post(PATH, json=CHAT)) == "ENGINE_FAILED"
            assert ending.seen.began + living.seen.began == both + 2
            ending.script = living.script = Script(refuse=400)
            assert (await served.client.post(PATH, json=CHAT)).status_code == 400
            assert ending.seen.began + living.seen.began == both + 3

    asyncio.run(main())


def test_no_retry_without_budget(tmp_path: Path) -> None:
    """Where the pool's retries are spent, the first failure is the answer."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            dying = await engines(stack, tmp_path, 2, Script(die_after=0))
            model = deployed(*(engine.address for engine in dying))
            served = await stack.enter_async_context(gateway_before(tmp_path, model))
            pool_of(served).retries.burst = 0
            assert (await served.client.post(PATH, json=CHAT)).status_code == 503
            assert sum(engine.seen.began for engine in dying) == 1

    asyncio.run(main())


def test_a_replica_that_breaks_off_is_counted(tmp_path: Path) -> None:
    """An answer that breaks off in its middle is a failure of its replica, though its beginning was a good sign."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(chunks=3, die_after=2)
            async with served.client.stream("POST", PATH, json=CHAT | {"stream": True}) as answer:
                assert not (await pieces_of(answer))[1]
            replica = replica_at(served, engine)
            assert await served.gateway.drain(10) == 0
            assert (replica.health.failures, replica.outstanding, replica.work) == (1, 0, 0)

    asyncio.run(main())


def test_trace_context_comes_through_a_retry(tmp_path: Path) -> None:
    """Request id and W3C trace context reach each replica that is tried, unchanged, and the id comes back."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            both = await engines(stack, tmp_path, 2, Script(die_after=0))
            model = deployed(*(engine.address for engine in both))
            served = await stack.enter_async_context(gateway_before(tmp_path, model))
            context = {
                "x-request-id": "mine",
                "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "tracestate": "congo=t61rcWkgMzE",
            }
            answer = await served.client.post(PATH, json=CHAT, headers=context)
            assert answer.headers["x-request-id"] == "mine"
            for engine in both:
                [seen] = engine.seen.headers
                assert seen.items() >= context.items()

    asyncio.run(main())


@pytest.mark.parametrize("header", ["x-stainless-read-timeout", "x-server-timeout"])
def test_a_clients_deadline_is_kept(tmp_path: Path, header: str) -> None:
    """A request ends when its client said that it would give up, and no replica is blamed for that."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(hang=True)
            late = await served.client.post(PATH, json=CHAT, headers={header: "0.3"})
            assert (late.status_code, reason(late)) == (504, "CLIENT_TIMEOUT")
            assert replica_at(served, engine).health.failures == 0
            connections = engine.seen.connections
            over = await served.client.post(PATH, json=CHAT, headers={header: "0.000001"})
            assert (over.status_code, reason(over)) == (504, "CLIENT_TIMEOUT")
            assert engine.seen.connections == connections  # it was over before an engine could have it

    asyncio.run(main())


@pytest.mark.parametrize(
    ("headers", "patience_s"),
    [
        ([], None),
        ([(b"x-stainless-read-timeout", b"600.0")], 600.0),
        ([(b"x-stainless-timeout", b"5")], 6.0),
        ([(b"x-server-timeout", b"30"), (b"x-stainless-read-timeout", b"20")], 20.0),
        ([(b"x-server-timeout", b"0")], None),
        ([(b"x-server-timeout", b"-1")], None),
        ([(b"x-server-timeout", b"nan")], None),
        ([(b"x-server-timeout", b"inf")], None),
        ([(b"x-server-timeout", b"\xff")], None),
    ],
)
def test_what_clients_say_of_their_patience(headers: list[tuple[bytes, bytes]], patience_s: float | None) -> None:
    """The shortest that a client says is what it waits; nonsense is as if nothing were said."""
    head = RequestHead(method="POST", target=b"/", query=b"", headers=headers, client="", scheme="http")
    assert patience_of(head) == patience_s


def test_a_trial_leaves_time_for_another() -> None:
    """A replica on trial gets half of the time that is left, and its silence does not use up the request."""
    route = deployed("unix:/nowhere/0", "unix:/nowhere/1")
    pool = Pool(route, lambda: 1000.0)
    pool.follow(route, tuple(Replica(one, connect_timeout_s=1) for one in route.replicas))
    tried = pool.replicas[0]
    for _ in range(FAILURES):
        tried.health.failed(0.0)
    attempts = Attempts(pool, Demand(10, 10), deadline_of(0.0, 100.0, None))
    first = attempts.choose()
    assert first is not None
    assert (first.replica, first.on_trial) == (tried, True)
    assert attempts.timeout_s(first) <= 50.0
    assert attempts.goes_on_after(first, TimedOut("late"), patient=False)
    first.release()
    assert not tried.health.due(1000.0)
    second = attempts.choose()
    assert second is not None
    assert second.replica is pool.replicas[1]
    assert attempts.timeout_s(second) > 50.0
    assert not attempts.goes_on_after(second, TimedOut("late"), patient=True)


def pool_before(*addresses: str, clock: Callable[[], float]) -> Pool:
    """A pool of replicas that nobody reaches."""
    route = deployed(*addresses)
    pool = Pool(route, clock)
    pool.follow(route, tuple(Replica(one, connect_timeout_s=1) for one in route.replicas))
    return pool


def test_after_a_silence_another_is_asked_if_it_is_worth_it() -> None:
    """Where a silent replica leaves enough of the request's time another one gets it, out of the retry budget."""
    for left_s, burst, goes_on in ((80.0, 1.0, True), (80.0, 0.0, False), (100.0 * WORTH - 1, 1.0, False)):
        pool = pool_before("unix:/nowhere/0", "unix:/nowhere/1", clock=lambda: 1000.0)
        pool.retries.burst = burst
        attempts = Attempts(pool, Demand(10, 10), deadline_of(0.0, left_s, None), silence_s=100.0)
        silent = attempts.choose()
        assert silent is not None
        assert attempts.goes_on_after(silent, TimedOut("late"), patient=True) is goes_on
        assert (silent.replica.health.trusted, pool.retries.spent) == (False, goes_on)


def test_of_a_late_and_a_dead_replica_the_late_one_is_told() -> None:
    """It may have begun, and what a key is charged goes by that."""
    pool = pool_before("unix:/nowhere/0", "unix:/nowhere/1", clock=lambda: 1000.0)
    attempts = Attempts(pool, Demand(10, 10), deadline_of(0.0, 100.0, None), silence_s=10.0)
    ends = TimedOut("late"), Unreachable("gone")
    goes_on = []
    for end in ends:
        assigned = attempts.choose()
        assert assigned is not None
        goes_on.append(attempts.goes_on_after(assigned, end, patient=True))
    assert goes_on == [True, False]
    told = attempts.told(ends[1])
    assert (type(told), str(told)) == (TimedOut, "late")
    assert attempts.was_late


def test_a_replica_that_answered_until_now_is_not_silent(tmp_path: Path) -> None:
    """Its silence begins at the end of what it answered last, and not at the beginning."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(gated=True)
            asking = asyncio.create_task(served.client.post(PATH, json=CHAT | {"stream": True}))
            await engine.until(began=1)
            engine.gate.release()
            health = replica_at(served, engine).health
            async with asyncio.timeout(20):
                while health.heard_at < 0.0:  # noqa: ASYNC110 - it has no event for that
                    await asyncio.sleep(0)
            began_at = health.heard_at
            for _ in range(2):
                engine.gate.release()
            assert (await asking).status_code == 200
            assert health.heard_at > began_at

    asyncio.run(main())


def test_a_busy_replica_is_not_blamed_for_impatient_clients() -> None:
    """However many give up together on one that answers somebody else, it stays trusted; on a silent one they count."""
    now = 1000.0
    pool = pool_before("unix:/nowhere/0", clock=lambda: now)
    busy = pool.assign(Demand(10, 10))
    assert busy is not None
    busy.answered()

    def give_up() -> None:
        attempts = Attempts(pool, Demand(10, 10), deadline_of(time.monotonic(), 600.0, 130.0), silence_s=120.0)
        assigned = attempts.choose()
        assert assigned is not None
        assert not attempts.goes_on_after(assigned, TimedOut("130 s"), patient=True)
        assigned.release()

    for _ in range(2 * FAILURES):
        give_up()
    assert (busy.replica.health.trusted, busy.replica.health.failures) == (True, 0)
    busy.release()
    now += 130.0
    give_up()
    assert not busy.replica.health.trusted


def test_who_works_for_others_is_waited_for() -> None:
    """A replica that answers somebody has until the deadline, one that says nothing to anybody as long as silence may
    last since it did; one on trial gets no more time."""
    now = 1000.0
    pool = pool_before("unix:/nowhere/0", clock=lambda: now)
    attempts = Attempts(pool, Demand(10, 10), deadline_of(0.0, 100.0, None), silence_s=10.0)
    other, assigned = attempts.choose(), attempts.choose()
    assert other is not None
    assert assigned is not None
    assert attempts.timeout_s(assigned) == 10.0
    assert attempts.more_s(assigned) == 0.0
    other.answered()
    assert attempts.more_s(assigned) == 10.0
    other.release()
    now += 9.0
    assert attempts.more_s(assigned) == 1.0
    now += 1.0
    assert attempts.more_s(assigned) == 0.0
    other = attempts.choose()
    assert other is not None
    other.answered()
    assigned.on_trial = True
    assert attempts.more_s(assigned) == 0.0


def test_a_conversation_stays_with_its_engine(tmp_path: Path) -> None:
    """Requests that begin alike reach one engine, others are spread; and the pool learns what they come to."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            both = await engines(stack, tmp_path, 2, Script())
            model = deployed(*(engine.address for engine in both))
            served = await stack.enter_async_context(gateway_before(tmp_path, model))
            messages = [{"role": "system", "content": "Be brief. " * 100}]
            for turn in range(10):
                messages.append({"role": "user", "content": f"Turn {turn}"})
                assert (await served.client.post(PATH, json={"messages": messages})).is_success
            assert sorted(engine.seen.answered for engine in both) == [0, 10]
            assert pool_of(served).expectation.output_tokens < 128 / 8
            for _ in range(64):
                assert (await served.client.post(PATH, json=CHAT)).is_success
            assert min(engine.seen.answered for engine in both) > 0

    asyncio.run(main())
