"""Streams that stand in line: comments keep them alive, the answer follows, and an error is the last event."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from gateway_serving import BASE, CHAT, CONTENTS, KEY, Served, deployed, gateway_before, snapshot
from test_gateway_priorities import ask
from test_gateway_zero import NAME, URL, asleep, status, until

from headrace.gateway import Limits
from headrace.gateway.heartbeat import COMMENT
from headrace.resources.errors import Failure
from standin import Script, StandIn

OFTEN_S = 0.02
STREAM = CHAT | {"stream": True}


async def comments(pieces: AsyncIterator[bytes], count: int) -> None:
    """Wait until so many comments have come, and nothing else."""
    seen = b""
    while seen.count(COMMENT) < count:
        seen += await anext(pieces)
    assert seen == COMMENT * (len(seen) // len(COMMENT))


async def last_error(pieces: AsyncIterator[bytes]) -> dict[str, Any]:
    """The error that a broken stream ends with; before it come only comments."""
    body, whole = b"", False
    with contextlib.suppress(httpx.RemoteProtocolError):
        async for piece in pieces:
            body += piece
        whole = True
    assert not whole
    event = body.replace(COMMENT, b"")
    assert event.endswith(b"\n\n")
    error: dict[str, Any] = json.loads(event.removeprefix(b"data: "))["error"]
    return error


@pytest.mark.parametrize("path", ["/chat/completions", "/completions", ":streamRawPredict", ":rawPredict"])
def test_comments_then_the_answer(tmp_path: Path, path: str) -> None:
    """A stream that waits for its turn gets comments, and then the engine's whole answer behind them."""

    async def main() -> None:
        body = {"model": "m", "prompt": "x", "stream": True} if path == "/completions" else STREAM
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address, max_running=1), heartbeat_s=OFTEN_S) as served,
        ):
            first = asyncio.create_task(ask(served, "first", standin={"gated": True}))
            await engine.until(began=1)
            async with served.client.stream("POST", BASE + path, json=body) as answer:
                assert answer.status_code == 200
                assert answer.headers["content-type"].startswith("text/event-stream")
                assert answer.headers["x-vertex-ai-deployed-model-id"] == "d1"
                pieces = answer.aiter_raw()
                await comments(pieces, 3)
                assert engine.seen.began == 1
                engine.gate.release()
                rest = b"".join([piece async for piece in pieces]).replace(COMMENT, b"")
            assert rest.startswith(b"data: {")
            assert rest.count(b'"tok "') == 3
            assert rest.endswith(b"data: [DONE]\n\n")
            assert await first == 200

    asyncio.run(main())


def test_a_line_that_moves_is_waited_in(tmp_path: Path) -> None:
    """An engine that answers others is waited for longer than one that says nothing, and the stream is kept alive."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(
                tmp_path, deployed(engine.address), heartbeat_s=OFTEN_S, first_byte_timeout_s=OFTEN_S
            ) as served,
        ):
            engine.script = Script(gated=True)
            engine.gate.release()
            async with served.client.stream("POST", URL, json=STREAM) as before:
                first = before.aiter_raw()
                assert b"tok" in await anext(first)
                async with served.client.stream("POST", URL, json=STREAM) as answer:
                    pieces = answer.aiter_raw()
                    await comments(pieces, 5)
                    assert engine.seen.began == 2
                    for _ in range(5):
                        engine.gate.release()
                    rest = b"".join([piece async for piece in pieces])
                assert rest.endswith(b"data: [DONE]\n\n")
                assert b"".join([piece async for piece in first]).endswith(b"data: [DONE]\n\n")

    asyncio.run(main())


def test_an_external_server_may_answer_in_one_piece(tmp_path: Path) -> None:
    """While one computes that is not ours no comment is sent, so that what it answers is passed on as it is."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        async with served_beside.client.stream("POST", URL, json=STREAM) as beside:
            await comments(beside.aiter_raw(), 5)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async def main() -> None:
        nonlocal served_beside
        server = await asyncio.start_unix_server(slow, str(tmp_path / "odd"))
        model = deployed(f"unix:{tmp_path / 'odd'}", external_host="api.example")
        async with (
            gateway_before(tmp_path / "a", asleep(), heartbeat_s=OFTEN_S) as served_beside,
            gateway_before(tmp_path / "b", model, heartbeat_s=OFTEN_S) as served,
        ):
            answer = await served.client.post(URL, json=STREAM)
            assert (answer.status_code, answer.text) == (200, "{}")
        server.close()

    served_beside: Served
    asyncio.run(main())


def test_openai_client_skips_comments(tmp_path: Path) -> None:
    """OpenAI's own client reads a stream that waited for an engine to wake, and raises the error of one that failed."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, asleep(), heartbeat_s=OFTEN_S) as served,
        ):
            client = openai.AsyncOpenAI(base_url=served.url + BASE, api_key=KEY, max_retries=0)
            stream = await client.completions.create(model="m", prompt="hi", stream=True)  # its head is here: it waits
            await served.push(snapshot(deployed(engine.address, wakes=True), generation=2))
            assert [chunk.choices[0].text async for chunk in stream] == ["tok "] * 3
            await served.push(snapshot(asleep(), generation=3))
            stream = await client.completions.create(model="m", prompt="hi", stream=True)
            await served.push(snapshot(deployed(failure=Failure(code="ENGINE_DIED", message="No.")), generation=4))
            with pytest.raises(openai.APIError, match="does not come back") as caught:
                await anext(aiter(stream))
            assert caught.value.code == "NOT_READY"
            await client.close()

    asyncio.run(main())


def test_who_is_pushed_out_hears_it_as_the_last_event(tmp_path: Path) -> None:
    """A stream whose status is out gets the error as an event, with the status and the time it would have had."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            model = deployed(engine.address, max_running=1, max_waiting=1)
            async with gateway_before(tmp_path, model, heartbeat_s=OFTEN_S) as served:
                await push_out(engine, served)

    async def push_out(engine: StandIn, served: Served) -> None:
        first = asyncio.create_task(ask(served, "first", standin={"gated": True}))
        await engine.until(began=1)
        async with served.client.stream("POST", URL, json=STREAM | {"service_tier": "flex"}) as answer:
            pieces = answer.aiter_raw()
            await comments(pieces, 1)
            second = asyncio.create_task(ask(served, "second"))
            error = await last_error(pieces)
        assert (error["code"], error["status"], error["retry_after_s"]) == ("QUEUE_FULL", 429, 60)
        assert "an interactive request needed the place" in error["message"]
        assert "1 of them batch" in error["evidence"]
        engine.gate.release()
        assert {await first, await second} == {200}

    asyncio.run(main())


def test_a_refusal_after_comments_is_the_last_event(tmp_path: Path) -> None:
    """What the engine refuses, or answers in one piece, after the status is out ends the stream with an error."""

    async def in_one_piece(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, heartbeat_s=OFTEN_S) as served:
            engine.script = Script(refuse=400)
            server = await asyncio.start_unix_server(in_one_piece, str(tmp_path / "odd"))
            expected = {engine.address: ("ENGINE_REFUSED", 400), f"unix:{tmp_path / 'odd'}": ("ENGINE_FAILED", 503)}
            for generation, (address, told) in enumerate(expected.items(), 1):
                await served.push(snapshot(asleep(), generation=2 * generation))
                async with served.client.stream("POST", URL, json=STREAM) as answer:
                    pieces = answer.aiter_raw()
                    await comments(pieces, 1)
                    await served.push(snapshot(deployed(address, wakes=True), generation=2 * generation + 1))
                    error = await last_error(pieces)
                assert (error["code"], error["status"]) == told
            server.close()

    asyncio.run(main())


def test_what_waits_shortly_keeps_its_status(tmp_path: Path) -> None:
    """Before the first comment nothing is sent: a refusal has its status; and lines of JSON never get a comment, nor do
    Gemini's responses, whose client takes one for a response."""

    async def main() -> None:
        assert Limits().heartbeat_s > 5
        lines = {"instances": [{"prompt": "x", "stream": True}]}
        responses = f"{BASE}:streamGenerateContent?alt=sse"
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path / "a", asleep()) as slow,
            gateway_before(tmp_path / "b", asleep(), heartbeat_s=OFTEN_S) as often,
            gateway_before(tmp_path / "c", asleep(), heartbeat_s=OFTEN_S) as third,
        ):
            engine.script = Script(refuse=400)
            asked = ((slow, URL, STREAM), (third, responses, CONTENTS), (often, f"{BASE}:streamRawPredict", lines))
            for served, path, body in asked:
                await until(often, lambda told: not told["waiting"])
                refused = asyncio.create_task(served.client.post(path, json=body))
                await until(served, lambda told: told["waiting"] == {NAME: 1})
                async with often.client.stream("POST", URL, json=STREAM) as beside:
                    await comments(beside.aiter_raw(), 3)
                await served.push(snapshot(deployed(engine.address, wakes=True), generation=2))
                assert (await refused).status_code == 400

    asyncio.run(main())


def test_hanging_up_frees_the_place(tmp_path: Path) -> None:
    """A client that leaves while it gets comments stands in line no longer, and the engine never hears of it."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, asleep(), heartbeat_s=OFTEN_S) as served,
        ):
            async with served.client.stream("POST", URL, json=STREAM) as answer:
                await comments(answer.aiter_raw(), 1)
                assert (await status(served))["waiting"] == {NAME: 1}
            await until(served, lambda told: not told["waiting"])
            await served.push(snapshot(deployed(engine.address, wakes=True), generation=2))
            assert await ask(served, "next") == 200
            assert engine.seen.began == 1
            assert await served.gateway.drain(20) == 0

    asyncio.run(main())


def test_the_end_of_the_server_is_told_in_line(tmp_path: Path) -> None:
    """A server that goes down tells those who wait with comments why."""

    async def main() -> None:
        async with gateway_before(tmp_path, asleep(), heartbeat_s=OFTEN_S) as served:
            async with served.client.stream("POST", URL, json=STREAM) as answer:
                pieces = answer.aiter_raw()
                await comments(pieces, 1)
                served.gateway.break_off()
                error = await last_error(pieces)
            assert (error["code"], error["status"]) == ("DRAINING", 503)

    asyncio.run(main())
