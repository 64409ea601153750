"""Web pages of other origins: asked before a request, told in every answer, and only those that the operator named."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_serving import BASE, CHAT, KEY, Served, deployed, gateway_before, pieces_of, serving
from test_gateway_control import Control
from test_gateway_http import exchanged
from test_gateway_key_limits import limited

from headrace.gateway import Cors
from headrace.gateway.cors import read_origins
from headrace.gateway.exchange import Exchange
from headrace.gateway.http1 import MAX_HEAD_BYTES, HttpServer, Patience
from headrace.resources.errors import BadField
from standin import Script, StandIn

PAGE = "https://chat.example.org"
OTHER = "https://evil.example.org"
URL = f"{BASE}/chat/completions"
ALLOW, EXPOSE = "access-control-allow-origin", "access-control-expose-headers"


@asynccontextmanager
async def shared(
    folder: Path, *models: Any, origins: tuple[str, ...] = (PAGE,), **more: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Served]]:
    """A browser's client of a gateway whose operator named these origins, with that gateway."""
    async with (
        gateway_before(folder, *models, **more) as served,
        serving(Cors(read_origins(origins), served.gateway.handle).handle) as url,
        httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as client,
    ):
        yield client, served


def sent_by(origin: str, *, key: str = KEY) -> dict[str, str]:
    """What a page's request carries."""
    return {"origin": origin, "authorization": f"Bearer {key}"}


def asks(origin: str, *headers: str, method: str = "POST") -> dict[str, str]:
    """What a browser asks before a page's request."""
    return {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": ",".join(headers),
    }


def words(answer: httpx.Response, header: str) -> set[str]:
    """A header's list."""
    return {word.strip() for word in answer.headers[header].split(",")}


@pytest.mark.parametrize("path", [URL, "/v1/chat/completions", "/v1/models", "/headrace/v1/status", "/v1/nothing"])
def test_browsers_may_ask_without_a_key(tmp_path: Path, path: str) -> None:
    """A browser is told what a page may send to any path, and nothing goes further than the gateway."""

    async def main() -> None:
        control = Control()
        async with (
            serving(control, uds=tmp_path / "c"),
            shared(tmp_path, control=f"unix:{tmp_path / 'c'}") as (client, _),
        ):
            answer = await client.options(path, headers=asks(PAGE, "authorization", "content-type"))
            assert (answer.status_code, answer.content) == (204, b"")
            assert "content-length" not in answer.headers
            assert answer.headers[ALLOW] == PAGE
            assert answer.headers["vary"] == "origin"
            assert {"GET", "POST", "DELETE", "PATCH"} <= words(answer, "access-control-allow-methods")
            assert words(answer, "access-control-allow-headers") == {"authorization", "content-type"}
            assert int(answer.headers["access-control-max-age"]) > 0
            assert "access-control-allow-credentials" not in answer.headers
            assert not control.heads

    asyncio.run(main())


def test_headers_of_clients_are_known_and_others_are_not(tmp_path: Path) -> None:
    """What OpenAI's library says of itself passes; a header that nobody knows, or that is none, does not."""

    async def main() -> None:
        known = ["authorization", "x-request-id", "X-Stainless-Retry-Count", "x-stainless-os", "openai-project"]
        async with shared(tmp_path) as (client, _):
            answer = await client.options(URL, headers=asks(PAGE, *known, "x-evil", "", "x-stainless-a!b", "cookie"))
            assert words(answer, "access-control-allow-headers") == {name.lower() for name in known}
            answer = await client.options(URL, headers={"origin": PAGE, "access-control-request-method": "GET"})
            assert "authorization" in words(answer, "access-control-allow-headers")

    asyncio.run(main())


def test_every_answer_to_the_page_can_be_read(tmp_path: Path) -> None:
    """Answers, errors of every kind, streams, and what control says."""

    async def main() -> None:
        control = Control()
        async with (
            StandIn(tmp_path / "e") as engine,
            serving(control, uds=tmp_path / "c"),
            shared(tmp_path, deployed(engine.address), control=f"unix:{tmp_path / 'c'}", body_bytes=1000) as (
                client,
                _,
            ),
        ):
            sent = sent_by(PAGE)
            answers = [
                await client.post(URL, json=CHAT, headers=sent),
                await client.get("/v1/models", headers=sent),
                await client.post(URL, json=CHAT, headers=sent_by(PAGE, key="hr-unknown")),
                await client.post("/v1/chat/completions", json=CHAT | {"model": "nobody"}, headers=sent),
                await client.post(URL, content=b"x" * 2000, headers=sent),
                await client.get(URL, headers=sent),
                await client.get("/headrace/v1/status", headers=sent),
            ]
            assert [answer.status_code for answer in answers] == [200, 200, 401, 404, 413, 405, 207]
            async with client.stream("POST", URL, json=CHAT | {"stream": True}, headers=sent) as stream:
                pieces, whole = await pieces_of(stream)
            assert whole
            assert pieces
            for answer in (*answers, stream):
                assert answer.headers[ALLOW] == PAGE
                assert answer.headers["vary"] == "origin"
                assert {"x-request-id", "retry-after"} <= words(answer, EXPOSE)
                assert "access-control-allow-credentials" not in answer.headers

    asyncio.run(main())


def test_a_page_may_read_what_its_key_has_left(tmp_path: Path) -> None:
    """Every header of ours that an answer or a refusal of a key with limits carries is one that a page may read."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, shared(tmp_path, deployed(engine.address)) as (client, served):
            model = deployed(engine.address)
            await served.push(limited(model, tokens_per_minute=100, requests_per_minute=9))
            answers = [
                await client.post(URL, json=CHAT | {"max_tokens": most}, headers=sent_by(PAGE)) for most in (10, 1000)
            ]
            assert [answer.status_code for answer in answers] == [200, 429]
            told = {name for answer in answers for name in answer.headers if name.startswith("x-")}
            assert {"x-should-retry", "x-ratelimit-reset-tokens", "x-ratelimit-remaining-requests"} <= told
            assert told <= words(answers[0], EXPOSE)

    asyncio.run(main())


@pytest.mark.parametrize("origin", [OTHER, f"{PAGE}:8443", "http://chat.example.org", "null", ""])
def test_other_origins_get_nothing(tmp_path: Path, origin: str) -> None:
    """Their pages' requests are answered as ever, without a word by which a browser would let them read it."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            shared(tmp_path, deployed(engine.address)) as (client, served),
        ):
            answer = await client.post(URL, json=CHAT, headers=sent_by(origin))
            asked = await client.options(URL, headers=asks(origin, "authorization"))
            without = await served.client.options(URL, headers=asks(origin, "authorization"))
            assert answer.status_code == 200
            assert asked.status_code == 401, "as any request without a key"
            assert without.status_code == 405
            for one in (answer, asked, without):
                assert not [name for name in one.headers if name.startswith("access-control")]
            assert answer.headers["vary"] == "origin", "no cache gives it to a page that may read it"

    asyncio.run(main())


def test_a_client_that_is_no_page(tmp_path: Path) -> None:
    """Nothing changes for it; its own OPTIONS is a request like any other."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, shared(tmp_path, deployed(engine.address)) as (client, _):
            bearer = {"authorization": f"Bearer {KEY}"}
            answer = await client.post(URL, json=CHAT, headers=bearer)
            assert (answer.status_code, ALLOW in answer.headers) == (200, False)
            answer = await client.options(URL, headers=bearer)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
            answer = await client.options(URL, headers=sent_by(PAGE))
            assert (answer.status_code, answer.headers[ALLOW]) == (405, PAGE)

    asyncio.run(main())


def test_every_origin_where_that_was_said(tmp_path: Path) -> None:
    """All pages may read, by the one answer that says so; it does not vary."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            shared(tmp_path, deployed(engine.address), origins=("*",)) as (client, _),
        ):
            asked = await client.options(URL, headers=asks(OTHER, "authorization"))
            answer = await client.post(URL, json=CHAT, headers=sent_by(OTHER))
            assert (asked.status_code, answer.status_code) == (204, 200)
            for one in (asked, answer):
                assert one.headers[ALLOW] == "*"
                assert "vary" not in one.headers
                assert "access-control-allow-credentials" not in one.headers

    asyncio.run(main())


def test_a_stream_can_be_read_as_it_comes(tmp_path: Path) -> None:
    """The marks come with the head, before the engine makes the second chunk."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, shared(tmp_path, deployed(engine.address)) as (client, _):
            engine.script = Script(chunks=2, gated=True)
            engine.gate.release()
            async with client.stream("POST", URL, json=CHAT | {"stream": True}, headers=sent_by(PAGE)) as answer:
                assert answer.headers[ALLOW] == PAGE
                assert b"tok" in await anext(answer.aiter_raw())
                assert engine.seen.chunks_sent == 1

    asyncio.run(main())


async def read(exchange: Exchange) -> None:
    """A handler that wants the whole body."""
    await exchange.read_all(2**20)


async def refused(origins: tuple[str, ...], *sent: bytes, max_connections: int | None = None) -> dict[str, str]:
    """Status and headers of what the HTTP server answers by itself to these bytes."""
    cors = Cors(read_origins(origins), read)
    impatient = Patience(head_s=0.05, body_s=0.05, linger_s=0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = HttpServer(cors.handle, impatient, max_connections=max_connections, marks=cors.marks)
        await server.start(listener)
        try:
            answer = await exchanged(listener.getsockname()[1], *sent)
        finally:
            await server.close(0)
    status, *lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return {"status": status.split(" ")[1]} | dict(line.split(": ", 1) for line in lines)


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\norigin: %b\r\n"


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"x: " + b"y" * MAX_HEAD_BYTES, "431"),
        (b"x: y\r\n" * (MAX_HEAD_BYTES // 6), "431"),
        (b"x", "408"),
        (b"content-length: 9\r\n\r\n1234", "408"),
        (b"host: y\r\n\r\n", "400"),
        (b"transfer-encoding: chunked\r\n\r\nno size\r\n", "400"),
    ],
)
def test_the_servers_own_refusals_are_marked(rest: bytes, status: str) -> None:
    """A page may read why its request was none: one of the operator's, or any where every origin is meant."""
    told = asyncio.run(refused((PAGE,), HEAD % PAGE.encode() + rest))
    assert (told["status"], told[ALLOW], told["vary"]) == (status, PAGE, "origin")
    assert "retry-after" in told[EXPOSE]
    stranger = asyncio.run(refused((PAGE,), HEAD % OTHER.encode() + rest))
    assert (stranger["status"], stranger["vary"]) == (status, "origin")
    assert not {ALLOW, EXPOSE} & stranger.keys()
    assert asyncio.run(refused(("*",), HEAD % OTHER.encode() + rest))[ALLOW] == "*"


def test_a_refusal_before_anything_was_read_is_for_every_page_or_none() -> None:
    """For want of a connection nobody knows whose page asks."""
    told = asyncio.run(refused((PAGE,), max_connections=0))
    assert (told["status"], ALLOW in told, told["vary"]) == ("503", False, "origin")
    assert asyncio.run(refused(("*",), max_connections=0))[ALLOW] == "*"


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://Chat.example.org", "https://chat.example.org"),
        ("https://chat.example.org:443/", "https://chat.example.org"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://a:80", "http://a"),
        ("https://a:80", "https://a:80"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ("*", "*"),
    ],
)
def test_origins_are_taken_as_browsers_send_them(text: str, origin: str) -> None:
    """In lower case, without a slash, and without the port that the scheme means anyway."""
    assert read_origins([text]) == (origin,)


@pytest.mark.parametrize("text", ["", "a.org", "https://", "https://a/chat", "https://*.a", "null", "a b", "**"])
def test_what_is_no_origin(text: str) -> None:
    """It is refused at the start, not ignored."""
    with pytest.raises(BadField):
        read_origins([text])


def test_every_origin_stands_alone() -> None:
    """Beside it, others would be named to no purpose; one named twice counts once."""
    with pytest.raises(BadField):
        read_origins(["*", PAGE])
    assert read_origins([PAGE, f"{PAGE}/"]) == (PAGE,)
