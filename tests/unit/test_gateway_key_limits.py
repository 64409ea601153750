"""Keys with limits at the gateway: never a token more, honest refusals, and what breaks off is not given away."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from gateway_serving import BASE, CHAT, CONTENTS, KEY, OTHER_KEY, Served, deployed, gateway_before, key, snapshot
from test_gateway_external import routed

from headrace.gateway.notes import STALE_AFTER_S
from headrace.resources.limits import KeyLimits
from headrace.resources.snapshot import DeployedRoute, RoutingSnapshot
from standin import Script, StandIn

URL = f"{BASE}/chat/completions"
FIVE_TOKENS = {"generationConfig": {"maxOutputTokens": 5}}
PROMPT, CHUNKS = 7, 3
"""Tokens of any prompt at the stand-in, and of its answers."""


def limited(model: DeployedRoute, generation: int = 2, **limits: int) -> RoutingSnapshot:
    """A snapshot in which `KEY` has these limits, and `OTHER_KEY` none."""
    one = msgspec.structs.replace(key(KEY), limits=KeyLimits(**limits))
    return snapshot(model, generation=generation, keys=(one, key(OTHER_KEY)))


@asynccontextmanager
async def limiting(folder: Path, **limits: int) -> AsyncIterator[tuple[Served, StandIn]]:
    """A gateway at which `KEY` has these limits, and its engine."""
    async with StandIn(folder / "e") as engine, gateway_before(folder, deployed(engine.address)) as served:
        assert (await served.push(limited(deployed(engine.address), **limits))).status_code == 200
        yield served, engine


async def ask(served: Served, max_tokens: int | None = CHUNKS, path: str = URL, **body: Any) -> httpx.Response:
    """Ask for an answer of so many tokens."""
    cap = {} if max_tokens is None else {"max_tokens": max_tokens}
    return await served.client.post(path, json=(body or CHAT) | cap)


def code(answer: httpx.Response) -> str:
    """The stable code in either shape of errors."""
    error = answer.json()["error"]
    found: str = error["details"][0]["reason"] if "details" in error else error["code"]
    return found


def left(answer: httpx.Response, unit: str = "tokens") -> int:
    """What the answer says is left of a limit."""
    return int(answer.headers[f"x-ratelimit-remaining-{unit}"])


def test_fifty_callers_get_a_hundred_tokens(tmp_path: Path) -> None:
    """100 tokens per minute, 50 parallel callers, 10 tokens each: ten are answered, and never the 101st token made."""

    async def main() -> None:
        async with limiting(tmp_path, tokens_per_minute=100) as (served, engine):
            answers = await asyncio.gather(*(ask(served) for _ in range(50)))
            assert Counter(answer.status_code for answer in answers) == {200: 10, 429: 40}
            used = [answer.json()["usage"]["total_tokens"] for answer in answers if answer.status_code == 200]
            assert sum(used) == 100
            assert sum("max_tokens" in body for body in engine.seen.bodies) == 10
            assert {code(answer) for answer in answers if answer.status_code == 429} == {"KEY_LIMIT_REACHED"}

    asyncio.run(main())


def test_what_an_answer_did_not_use_is_there_for_the_next(tmp_path: Path) -> None:
    """A cap of 83 reserves 90 tokens; the engine counts 10; the refusal that comes then tells all the numbers."""

    async def main() -> None:
        async with limiting(tmp_path, tokens_per_minute=100) as (served, _):
            assert [left(await ask(served, 83)) for _ in range(2)] == [10, 0]
            refused = await ask(served, 83)
            assert (refused.status_code, code(refused)) == (429, "KEY_LIMIT_REACHED")
            assert 1 <= int(refused.headers["retry-after"]) <= 61
            message = refused.json()["error"]["message"]
            for told in ("limit of 100 tokens", "20 were used", "0 are reserved", "at least 84", "It fits in"):
                assert told in message, message
            assert refused.headers["x-ratelimit-limit-tokens"] == "100"
            assert left(refused) == 80
            assert refused.headers["x-ratelimit-reset-tokens"].endswith("s")
            assert "x-ratelimit-limit-requests" not in refused.headers

    asyncio.run(main())


def test_what_never_fits_is_told_at_once(tmp_path: Path) -> None:
    """With the numbers, without a time, and so that clients do not try again; no engine hears of it."""

    async def main() -> None:
        async with limiting(tmp_path, tokens_per_minute=100) as (served, engine):
            for refused in (await ask(served, 200), await ask(served, None)):
                assert (refused.status_code, code(refused)) == (429, "KEY_LIMIT_TOO_SMALL")
                assert "retry-after" not in refused.headers
                assert refused.headers["x-should-retry"] == "false"
                assert left(refused) == 100
            assert engine.seen.began == 0

    asyncio.run(main())


@pytest.mark.parametrize("path", [URL, f"{BASE}:predict"])
def test_a_mistake_is_named_before_it_is_counted(tmp_path: Path, path: str) -> None:
    """A cap of the wrong type is the caller's 400, also where the key has no room for anything."""

    async def main() -> None:
        async with limiting(tmp_path, tokens_per_minute=1) as (served, engine):
            wrong = CHAT | {"max_tokens": "x"}
            refused = await served.client.post(path, json=wrong if path == URL else {"instances": [wrong]})
            assert (refused.status_code, code(refused)) == (400, "BAD_FIELD")
            assert left(await ask(served)) == 1
            assert engine.seen.began == 0

    asyncio.run(main())


def test_requests_are_limited_too(tmp_path: Path) -> None:
    """The third of two is refused; nobody counts prompts for a key without a limit of tokens."""

    async def main() -> None:
        async with limiting(tmp_path, requests_per_minute=2) as (served, engine):
            assert [left(await ask(served, None), "requests") for _ in range(2)] == [1, 0]
            refused = await ask(served, None)
            assert (refused.status_code, code(refused)) == (429, "KEY_LIMIT_REACHED")
            assert "limit of 2 requests per minute" in refused.json()["error"]["message"]
            assert "x-ratelimit-limit-tokens" not in refused.headers
            assert engine.seen.began == 2

    asyncio.run(main())


def test_a_key_without_limits_is_not_held_up(tmp_path: Path) -> None:
    """Another key has its own limits, or none: nothing is counted for it, and its answers say nothing of limits."""

    async def main() -> None:
        async with limiting(tmp_path, tokens_per_minute=1) as (served, engine):
            assert code(await ask(served)) == "KEY_LIMIT_TOO_SMALL"
            served.client.headers["authorization"] = f"Bearer {OTHER_KEY}"
            answer = await ask(served)
            assert answer.status_code == 200
            assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
            assert engine.seen.began == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "body", "reserved", "used"),
    [
        (URL, CHAT | {"n": 3}, PROMPT + 3 * 5, 10),
        (f"{BASE}/completions", {"prompt": ["a", "b"], "n": 2}, 2 * (PROMPT + 2 * 5), 10),
        (f"{BASE}/completions", {"prompt": [[1, 2, 3, 4], [5]]}, 5 + 2 * 5, 10),
        (f"{BASE}/embeddings", {"input": ["a", "b"]}, 2 * PROMPT, 4),
        (f"{BASE}:rawPredict", CHAT, PROMPT + 5, 10),
        (f"{BASE}:predict", {"instances": ["a", "b", "c"], "parameters": {"maxOutputTokens": 5}}, 3 * (PROMPT + 5), 30),
        (f"{BASE}:rawPredict", {"instances": [{"prompt": "a", "max_tokens": 5}]}, PROMPT + 5, 10),
        (f"{BASE}:predict", {"instances": [{"content": "a"}]}, PROMPT, 4),
        (f"{BASE}:generateContent", CONTENTS | FIVE_TOKENS, PROMPT + 5, 10),
        (f"{BASE}:streamGenerateContent", CONTENTS | FIVE_TOKENS, PROMPT + 5, 10),
        (f"{BASE}:countTokens", CONTENTS, 0, 0),
        ("/tokenize", {"model": "e1", "prompt": "a"}, 0, 0),
    ],
)
def test_all_that_a_request_may_become_is_reserved(
    tmp_path: Path, path: str, body: dict[str, Any], reserved: int, used: int
) -> None:
    """Several answers, prompts and instances; and what the engine counted of them is charged in the end."""

    async def main() -> None:
        async with limiting(tmp_path, tokens_per_minute=1000) as (served, _):
            says_it_inside = path == "/tokenize" or path.endswith((":predict", "Content", "Tokens"))
            answer = await ask(served, None if says_it_inside else 5, path, **body)
            assert answer.status_code == 200, answer.text
            assert left(answer) == 1000 - reserved
            assert left(await ask(served)) == 1000 - used - PROMPT - CHUNKS

    asyncio.run(main())


def test_who_leaves_is_charged_what_was_reserved(tmp_path: Path) -> None:
    """An engine that was broken off does not say what it has made: it counts as if it were all."""

    async def main() -> None:
        async with limiting(tmp_path, tokens_per_minute=100) as (served, engine):
            engine.script = Script(gated=True)
            engine.gate.release()
            async with served.client.stream("POST", URL, json=CHAT | {"stream": True, "max_tokens": 83}) as answer:
                await anext(answer.aiter_raw())
                await answer.aclose()
            await engine.until(cancelled=1)
            refused = await ask(served, 4)
            assert "90 were used" in refused.json()["error"]["message"]

    asyncio.run(main())


def test_an_answer_that_breaks_off_is_charged_what_was_reserved(tmp_path: Path) -> None:
    """So too where it was the engine that broke."""

    async def main() -> None:
        async with limiting(tmp_path, tokens_per_minute=100) as (served, engine):
            engine.script = Script(die_after=1)
            broken = await ask(served, 83)
            assert broken.status_code == 503
            engine.script = Script()
            refused = await ask(served, 4)
            assert "90 were used" in refused.json()["error"]["message"]

    asyncio.run(main())


def test_a_stream_that_tells_its_usage_is_charged_that(tmp_path: Path) -> None:
    """The last chunk says what was used; one that says nothing keeps what it reserved."""

    async def main() -> None:
        async with limiting(tmp_path, tokens_per_minute=1000) as (served, _):
            stream = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
            assert left(await ask(served, 90, **stream)) == 1000 - 97
            assert left(await ask(served)) == 1000 - 10 - 10

    asyncio.run(main())


def test_what_an_engine_refuses_costs_nothing(tmp_path: Path) -> None:
    """Nor what is refused before it gets there; as a request it counts."""

    async def main() -> None:
        async with limiting(tmp_path, tokens_per_minute=100, requests_per_minute=9) as (served, engine):
            engine.script = Script(refuse=400)
            assert (await ask(served, 83)).status_code == 400
            engine.script = Script()
            assert code(await ask(served, None, f"{BASE}:predict", instances=[])) == "BAD_FIELD"
            answer = await ask(served, 83)
            assert (left(answer), left(answer, "requests")) == (10, 7)

    asyncio.run(main())


def test_an_engines_refusal_is_the_same_for_every_key(tmp_path: Path) -> None:
    """A prompt that it cannot read is refused in its own words and by its own code, not by who counts its tokens."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(refuse=400, refuse_short=400)
            told = []
            for limits in ({}, {"tokens_per_minute": 1000}):
                await served.push(limited(deployed(engine.address), 2 + len(told), **limits))
                answer = await served.client.post("/v1/chat/completions", json=CHAT | {"model": "e1", "max_tokens": 5})
                told.append((answer.status_code, answer.json()))
            assert told[0] == told[1]
            assert told[0][0] == 400

    asyncio.run(main())


@pytest.mark.parametrize("refusal", [503, 400])
def test_what_one_was_late_with_is_charged_though_another_refuses_it(
    tmp_path: Path, refusal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what the late one has done of it, whatever is told at the end."""
    monkeypatch.setattr("headrace.gateway.fleet.random.choice", min)  # of equals, the first one

    async def main() -> None:
        async with StandIn(tmp_path / "a") as late, StandIn(tmp_path / "b") as other:
            both = deployed(late.address, other.address)
            async with gateway_before(tmp_path, both, first_byte_timeout_s=0.2) as served:
                await served.push(limited(both, tokens_per_minute=1000))
                late.script, other.script = Script(hang=True), Script(refuse=refusal)
                assert (
                    await served.client.post(URL, json=CHAT | {"stream": True, "max_tokens": 93})
                ).status_code >= 400
                assert (late.seen.began, other.seen.began) == (2, 1)  # the first one counted the prompt, too
                late.script = other.script = Script()
                assert left(await ask(served)) == 1000 - (PROMPT + 93) - (PROMPT + CHUNKS)

    asyncio.run(main())


def test_a_changed_limit_holds_at_once(tmp_path: Path) -> None:
    """For what was used before as well; a key whose limit is taken away goes free."""

    async def main() -> None:
        async with limiting(tmp_path, tokens_per_minute=100) as (served, engine):
            model = deployed(engine.address)
            assert left(await ask(served)) == 90
            await served.push(limited(model, 3, tokens_per_minute=15))
            assert code(await ask(served)) == "KEY_LIMIT_REACHED"
            await served.push(limited(model, 4, tokens_per_minute=50))
            assert left(await ask(served)) == 30
            await served.push(limited(model, 5))
            assert "x-ratelimit-limit-tokens" not in (await ask(served)).headers

    asyncio.run(main())


def test_a_server_that_is_not_ours_is_not_asked_for_tokens(tmp_path: Path) -> None:
    """A prompt is taken to have as many as it has bytes, and how long an answer may get must be said."""

    async def main() -> None:
        async with StandIn(token="theirs", name="theirs") as server:
            model = routed(f"{server.address}/v1", key="theirs")
            async with gateway_before(tmp_path, model) as served:
                await served.push(limited(model, tokens_per_minute=1000))
                refused = await ask(served, None)
                assert (refused.status_code, code(refused)) == (400, "BAD_FIELD")
                prompt_bytes = len(msgspec.json.encode({"messages": CHAT["messages"]}))
                assert left(await ask(served, 5)) == 1000 - prompt_bytes - 5
                assert left(await ask(served, 5)) == 1000 - 10 - prompt_bytes - 5
                assert server.seen.began == 2

    asyncio.run(main())


def notes(folder: Path) -> list[Path]:
    """What gateways left there of limits."""
    return list(folder.glob("limits-*.json"))


def test_a_gateway_in_anothers_place_counts_what_that_one_does(tmp_path: Path) -> None:
    """What was used, what is reserved while it runs, then what it used; who comes late is sent to the new one."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            model = deployed(engine.address)
            async with gateway_before(tmp_path, model) as old, gateway_before(tmp_path, model) as new:
                for served in (old, new):
                    await served.push(limited(model, tokens_per_minute=100))
                assert left(await ask(old)) == 90
                engine.script = Script(gated=True)
                running = asyncio.create_task(ask(old, 53))
                await engine.until(began=4)  # two were asked how long the prompt is
                old.gateway.hand_over()
                refused = await ask(new, 30)
                assert "10 were used in the last 60 s, and 67 are reserved" in refused.json()["error"]["message"]
                late = await ask(old)
                assert (late.status_code, code(late), late.headers["connection"]) == (503, "DRAINING", "close")
                draining = asyncio.create_task(old.gateway.drain(20))
                engine.gate.release()
                assert (await running).status_code == 200
                assert await draining == 0
                async with asyncio.timeout(20):
                    while notes(tmp_path):  # until the new one has read the old one's last word
                        assert code(await ask(new, 200)) == "KEY_LIMIT_TOO_SMALL"
                engine.script = Script()
                assert left(await ask(new)) == 100 - 20 - 10

    asyncio.run(main())


def test_a_killed_gateway_leaves_what_it_knew(tmp_path: Path) -> None:
    """Its last note is not renewed: what it had reserved counts as used from then on, and the note is gone."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            model = deployed(engine.address)
            async with gateway_before(tmp_path, model) as old, gateway_before(tmp_path, model) as new:
                for served in (old, new):
                    await served.push(limited(model, tokens_per_minute=100))
                engine.script = Script(gated=True)
                running = asyncio.create_task(ask(old, 53))
                async with asyncio.timeout(20):
                    while not notes(tmp_path):
                        await served.admin_get("/status")
                [note] = notes(tmp_path)
                long_ago = time.time() - STALE_AFTER_S - 1
                os.utime(note, (long_ago, long_ago))
                refused = await ask(new, 40)
                assert "60 were used in the last 60 s, and 0 are reserved" in refused.json()["error"]["message"]
                assert not notes(tmp_path)
                running.cancel()

    asyncio.run(main())
