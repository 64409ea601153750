"""No layer holds a token back: with everything on, a client has each one before the engine makes the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from event_loops import Loop, on_both_loops, run
from gateway_serving import BASE, CHAT, CONTENTS, deployed, gateway_before, serving
from test_gateway_key_limits import PROMPT, limited
from test_gateway_tls import client_of
from test_gateway_usage import written
from tls_certificates import authority_in

from headrace.gateway.access_log import LOGGER, write_collected
from headrace.gateway.cors import Cors
from standin import Script, StandIn

ORIGIN = "https://chat.example.org"
TOKENS, LIMIT = 4, 1000


class Asked(NamedTuple):
    """A request for a stream, what ends one token of its answer, and where the engine has the same; empty: nowhere."""

    path: str
    body: dict[str, Any]
    border: bytes
    engine_path: str = ""


STREAM: dict[str, Any] = {"stream": True, "max_tokens": TOKENS}
ASKED = {
    "chat": Asked(f"{BASE}/chat/completions", CHAT | STREAM, b"\n\n", "/v1/chat/completions"),
    "completions": Asked(f"{BASE}/completions", {"prompt": "x"} | STREAM, b"\n\n", "/v1/completions"),
    "responses": Asked(
        f"{BASE}:streamGenerateContent?alt=sse",
        CONTENTS | {"generationConfig": {"maxOutputTokens": TOKENS}},
        b"\n\n",
    ),
    "lines": Asked(f"{BASE}:streamRawPredict", {"instances": [{"prompt": "x"} | STREAM]}, b"\n"),
}


@asynccontextmanager
async def everything_on(folder: Path, engine: StandIn, *, tls: bool) -> AsyncIterator[httpx.AsyncClient]:
    """A browser's client that takes compressed answers, with a limited key, of a gateway that logs and meters."""
    authority, context = authority_in(folder / "data")
    model = deployed(engine.address)
    async with gateway_before(folder, model) as served:
        await served.push(limited(model, tokens_per_minute=LIMIT, requests_per_minute=10))
        async with (
            serving(Cors([ORIGIN], served.gateway.handle).handle, tls=context if tls else None) as url,
            client_of(url, authority) as client,
        ):
            client.headers.update({"origin": ORIGIN, "accept-encoding": "gzip, deflate, br, zstd"})
            yield client


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@on_both_loops
def test_each_token_comes_before_the_next_is_made(
    tmp_path: Path, asked: Asked, tls: bool, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged, metered, limited, for browsers and clients that take gzip: a token comes alone, in the engine's own
    bytes and borders, while the engine still waits to make the next one; then the connection carries another."""

    async def main() -> None:
        async with StandIn(tmp_path / "e", token="nonce") as engine, everything_on(tmp_path, engine, tls=tls) as client:
            engine.script = Script(chunks=TOKENS, gated=True)
            engine.gate.release()
            async with client.stream("POST", asked.path, json=asked.body) as answer:
                assert "content-encoding" not in answer.headers
                assert answer.headers["access-control-allow-origin"] == ORIGIN
                assert answer.headers["x-vertex-ai-deployed-model-id"] == "d1"
                assert answer.headers["x-ratelimit-remaining-tokens"] == str(LIMIT - PROMPT - TOKENS)
                pieces = answer.aiter_raw()
                whole = b""
                for made in range(1, TOKENS):
                    token = b""
                    while not token.endswith(asked.border):
                        token += await anext(pieces)
                    assert (token.count(asked.border), token.count(b"tok")) == (1, 1)
                    assert engine.seen.chunks_sent == made
                    whole += token
                    engine.gate.release()
                whole += b"".join([piece async for piece in pieces])
            engine.script = Script(chunks=TOKENS)
            if asked.engine_path:
                transport = httpx.AsyncHTTPTransport(uds=str(engine.uds))
                bearer = {"authorization": "Bearer nonce"}
                async with httpx.AsyncClient(transport=transport, base_url="http://e", headers=bearer) as direct:
                    assert whole == (await direct.post(asked.engine_path, json=asked.body)).content
            else:
                assert whole.count(b"tok ") == TOKENS
            assert (await client.post(f"{BASE}/chat/completions", json=CHAT | {"max_tokens": 1})).status_code == 200

    with caplog.at_level(logging.INFO, LOGGER.name):
        run(main(), loop)
        write_collected()
    assert caplog.text.count('"status":200') >= 2
    first, _ = written(tmp_path / "usage")
    assert (first.prompt_tokens, first.completion_tokens) == (PROMPT, TOKENS)
    assert (first.finished, first.inexact) == (True, False)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_events_that_the_engine_sends_together_stay_apart(tmp_path: Path, tls: bool) -> None:
    """However an engine cuts its bytes into packets, the client gets its events whole and in its order, as they were
    and at once: of half an event nothing, until its other half is there."""
    events = [*(b'data: {"n": %d}\n\n' % number for number in range(3)), b"data: [DONE]\n\n"]
    cuts = [events[0] + events[1][:7], events[1][7:] + events[2] + events[3]]

    async def main() -> None:
        second = asyncio.Event()

        async def cutting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST /tokenize "):
                writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{"count":7}')
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
                writer.write(b"transfer-encoding: chunked\r\n\r\n")
                for piece in cuts:
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await second.wait()
                writer.write(b"0\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(cutting, str(tmp_path / "e"))
        engine = StandIn(tmp_path / "e")  # for its address
        async with (
            server,
            everything_on(tmp_path, engine, tls=tls) as client,
            client.stream("POST", f"{BASE}/chat/completions", json=CHAT | STREAM) as answer,
        ):
            pieces = answer.aiter_raw()
            assert await anext(pieces) == events[0]
            second.set()
            assert b"".join([piece async for piece in pieces]) == b"".join(events[1:])

    asyncio.run(main())
