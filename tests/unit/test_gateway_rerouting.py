"""A model is undeployed while requests wait for it: another of the endpoint answers them, once, and in its own name."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_serving import BASE, CHAT, KEY, KEYS, Served, deployed, gateway_before, key, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from test_gateway_heartbeat import OFTEN_S, comments
from test_gateway_key_limits import ask, code, left
from test_gateway_usage import written
from test_gateway_zero import NAME, URL, asleep, until

from headrace.gateway.heartbeat import COMMENT
from headrace.resources.errors import Failure
from headrace.resources.limits import KeyLimits
from headrace.resources.snapshot import DeployedRoute
from standin import Script, StandIn

DEPLOYED = "x-vertex-ai-deployed-model-id"


def second(engine: StandIn, **more: Any) -> DeployedRoute:
    """Another deployed model of the endpoint, of a later version, that gets no traffic yet."""
    fields: dict[str, Any] = {"name": "d2", "traffic": 0, "model_version": "2", "served_name": "second"}
    return deployed(engine.address, **(fields | more))


async def wait_in_line(served: Served, count: int, url: str = URL, **more: Any) -> list[asyncio.Task[httpx.Response]]:
    """So many requests, every other one a stream, that wait for the first deployed model."""
    bodies = [CHAT | {"stream": number % 2 == 0} | more for number in range(count)]
    asked = [asyncio.create_task(served.client.post(url, json=body)) for body in bodies]
    await until(served, lambda told: told["waiting"] == {NAME: count})
    return asked


def test_who_waits_is_answered_by_what_is_left(tmp_path: Path) -> None:
    """All that wait, by the other's engine, asked in its own words; answers and records name the version that gave
    them, and what ran already goes on where it was."""

    async def main() -> None:
        async with StandIn(tmp_path / "e1") as old, StandIn(tmp_path / "e2") as new:
            old.script = Script(gated=True)
            other = second(new)
            async with gateway_before(tmp_path, deployed(old.address, max_running=1), other) as served:
                running = asyncio.create_task(served.client.post(URL, json=CHAT))
                await old.until(began=1)
                waiting = await wait_in_line(served, 30)
                await served.push(snapshot(replace(other, traffic=100), generation=2))
                answers = await asyncio.gather(*waiting)
                assert {answer.status_code for answer in answers} == {200}
                assert {answer.headers[DEPLOYED] for answer in answers} == {"d2"}
                assert {answer.headers["x-vertex-ai-model-id"] for answer in answers} == {"m-d2"}
                streams = [answer.content for answer in answers[::2]]
                assert all(body.endswith(b"data: [DONE]\n\n") and b"usage" not in body for body in streams)
                old.gate.release()
                assert (await running).headers[DEPLOYED] == "d1"
                await until(served, lambda told: told["outstanding"] == told["waiting"] == {})
            assert (old.seen.began, new.seen.began) == (1, 30)
            assert {body["model"] for body in new.seen.bodies} == {"second"}
        found = written(tmp_path / "usage")
        assert len({one.request_id for one in found}) == 31
        told = Counter((one.deployed_model_id, one.model_version, one.finished, one.inexact) for one in found)
        assert told == {("d1", "1", True, False): 1, ("d2", "2", True, False): 30}

    asyncio.run(main())


def test_the_split_that_is_left_decides(tmp_path: Path) -> None:
    """Among several others each gets its share of those that waited."""

    async def main() -> None:
        async with StandIn(tmp_path / "e2") as most, StandIn(tmp_path / "e3") as few:
            async with gateway_before(tmp_path, asleep()) as served:
                waiting = await wait_in_line(served, 40)
                others = (second(most, traffic=75), second(few, name="d3", traffic=25))
                await served.push(snapshot(*others, generation=2))
                assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
            assert (most.seen.answered, few.seen.answered) == (30, 10)

    asyncio.run(main())


def test_who_named_a_deployed_model_is_told(tmp_path: Path) -> None:
    """A request for one deployed model is not answered by another."""

    async def main() -> None:
        async with StandIn(tmp_path / "e2") as new, gateway_before(tmp_path, asleep()) as served:
            [asked] = await wait_in_line(served, 1, f"{BASE}/deployedModels/d1/invoke/chat/completions")
            await served.push(snapshot(second(new, traffic=100), generation=2))
            answer = await asked
            assert (answer.status_code, "was undeployed while the request waited" in answer.text) == (503, True)
            assert new.seen.began == 0

    asyncio.run(main())


@pytest.mark.parametrize("left_over", [[], [deployed(name="d2", why_not_ready="It starts.")]])
def test_where_nothing_is_left_they_are_told(tmp_path: Path, left_over: list[DeployedRoute]) -> None:
    """Nothing else is deployed, or nothing else that answers: the error is of what they waited for."""

    async def main() -> None:
        async with gateway_before(tmp_path, asleep()) as served:
            [asked] = await wait_in_line(served, 1)
            await served.push(snapshot(*left_over, generation=2))
            answer = await asked
            assert (answer.status_code, "was undeployed while the request waited" in answer.text) == (503, True)
        assert written(tmp_path / "usage") == []

    asyncio.run(main())


def test_what_failed_for_good_hands_over_too(tmp_path: Path) -> None:
    """Where one deployed model fails, those that wait for it go to one that answers."""

    async def main() -> None:
        async with StandIn(tmp_path / "e2") as new, gateway_before(tmp_path, asleep(), second(new)) as served:
            waiting = await wait_in_line(served, 4)
            failed = deployed(failure=Failure(code="ENGINE_DIED", message="It died."))
            await served.push(snapshot(failed, second(new, traffic=1), generation=2))
            assert {answer.headers[DEPLOYED] for answer in await asyncio.gather(*waiting)} == {"d2"}

    asyncio.run(main())


def test_what_may_still_answer_is_waited_for(tmp_path: Path) -> None:
    """An engine that does not wake in time is an error, as the split has chosen it: nobody else is asked."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e2") as new,
            gateway_before(tmp_path, asleep(max_wake_s=0.05), second(new)) as served,
        ):
            answer = await served.client.post(URL, json=CHAT)
            assert (answer.status_code, "waited 0.05 s for a replica" in answer.text) == (503, True)
            assert new.seen.began == 0

    asyncio.run(main())


def test_a_stream_that_got_comments_goes_on(tmp_path: Path) -> None:
    """Its answer has begun by comments; the other model's events follow, whole, and without the usage not asked for."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e2") as new,
            gateway_before(tmp_path, asleep(), heartbeat_s=OFTEN_S) as served,
            served.client.stream("POST", URL, json=CHAT | {"stream": True}) as answer,
        ):
            pieces = answer.aiter_raw()
            await comments(pieces, 2)
            await served.push(snapshot(second(new, traffic=100), generation=2))
            rest = b"".join([piece async for piece in pieces]).replace(COMMENT, b"")
            assert (rest.count(b'"tok "'), b"usage" in rest, rest.endswith(b"data: [DONE]\n\n")) == (3, False, True)

    asyncio.run(main())


def limited(*models: DeployedRoute, generation: int, **limits: int) -> Any:
    """A snapshot in which `KEY` has these limits."""
    return snapshot(*models, generation=generation, keys=(replace(key(KEY), limits=KeyLimits(**limits)), *KEYS[1:]))


@pytest.mark.parametrize(("limit", "status", "used"), [(100, 200, 10), (50, 429, 0)])
def test_a_key_is_held_to_its_limit_by_the_other_model(tmp_path: Path, limit: int, status: int, used: int) -> None:
    """The request is counted once and its reservation kept; where the other's context lets it write more, more is
    reserved, or it is refused with the numbers."""

    async def main() -> None:
        async with StandIn(tmp_path / "e2") as new, gateway_before(tmp_path, asleep()) as served:
            limits = {"tokens_per_minute": limit, "requests_per_minute": 5}
            await served.push(limited(asleep(max_model_len=32), generation=2, **limits))
            [asked] = await wait_in_line(served, 1)  # asleep, it reserved all of its 32 tokens
            await served.push(limited(second(new, traffic=100, max_model_len=64), generation=3, **limits))
            answer = await asked
            assert answer.status_code == status
            if status == 429:
                assert (code(answer), "needs 64" in answer.text) == ("KEY_LIMIT_TOO_SMALL", True)
                assert answer.headers["x-should-retry"] == "false"
            later = await ask(served)
            assert (left(later), left(later, "requests")) == (limit - used - 10, 3)

    asyncio.run(main())


def test_what_is_undeployed_while_a_prompt_is_counted_is_no_error(tmp_path: Path) -> None:
    """The engine that is asked how long the prompt is loses its deployment before it says so: the other answers."""

    async def main() -> None:
        asked, may_tell = asyncio.Event(), asyncio.Event()

        async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"POST /tokenize ")
            asked.set()
            await may_tell.wait()
            writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{"count":7}')
            await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(counting, str(tmp_path / "e1"))
        first = deployed(f"unix:{tmp_path / 'e1'}")
        async with server, StandIn(tmp_path / "e2") as new, gateway_before(tmp_path, first) as served:
            await served.push(limited(first, generation=2, tokens_per_minute=100))
            asking = asyncio.create_task(ask(served))
            await asked.wait()
            await served.push(limited(second(new, traffic=100), generation=3, tokens_per_minute=100))
            may_tell.set()
            answer = await asking
            assert (answer.status_code, answer.headers[DEPLOYED]) == (200, "d2")
            assert left(await ask(served)) == 80

    asyncio.run(main())


MODELS = ("d1", "d2", "d3")
DEPLOYMENTS = st.sets(st.sampled_from(MODELS), min_size=1).map(sorted)
STEPS = st.lists(st.sampled_from(["ask", "ask", "ask", "answer"]) | DEPLOYMENTS, max_size=30)


@settings(deadline=None, max_examples=25)
@given(steps=STEPS)
def test_nothing_is_lost_and_nothing_asked_twice(steps: list[str | list[str]]) -> None:
    """As long as anything is deployed every request is answered, by one engine once, and metered as that one's."""
    with tempfile.TemporaryDirectory(prefix="hr-") as folder:
        asyncio.run(_play(Path(folder), steps))


async def _play(folder: Path, steps: list[str | list[str]]) -> None:
    async with AsyncExitStack() as stack:
        engines = {name: await stack.enter_async_context(StandIn(folder / name)) for name in MODELS}
        for engine in engines.values():
            engine.script = Script(chunks=2, gated=True)
        models = {name: deployed(engine.address, name=name, max_running=1) for name, engine in engines.items()}
        served = await stack.enter_async_context(gateway_before(folder, *models.values()))
        asked: list[asyncio.Task[httpx.Response]] = []
        for generation, step in enumerate(steps, 2):
            if step == "ask":
                body, headers = CHAT | {"stream": len(asked) % 2 == 0}, {"x-request-id": str(len(asked))}
                asked.append(asyncio.create_task(served.client.post(URL, json=body, headers=headers)))
            elif step == "answer":
                for engine in engines.values():
                    engine.gate.release()
            else:
                left_over = tuple(models[name] for name in step)
                assert (await served.push(snapshot(*left_over, generation=generation))).is_success
        for engine in engines.values():
            for _ in range(2 * len(asked)):
                engine.gate.release()
        answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} <= {200}
        await until(served, lambda told: told["outstanding"] == told["waiting"] == {})
        by = {str(number): answer.headers[DEPLOYED] for number, answer in enumerate(answers)}
        saw = [(head["x-request-id"], name) for name, engine in engines.items() for head in engine.seen.headers]
        assert sorted(saw) == sorted(by.items())
        metered = [(one.request_id, one.deployed_model_id) for one in written(folder / "usage")]
        assert sorted(metered) == sorted(by.items())
