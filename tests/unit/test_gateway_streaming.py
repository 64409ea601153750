"""The gateway's streams: chunk by chunk, with backpressure, and with an end that nobody can mistake."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import openai
import pytest
from gateway_serving import BASE, CHAT, KEY, KEYS, deployed, gateway_before, key, pieces_of, snapshot
from test_gateway_usage import written

from standin import Script, StandIn


def test_hang_up_reaches_the_engine(tmp_path: Path) -> None:
    """A client that leaves in the middle of a stream stops the engine's work, and frees its place."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(chunks=4, gated=True)
            engine.gate.release()
            async with served.client.stream("POST", f"{BASE}/chat/completions", json=CHAT | {"stream": True}) as answer:
                await anext(answer.aiter_raw())
            await engine.until(cancelled=1)
            assert await served.gateway.drain(20) == 0
            assert (await served.admin_get("/status")).json()["outstanding"] == {}

    asyncio.run(main())


def test_hang_up_before_the_first_byte_reaches_the_engine(tmp_path: Path) -> None:
    """A client that leaves while a unary answer is made stops the engine's work."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(hang=True)
            asking = asyncio.create_task(served.client.post(f"{BASE}/chat/completions", json=CHAT))
            await engine.until(began=1)
            assert (await served.admin_get("/status")).json()["outstanding"] == {"d1-r0": 1}
            asking.cancel()
            await engine.until(cancelled=1)

    asyncio.run(main())


def test_slow_reader_gets_backpressure(tmp_path: Path) -> None:
    """While a client does not read, the engine is stopped after a bounded amount."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            chunk_bytes = 64 * 1024
            engine.script = Script(chunks=2000, chunk_text="x" * chunk_bytes)
            async with served.client.stream("POST", f"{BASE}/chat/completions", json=CHAT | {"stream": True}) as answer:
                before = -1
                while engine.seen.chunks_sent != before:  # until nothing moves any more
                    before = engine.seen.chunks_sent
                    for _ in range(2000):
                        await asyncio.sleep(0)
                    await asyncio.sleep(0.05)
                assert 0 < engine.seen.chunks_sent * chunk_bytes < 32 * 1024 * 1024
                await anext(answer.aiter_raw())

    asyncio.run(main())


@pytest.mark.parametrize("die_after", [1, 2])
def test_death_in_mid_stream_is_told(tmp_path: Path, die_after: int) -> None:
    """When the engine dies, the stream ends with an error event, without [DONE], and with a broken connection."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(chunks=5, die_after=die_after)
            async with served.client.stream("POST", f"{BASE}/chat/completions", json=CHAT | {"stream": True}) as answer:
                pieces, whole = await pieces_of(answer)
            events = b"".join(pieces).strip().split(b"\n\n")
            assert not whole
            assert len(events) == die_after + 1
            error = json.loads(events[-1].removeprefix(b"data: "))["error"]
            assert error["code"] == "ENGINE_BROKE_OFF"
            assert error["evidence"]
            assert error["fix"]

    asyncio.run(main())


def test_an_engine_that_stands_still_is_given_up(tmp_path: Path) -> None:
    """When nothing more comes, the stream ends with an error event, and the engine hears that nobody waits."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address), stall_timeout_s=0.2) as served,
        ):
            engine.script = Script(chunks=5, gated=True)
            engine.gate.release()
            async with served.client.stream("POST", f"{BASE}/chat/completions", json=CHAT | {"stream": True}) as answer:
                pieces, whole = await pieces_of(answer)
            events = b"".join(pieces).strip().split(b"\n\n")
            assert (whole, len(events)) == (False, 2)
            error = json.loads(events[-1].removeprefix(b"data: "))["error"]
            assert (error["code"], "0.2 s" in error["evidence"], bool(error["fix"])) == ("ENGINE_STALLED", True, True)
            await engine.until(cancelled=1)
            assert (await served.admin_get("/status")).json()["outstanding"] == {}

    asyncio.run(main())


def test_a_slow_stream_is_not_a_still_one(tmp_path: Path) -> None:
    """An answer that takes longer in all, piece after piece, comes to its end; so does one whose client is slow."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address), stall_timeout_s=2.0) as served,
        ):
            engine.script = Script(chunks=8, delay_ms=400)
            async with served.client.stream("POST", f"{BASE}/chat/completions", json=CHAT | {"stream": True}) as answer:
                pieces = answer.aiter_raw()
                await anext(pieces)
                await engine.until(answered=1)  # more than three seconds later
                assert b"".join([piece async for piece in pieces]).endswith(b"data: [DONE]\n\n")

    asyncio.run(main())


def test_revoked_key_ends_its_streams(tmp_path: Path) -> None:
    """The push without a key ends its streams: an error event, a broken connection, an engine that stops. No others."""

    async def main() -> None:
        other = key("hr-colleague")
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            await served.push(snapshot(deployed(engine.address), generation=2, keys=(*KEYS, other)))
            engine.script = Script(chunks=2, gated=True)
            body, path = CHAT | {"stream": True}, f"{BASE}/chat/completions"
            theirs = {"authorization": "Bearer hr-colleague"}
            engine.gate.release()
            async with served.client.stream("POST", path, json=body) as answer:
                untouched = asyncio.create_task(served.client.post(path, json=body, headers=theirs))
                await engine.until(began=2)
                await served.push(snapshot(deployed(engine.address), generation=3, keys=(*KEYS[1:], other)))
                pieces, whole = await pieces_of(answer)
            await engine.until(cancelled=1)
            for _ in range(2):
                engine.gate.release()
            assert (await untouched).content.endswith(b"data: [DONE]\n\n")
            assert not whole
            error = json.loads(b"".join(pieces).strip().split(b"\n\n")[-1].removeprefix(b"data: "))["error"]
            assert (error["code"], error["evidence"]) == ("UNKNOWN_KEY", f"It is key id-{KEY}.")
            assert await served.gateway.drain(10) == 0

    asyncio.run(main())


def test_revoked_key_ends_lines_and_slow_readers(tmp_path: Path) -> None:
    """A stream of lines ends with a line, and a client that does not read holds nothing."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(chunks=2, gated=True)
            engine.gate.release()
            lines = {"instances": [{"prompt": "x", "stream": True}]}
            async with served.client.stream("POST", f"{BASE}:streamRawPredict", json=lines) as answer:
                await served.push(snapshot(deployed(engine.address), generation=2, keys=KEYS[1:]))
                pieces, whole = await pieces_of(answer)
            assert not whole
            last = json.loads(b"".join(pieces).splitlines()[-1])
            assert last["error"]["details"][0]["reason"] == "UNKNOWN_KEY"
            await served.push(snapshot(deployed(engine.address), generation=3))
            engine.script = Script(chunks=1000, chunk_text="x" * 100_000)
            async with served.client.stream("POST", f"{BASE}/chat/completions", json=CHAT | {"stream": True}):
                await engine.until(chunks_sent=5)
                await served.push(snapshot(deployed(engine.address), generation=4, keys=KEYS[1:]))
                assert await served.gateway.drain(10) == 0
                assert engine.seen.answered == 0

    asyncio.run(main())


def test_half_an_event_is_never_passed_on(tmp_path: Path) -> None:
    """An engine that dies inside an event leaves no half of it before the error event."""

    async def half_event(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        whole, half = b"data: {}\n\n", b'data: {"hal'
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%s\r\n%x\r\n%s\r\n" % (len(whole), whole, len(half), half))
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_unix_server(half_event, str(tmp_path / "e"))
        async with server, gateway_before(tmp_path, deployed(f"unix:{tmp_path / 'e'}")) as served:
            async with served.client.stream("POST", f"{BASE}/chat/completions", json=CHAT | {"stream": True}) as answer:
                body = b"".join((await pieces_of(answer))[0])
            assert body.startswith(b'data: {}\n\ndata: {"error":')

    asyncio.run(main())


def test_openai_client_raises_what_broke(tmp_path: Path) -> None:
    """OpenAI's own client raises the error event, and reads whole streams and unary answers."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            client = openai.AsyncOpenAI(base_url=served.url + BASE, api_key=KEY, max_retries=0)
            answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
            assert answer.choices[0].message.content == "tok tok tok "
            stream = await client.completions.create(model="m", prompt="hi", stream=True)
            assert [chunk.choices[0].text async for chunk in stream] == ["tok "] * 3
            engine.script = Script(chunks=3, die_after=2)
            stream = await client.completions.create(model="m", prompt="hi", stream=True)
            texts = []
            with pytest.raises(openai.APIError, match="middle of its answer") as caught:  # noqa: PT012 - the loop raises
                async for chunk in stream:
                    texts.append(chunk.choices[0].text)
            assert texts == ["tok ", "tok "]
            assert caught.value.code == "ENGINE_BROKE_OFF"
            await client.close()

    asyncio.run(main())


def test_unary_answer_that_is_cut_becomes_an_error(tmp_path: Path) -> None:
    """A unary answer that breaks off has a status and a code of its own."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(die_after=1)
            answer = await served.client.post(f"{BASE}/chat/completions", json=CHAT)
            assert answer.status_code == 503
            assert answer.json()["error"]["details"][0]["reason"] == "ENGINE_BROKE_OFF"

    asyncio.run(main())


def test_long_unary_answer_streams(tmp_path: Path) -> None:
    """A unary answer over the limit for holding is passed on whole, and shows a cut by breaking off."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address), held_answer_bytes=1000) as served,
        ):
            engine.script = Script(chunks=1, chunk_text="x" * 300_000)
            answer = await served.client.post(f"{BASE}/chat/completions", json=CHAT)
            assert len(answer.json()["choices"][0]["message"]["content"]) == 300_000
            engine.script = Script(chunks=1, chunk_text="x" * 300_000, die_after=1)
            async with served.client.stream("POST", f"{BASE}/chat/completions", json=CHAT) as cut:
                assert not (await pieces_of(cut))[1]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "code", "evidence"),
    [
        ("server_error", "ENGINE_BROKE_OFF", "The worker died."),
        ("invalid_request_error", "ENGINE_REFUSED", ""),
        ("", "ENGINE_BROKE_OFF", "without [DONE]"),
    ],
)
def test_an_answer_whose_engine_says_that_it_failed_is_not_whole(
    tmp_path: Path, kind: str, code: str, evidence: str
) -> None:
    """An error event of an engine that lives on, or an end without [DONE], ends the client's stream as a death does."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address, watched=True)) as served,
        ):
            engine.script = Script(chunks=5, fail_after=2, fail_type=kind)
            health = served.gateway._routing.fleet.pools["dep-d1"].replicas[0].health
            async with served.client.stream("POST", f"{BASE}/chat/completions", json=CHAT | {"stream": True}) as answer:
                pieces, whole = await pieces_of(answer)
            events = b"".join(pieces).strip().split(b"\n\n")
            error = json.loads(events[-1].removeprefix(b"data: "))["error"]
            assert (whole, len(events), error["code"]) == (False, 3, code)
            assert evidence in error["evidence"]
            assert (health.badness()[0] > 0) == (code == "ENGINE_BROKE_OFF")
        (found,) = written(tmp_path / "usage")
        assert (found.completion_tokens, found.finished, found.inexact) == (2, False, True)
        assert found.service is not None
        assert found.service.failed == (code == "ENGINE_BROKE_OFF")

    asyncio.run(main())


def test_a_stream_asked_for_by_a_number_is_refused(tmp_path: Path) -> None:
    """What one engine would take for a yes and nobody here, and so meter wrongly, is a clear error."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            for given in (1, "true", {}):
                answer = await served.client.post("/v1/chat/completions", json=CHAT | {"model": "e1", "stream": given})
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BAD_FIELD")
                assert answer.json()["error"]["param"] == "stream"
            assert engine.seen.began == 0

    asyncio.run(main())
