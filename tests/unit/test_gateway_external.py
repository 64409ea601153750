"""External servers behind the gateway: TLS, keys, paths, errors, hang-ups."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_serving import BASE, CHAT, KEY, deployed, gateway_before, pieces_of
from msgspec.structs import replace

from external_servers import EXTERNAL_KEY, Scripted, certificate, server_context
from headrace.resources.egress import EVERYWHERE
from headrace.resources.external import read_base_url
from headrace.resources.snapshot import DeployedRoute, ExternalRoute, ReplicaRoute
from standin import Script, StandIn

ASK = CHAT | {"model": "my-endpoint"}


def routed(
    base_url: str,
    *,
    key: str = EXTERNAL_KEY,
    networks: tuple[str, ...] = EVERYWHERE,
    ca_file: str = "",
    model: str = "theirs",
    name: str = "d1",
) -> DeployedRoute:
    """A deployed model with this server behind it, as control's snapshot has it."""
    url = read_base_url(base_url)
    external = ExternalRoute(base_path=url.path, networks=networks, ca_file=ca_file)
    replica = ReplicaRoute(id=f"{name}-r", epoch=1, address=url.origin, nonce=key, external=external)
    host = url.origin.partition("://")[2]
    return replace(deployed(name=name), replicas=(replica,), external_host=host, served_name=model, max_model_len=0)


def code(answer: httpx.Response) -> str:
    """The stable code in OpenAI's shape."""
    found: str = answer.json()["error"]["code"]
    return found


def answered(app: Scripted, tmp_path: Path, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
    """What a client gets when the external server answers like this."""

    async def main() -> httpx.Response:
        async with app.serving() as url, gateway_before(tmp_path, routed(f"{url}/v1")) as served:
            return await served.client.post(path, json=body or ASK)

    return asyncio.run(main())


def asked_of(route: DeployedRoute, tmp_path: Path) -> httpx.Response:
    """What a client gets that asks this deployed model."""

    async def main() -> httpx.Response:
        async with gateway_before(tmp_path, route) as served:
            return await served.client.post("/v1/chat/completions", json=ASK)

    return asyncio.run(main())


def test_a_request_goes_out_with_their_key_and_their_name(tmp_path: Path) -> None:
    """The server sees its own key and its own name of the model, never the client's key; usage is metered."""

    async def main() -> None:
        async with (
            StandIn(token=EXTERNAL_KEY, name="theirs") as server,
            gateway_before(tmp_path, routed(f"{server.address}/v1")) as served,
        ):
            chat = await served.client.post("/v1/chat/completions", json=ASK | {"custom": [1.0, "as it is"]})
            text = await served.client.post("/v1/completions", json={"model": "my-endpoint", "prompt": "a"})
            vertex = await served.client.post(f"{BASE}:predict", json={"instances": [{"prompt": "a"}]})
            assert [each.status_code for each in (chat, text, vertex)] == [200, 200, 200], chat.text
            assert {body["model"] for body in server.seen.bodies} == {"theirs"}
            assert server.seen.bodies[0]["custom"] == [1.0, "as it is"]
            assert {sent["authorization"] for sent in server.seen.headers} == {f"Bearer {EXTERNAL_KEY}"}
            assert all(sent["user-agent"].startswith("headrace/") for sent in server.seen.headers)
            assert KEY not in str(server.seen)
            metrics = (await served.admin_get("/metrics")).text
            assert [line for line in metrics.splitlines() if "tokens" in line and line.endswith(" 21.0")], metrics

    asyncio.run(main())


def test_base_paths_take_the_place_of_v1(tmp_path: Path) -> None:
    """A base URL with another path is called there; one without a path at the root."""

    async def main() -> None:
        app = Scripted(200, b'{"choices": []}')
        async with app.serving() as url:
            for base in ("/openai/v1", ""):
                async with gateway_before(tmp_path, routed(url + base)) as served:
                    await served.client.post("/v1/chat/completions", json=ASK)
        assert [path for _, path, _ in app.asked] == ["/openai/v1/chat/completions", "/chat/completions"]

    asyncio.run(main())


def test_no_key_is_no_header(tmp_path: Path) -> None:
    """A server that wants no key is shown none."""

    async def main() -> None:
        async with StandIn() as server, gateway_before(tmp_path, routed(f"{server.address}/v1", key="")) as served:
            assert (await served.client.post("/v1/chat/completions", json=ASK)).status_code == 200
            assert "authorization" not in server.seen.headers[0]

    asyncio.run(main())


def test_https_is_streamed_on_kept_connections(tmp_path: Path) -> None:
    """Over TLS pieces come as they are made, and the next request finds the connection open."""
    pem = certificate(tmp_path, "DNS:localhost")

    async def main() -> None:
        async with StandIn(tls=server_context(pem)) as server:
            route = routed(f"https://localhost:{server.port}/v1", ca_file=str(tmp_path / "certificate.pem"))
            async with gateway_before(tmp_path, route) as served:
                server.script = Script(chunks=3, gated=True)
                server.gate.release()
                async with served.client.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True}) as got:
                    stream = got.aiter_raw()
                    pieces = [await anext(stream)]
                    for _ in range(2):
                        server.gate.release()  # the next piece is made only now: the last one was not held for it
                        pieces.append(await anext(stream))
                    assert all(b"tok" in piece for piece in pieces)
                    assert b"[DONE]" in b"".join([*pieces, *[piece async for piece in stream]])
                server.gate.release()
                assert (await served.client.post("/v1/chat/completions", json=ASK)).status_code == 200
                assert server.seen.connections == 1

    asyncio.run(main())


def test_hanging_up_closes_the_servers_connection(tmp_path: Path) -> None:
    """A client that leaves stops the work of a server that is not ours, over TLS too."""
    pem = certificate(tmp_path, "IP:127.0.0.1")

    async def main() -> None:
        async with StandIn(tls=server_context(pem)) as server:
            route = routed(f"https://127.0.0.1:{server.port}/v1", ca_file=str(tmp_path / "certificate.pem"))
            async with gateway_before(tmp_path, route) as served:
                server.script = Script(chunks=3, gated=True)
                server.gate.release()
                async with served.client.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True}) as got:
                    await anext(got.aiter_raw())
                await server.until(cancelled=1)

    asyncio.run(main())


def test_a_stale_connection_is_replaced(tmp_path: Path) -> None:
    """A server that closed its kept connections meanwhile is asked again on a new one; the client sees nothing."""

    async def main() -> None:
        async with StandIn() as server, gateway_before(tmp_path, routed(f"{server.address}/v1")) as served:
            for _ in range(2):
                assert (await served.client.post("/v1/chat/completions", json=ASK)).status_code == 200
                server.drop_connections()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("names", "trusted", "why"),
    [
        ("IP:127.0.0.1", False, "self-signed"),
        ("DNS:elsewhere.example", True, "127.0.0.1"),
    ],
)
def test_a_certificate_that_does_not_hold_sends_nothing(tmp_path: Path, names: str, trusted: bool, why: str) -> None:
    """Nobody's certificate, or another name's, is a 502 that says so; the request, with its key, stays here."""
    pem = certificate(tmp_path, names)
    ca_file = str(tmp_path / "certificate.pem") if trusted else ""

    async def main() -> None:
        async with StandIn(tls=server_context(pem)) as server:
            route = routed(f"https://127.0.0.1:{server.port}/v1", ca_file=ca_file)
            async with gateway_before(tmp_path, route) as served:
                answer = await served.client.post("/v1/chat/completions", json=ASK)
            assert (answer.status_code, code(answer)) == (502, "EXTERNAL_TLS_INVALID")
            assert why in answer.text
            assert server.seen.began == 0

    asyncio.run(main())


def test_an_address_inside_is_refused_at_the_connection(tmp_path: Path) -> None:
    """A name that leads to this machine is not called unless that was opened: what counts is where it leads now."""

    async def main() -> None:
        async with StandIn() as server:
            route = routed(f"http://localhost:{server.port}/v1", networks=())
            async with gateway_before(tmp_path, route) as served:
                answer = await served.client.post("/v1/chat/completions", json=ASK)
            assert (answer.status_code, code(answer)) == (403, "EXTERNAL_ADDRESS_FORBIDDEN")
            assert server.seen.connections == 0

    asyncio.run(main())


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://nobody.invalid/v1"])
def test_a_server_that_is_not_there(tmp_path: Path, url: str) -> None:
    """Nobody listens, or nobody knows the name: 503 and a time to wait."""
    answer = asked_of(routed(url), tmp_path)
    assert (answer.status_code, code(answer)) == (503, "EXTERNAL_UNREACHABLE")
    assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    ("status", "said", "seen_status", "seen_code"),
    [
        (401, {"error": {"message": f"Incorrect API key: {EXTERNAL_KEY}"}}, 502, "EXTERNAL_REFUSED"),
        (403, {"error": {"message": f"{EXTERNAL_KEY} may not"}}, 502, "EXTERNAL_REFUSED"),
        (402, {}, 502, "EXTERNAL_REFUSED"),
        (404, {"error": {"code": "model_not_found", "message": "no"}}, 502, "EXTERNAL_MODEL_MISSING"),
        (404, {"object": "error", "message": "The model `x` does not exist."}, 502, "EXTERNAL_MODEL_MISSING"),
        (404, {"detail": "Not Found"}, 501, "NOT_SUPPORTED"),
        (501, {"error": {"message": "no embeddings"}}, 501, "NOT_SUPPORTED"),
        (500, {"error": {"message": "boom"}}, 503, "ENGINE_FAILED"),
        (529, {}, 503, "ENGINE_FAILED"),
        (302, {}, 503, "ENGINE_FAILED"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", f"{BASE}:rawPredict"])
def test_errors_of_theirs_in_our_words(
    tmp_path: Path, path: str, status: int, said: dict[str, Any], seen_status: int, seen_code: str
) -> None:
    """Their errors become codes of ours, their 401 never the client's, and no part of the key comes back."""
    app = Scripted(status, json.dumps(said).encode(), location="http://127.0.0.1:1/")
    answer = answered(app, tmp_path, path)
    assert answer.status_code == seen_status, answer.text
    assert seen_code in answer.text
    assert EXTERNAL_KEY not in answer.text
    assert len(app.asked) == 1


ECHO = f'{{"error": {{"code": "model_not_found", "message": "You sent: authorization: Bearer {EXTERNAL_KEY}"}}}}'


@pytest.mark.parametrize("status", [200, 201, 302, 400, 404, 413, 422, 429, 500, 503])
@pytest.mark.parametrize("path", ["/v1/chat/completions", f"{BASE}:rawPredict", f"{BASE}:predict"])
def test_a_key_that_is_repeated_goes_no_further(tmp_path: Path, path: str, status: int) -> None:
    """A server that shows a request's headers in its answer, of whatever status, shows our key to nobody."""
    app = Scripted(status, ECHO.encode(), content_type=f"application/json; key={EXTERNAL_KEY}")
    answer = answered(app, tmp_path, path, **(ASK if "predict" not in path else {"instances": [{"prompt": "a"}]}))
    assert app.asked, answer.text
    assert EXTERNAL_KEY not in answer.text
    assert EXTERNAL_KEY not in str(answer.headers)


def test_a_key_in_a_stream_goes_no_further(tmp_path: Path) -> None:
    """Nor does the key in an event of a stream, and the rest of the stream is as it was."""
    events = f'data: {{"said": {ECHO}}}\n\ndata: {{}}\n\ndata: [DONE]\n\n'
    app = Scripted(200, events.encode(), content_type="text/event-stream")
    answer = answered(app, tmp_path, **ASK, stream=True)
    assert answer.text == events.replace(EXTERNAL_KEY, "***")


@pytest.mark.parametrize(
    ("status", "seen_status", "seen_code"),
    [
        (200, 502, "EXTERNAL_NOT_OPENAI"),
        (400, 502, "EXTERNAL_NOT_OPENAI"),
        (401, 502, "EXTERNAL_REFUSED"),
        (429, 429, "QUEUE_FULL"),
        (503, 503, "ENGINE_FAILED"),
    ],
)
def test_what_is_compressed_is_not_passed_on_as_json(
    tmp_path: Path, status: int, seen_status: int, seen_code: str
) -> None:
    """A server that compresses although it was asked not to is a 502 that says so, unless its status says all."""
    app = Scripted(status, gzip.compress(b'{"choices": []}'), content_encoding="gzip")
    answer = answered(app, tmp_path)
    assert (answer.status_code, code(answer)) == (seen_status, seen_code)
    assert "gzip" in answer.text or seen_code != "EXTERNAL_NOT_OPENAI"


def test_a_header_without_end_stops_nobody(tmp_path: Path) -> None:
    """A server whose header never ends is given up at once."""

    async def main() -> None:
        async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nx-a: ")
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"a" * 65536)
                    await writer.drain()

        server = await asyncio.start_server(endless, "127.0.0.1", 0)
        route = routed(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        async with asyncio.timeout(5), gateway_before(tmp_path, route) as served:
            answer = await served.client.post("/v1/chat/completions", json=ASK)
        assert (answer.status_code, code(answer)) == (503, "EXTERNAL_UNREACHABLE")
        assert "no head that ends" in answer.text
        server.close()

    asyncio.run(main())


def test_a_request_at_fault_is_told_in_their_words(tmp_path: Path) -> None:
    """400 goes to OpenAI's clients as it is."""
    app = Scripted(400, b'{"error": {"message": "temperature is odd", "code": "x"}}')
    answer = answered(app, tmp_path)
    assert (answer.status_code, code(answer)) == (400, "x")


@pytest.mark.parametrize(
    ("told", "passed_on"),
    [
        ("7", "7"),
        ("1.5", "2"),
        ("Fri, 31 Dec 9999 23:59:59 GMT", "3600"),
        ("Sun, 06 Nov 1994 08:49:37 GMT", "1"),
        ("soon", "1"),
        ("nan", "1"),
    ],
)
def test_429_is_passed_on_with_its_wait(tmp_path: Path, told: str, passed_on: str) -> None:
    """A busy server's 429 stays one, with the time that it asks for, however that is written; an hour at most."""
    answer = answered(Scripted(429, b"{}", retry_after=told), tmp_path)
    assert (answer.status_code, code(answer)) == (429, "QUEUE_FULL")
    assert answer.headers["retry-after"] == passed_on


def test_a_stream_that_breaks_off_says_who_did(tmp_path: Path) -> None:
    """A server that dies in its answer leaves an error event, and no [DONE]."""

    async def main() -> None:
        async with StandIn() as server, gateway_before(tmp_path, routed(f"{server.address}/v1")) as served:
            server.script = Script(chunks=4, die_after=2)
            async with served.client.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True}) as got:
                pieces, whole = await pieces_of(got)
            assert not whole
            assert b"ENGINE_BROKE_OFF" in b"".join(pieces)
            assert f"127.0.0.1:{server.port}".encode() in b"".join(pieces)

    asyncio.run(main())


def test_traffic_is_split_between_theirs_and_ours(tmp_path: Path) -> None:
    """An endpoint may have an engine of ours and a server of theirs, each with its share."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as ours, StandIn(name="theirs") as theirs:
            models = (
                deployed(ours.address, name="ours", traffic=50),
                replace(routed(f"{theirs.address}/v1", name="theirs"), traffic=50),
            )
            async with gateway_before(tmp_path, *models) as served:
                for _ in range(10):
                    assert (await served.client.post("/v1/chat/completions", json=ASK)).status_code == 200
            assert (ours.seen.began, theirs.seen.began) == (5, 5)

    asyncio.run(main())
