"""How requests were served stands in their records while a rollout watches, and what counts against who answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gateway_serving import BASE, CHAT, CONTENTS, KEY, Served, deployed, gateway_before, key, pieces_of, snapshot

from headrace.gateway.fault import is_its_fault
from headrace.resources.errors import CODES
from headrace.resources.limits import KeyLimits
from headrace.resources.usage import Service, UsageRecord, read_lines
from standin import Script, StandIn

URL = f"{BASE}/chat/completions"
STREAM: dict[str, Any] = CHAT | {"stream": True}


def written(folder: Path) -> list[UsageRecord]:
    """Every record of the gateways in a folder."""
    paths = sorted((folder / "usage").glob("*.usage"), key=lambda path: path.stat().st_mtime_ns)
    return [record for path in paths for record in read_lines(path.read_bytes()).records]


def served(folder: Path) -> Service:
    """How the only request was served."""
    (record,) = written(folder)
    assert record.service is not None
    return record.service


@asynccontextmanager
async def watched_engine(folder: Path) -> AsyncIterator[tuple[StandIn, Served]]:
    """An engine, and a gateway before it that has it watched."""
    async with (
        StandIn(folder / "e") as engine,
        gateway_before(folder, deployed(engine.address, watched=True), noticed_s=0.0) as gateway,
    ):
        yield engine, gateway


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (URL, STREAM),
        (f"{BASE}/completions", {"prompt": "x", "stream": True}),
        (f"{BASE}:streamRawPredict", {"instances": [{"prompt": "x", "stream": True}]}),
        (f"{BASE}:streamGenerateContent", CONTENTS),
    ],
)
def test_a_stream_tells_its_first_token_and_its_gaps(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    """No more than its client saw of both, piece by piece; nothing failed."""

    async def main() -> float:
        async with StandIn(tmp_path / "e") as engine:
            engine.script = Script(chunks=4, gated=True)
            async with gateway_before(tmp_path, deployed(engine.address, watched=True)) as gateway:
                began = time.monotonic()
                engine.gate.release()
                async with gateway.client.stream("POST", path, json=body) as answer:
                    pieces = answer.aiter_raw()
                    await anext(pieces)
                    for _ in range(3):
                        engine.gate.release()
                        await anext(pieces)
                    lasted_s = time.monotonic() - began
                    async for _ in pieces:
                        pass  # what tells that it was all
                return lasted_s

    lasted_s = asyncio.run(main())
    service = served(tmp_path)
    assert (service.failed, service.abandoned) == (False, False)
    assert service.first_token_s is not None
    assert service.inter_token_s is not None
    assert 0 < service.first_token_s + 2 * service.inter_token_s <= lasted_s, "the last gap may be behind its record"


def test_a_stream_of_one_piece_has_a_first_token_and_no_gaps(tmp_path: Path) -> None:
    """Also where it is written down before that piece goes out."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            engine.script = Script(chunks=1)
            async with gateway_before(tmp_path, deployed(engine.address, watched=True)) as gateway:
                assert (await gateway.client.post(URL, json=STREAM)).status_code == 200

    asyncio.run(main())
    service = served(tmp_path)
    assert service.first_token_s is not None
    assert (service.inter_token_s, service.abandoned) == (None, False)


def test_other_requests_tell_only_whether_they_failed(tmp_path: Path) -> None:
    """A whole answer, and a refusal of the engine, which is the request's own fault."""

    async def main() -> None:
        async with watched_engine(tmp_path) as (engine, gateway):
            assert (await gateway.client.post(URL, json=CHAT)).status_code == 200
            engine.script = Script(refuse=400)
            for body in (CHAT, STREAM):
                assert (await gateway.client.post(URL, json=body)).status_code == 400

    asyncio.run(main())
    assert [record.service for record in written(tmp_path)] == [Service()] * 3


def test_what_the_engine_fails_at_failed(tmp_path: Path) -> None:
    """An answer cut in its middle, a stream that breaks off after two pieces or before the first, its own error."""

    async def main() -> None:
        async with watched_engine(tmp_path) as (engine, gateway):
            engine.script = Script(die_after=0)
            assert (await gateway.client.post(URL, json=CHAT)).status_code == 503
            assert (await gateway.client.post(URL, json=STREAM)).status_code == 503
            engine.script = Script(chunks=5, die_after=2)
            async with gateway.client.stream("POST", URL, json=STREAM) as answer:
                assert not (await pieces_of(answer))[1]
            engine.script = Script(refuse=500)
            assert (await gateway.client.post(URL, json=CHAT)).status_code == 503

    asyncio.run(main())
    records = written(tmp_path)
    assert [(record.finished, record.sent) for record in records] == [(False, True)] * 4
    assert [record.service is not None and record.service.failed for record in records] == [True] * 4
    assert records[2].service is not None
    assert records[2].service.first_token_s is not None, "it had begun"


def test_what_finds_no_place_failed_without_being_sent(tmp_path: Path) -> None:
    """A full line, and no replica at all: who answers is too slow, or not there. Only a rollout wants to know."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            for watched in (True, False):
                engine.script = Script(gated=True)
                route = deployed(engine.address, watched=watched, max_running=1, max_waiting=0)
                async with gateway_before(tmp_path / str(watched), route) as gateway:
                    before = engine.seen.began
                    first = asyncio.create_task(gateway.client.post(URL, json=CHAT))
                    await engine.until(began=before + 1)
                    assert (await gateway.client.post(URL, json=CHAT)).status_code == 429
                    engine.gate.release()
                    assert (await first).status_code == 200
                    await gateway.push(snapshot(deployed(watched=watched), generation=2))
                    assert (await gateway.client.post(URL, json=CHAT)).status_code == 503

    asyncio.run(main())
    assert [(one.sent, one.service) for one in written(tmp_path / "True")] == [
        (False, Service(failed=True)),
        (True, Service()),
        (False, Service(failed=True)),
    ]
    assert [(one.sent, one.service) for one in written(tmp_path / "False")] == [(True, None)]


def test_a_client_that_leaves_tells_how_long_it_waited(tmp_path: Path) -> None:
    """Before the first token that is a lower bound, and told as one; it is nobody's failure."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            engine.script = Script(hang=True)
            async with gateway_before(tmp_path, deployed(engine.address, watched=True)) as gateway:
                for number, body in enumerate((STREAM, CHAT), start=1):
                    asking = asyncio.create_task(gateway.client.post(URL, json=body))
                    await engine.until(began=number)
                    asking.cancel()
                    await engine.until(cancelled=number)
                assert await gateway.gateway.drain(20) == 0

    asyncio.run(main())
    stream, unary = written(tmp_path)
    assert stream.service is not None
    assert (stream.service.failed, stream.service.abandoned) == (False, True)
    assert stream.service.first_token_s is not None
    assert unary.service == Service()


def test_a_client_that_gives_it_no_time_says_nothing_of_the_model(tmp_path: Path) -> None:
    """Whoever sets a timeout of its own is as one that left: otherwise any key could have any canary rolled back."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            engine.script = Script(hang=True)
            async with gateway_before(tmp_path, deployed(engine.address, watched=True)) as gateway:
                for body in (STREAM, CHAT):
                    hurried = {"x-stainless-read-timeout": "0.1"}
                    assert (await gateway.client.post(URL, json=body, headers=hurried)).status_code == 504

    asyncio.run(main())
    stream, unary = written(tmp_path)
    assert stream.service is not None
    assert (stream.service.failed, stream.service.abandoned) == (False, True)
    assert unary.service == Service()


def test_a_keys_limits_are_not_the_models_fault(tmp_path: Path) -> None:
    """A request that its key may not send leaves no record with who would have answered."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            route = deployed(engine.address, watched=True)
            async with gateway_before(tmp_path, route) as gateway:
                limited = msgspec.structs.replace(key(KEY), limits=KeyLimits(requests_per_minute=1))
                await gateway.push(snapshot(route, generation=2, keys=(limited,)))
                answers = [await gateway.client.post(URL, json=CHAT) for _ in range(2)]
                assert [answer.status_code for answer in answers] == [200, 429]

    asyncio.run(main())
    assert served(tmp_path) == Service()


def test_whose_fault_each_error_is() -> None:
    """Of all there are: what says that the one who was to answer did not, could not, or was not let."""
    blamed = {code for code, kind in CODES.items() if is_its_fault(kind("It went wrong."))}
    assert blamed >= {
        "NOT_READY",
        "QUEUE_FULL",
        "QUEUE_TIMEOUT",
        "ENGINE_UNREACHABLE",
        "ENGINE_BROKE_OFF",
        "ENGINE_FAILED",
        "ENGINE_TIMEOUT",
        "ENGINE_STALLED",
        "EXTERNAL_REFUSED",
        "EXTERNAL_UNREACHABLE",
        "EXTERNAL_MODEL_MISSING",
    }
    assert not blamed & {
        "BAD_FIELD",
        "CLIENT_TIMEOUT",
        "ENGINE_REFUSED",
        "KEY_LIMIT_REACHED",
        "KEY_LIMIT_TOO_SMALL",
        "UNKNOWN_KEY",
        "DRAINING",
        "INTERNAL",
        "NOT_SUPPORTED",
        "REQUEST_TOO_SLOW",
        "BODY_TOO_LARGE",
    }
