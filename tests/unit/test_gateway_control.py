"""What is not inference goes to the control plane as it came, but for what no client may reach or claim."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gateway_serving import CHAT, deployed, gateway_before, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.gateway.exchange import Exchange
from headrace.gateway.request_head import RequestHead
from headrace.gateway.routes import Action, is_private, match


class Control:
    """A control plane that answers with what it was asked."""

    def __init__(self) -> None:
        self.heads: list[RequestHead] = []
        self.pieces: list[bytes] = []
        self.changed = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        self.heads.append(exchange.head)
        async for piece in exchange.body():
            self.pieces.append(piece)
            self.changed.set()
        await exchange.start(207, [(b"content-type", b"text/x"), (b"x-own", b"1"), (b"keep-alive", b"timeout=5")])
        await exchange.write(b"first|")
        await exchange.end(b"".join(self.pieces))

    def header(self, name: bytes) -> bytes:
        """A header of the last request."""
        return self.heads[-1].header(name) or b""


def test_requests_pass_through(tmp_path: Path) -> None:
    """Method, path, query, body and headers reach control; status, headers and body come back."""

    async def main() -> None:
        control = Control()
        async with (
            serving(control, uds=tmp_path / "c"),
            gateway_before(tmp_path, control=f"unix:{tmp_path / 'c'}") as served,
        ):
            path = "/v1/projects/p/locations/l/models/12%402:copy?%24alt=json%3Benum-encoding%3Dint"
            forged = {"x-forwarded-for": "1.2.3.4", "connection": "x-hop", "x-hop": "1", "x-mine": "2"}
            answer = await served.client.patch(path, content=b"body", headers=forged)
            assert (answer.status_code, answer.text, answer.headers["x-own"]) == (207, "first|body", "1")
            assert "keep-alive" not in answer.headers
            head = control.heads[0]
            assert head.method == "PATCH"
            assert head.target + b"?" + head.query == path.encode()
            assert control.header(b"x-forwarded-for") == b"127.0.0.1"
            assert control.header(b"host") == served.url.removeprefix("http://").encode()
            assert (control.header(b"x-mine"), control.header(b"x-hop")) == (b"2", b"")
            assert control.header(b"x-request-id").decode() == answer.headers["x-request-id"]
            assert (await served.client.head("/v1/x")).status_code == 207
            assert (await served.client.post("/v1/projects/p/locations/l/endpoints/e:directPredict")).status_code == 207

    asyncio.run(main())


def test_bodies_stream_to_control(tmp_path: Path) -> None:
    """Control has the first piece of a body before the client has sent the last one."""

    async def main() -> None:
        control = Control()
        async with (
            serving(control, uds=tmp_path / "c"),
            gateway_before(tmp_path, control=f"unix:{tmp_path / 'c'}") as served,
        ):

            async def body() -> AsyncIterator[bytes]:
                yield b"one,"
                await control.changed.wait()
                yield b"two"

            answer = await served.client.post("/v1/files", content=body())
            assert answer.text == "first|one,two"

    asyncio.run(main())


def test_client_that_stops_in_its_body(tmp_path: Path) -> None:
    """A client that hangs up in the middle of its body is noticed by control too, and leaves nothing behind."""

    async def main() -> None:
        control = Control()
        async with (
            serving(control, uds=tmp_path / "c"),
            gateway_before(tmp_path, control=f"unix:{tmp_path / 'c'}") as served,
        ):
            host, port = served.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nsome")
            await control.changed.wait()
            writer.transport.abort()
            assert await served.gateway.drain(10) == 0

    asyncio.run(main())


PRIVATE = [
    "/internal",
    "/internal/nodes/1",
    "//internal/x",
    "/%69nternal/x",
    "/./internal",
    "/a/../internal",
    "/INTERNAL/x",
    "/internal/../healthz",
    "/internal/nodes/..%5c..%5cx",
    "/internal%5c..%5cx",
    "/a/../internal/%2e%2e/x",
]


@pytest.mark.parametrize("path", [*PRIVATE, "/%2Finternal/x", "/a%2f..%2finternal", "/..%2finternal", "\\internal"])
def test_internal_paths_are_private(path: str) -> None:
    """However it is written, a path to our own processes' routes is one."""
    assert is_private(path)


def test_internal_paths_are_never_forwarded(tmp_path: Path) -> None:
    """Control does not even hear of a request for them."""

    async def main() -> None:
        control = Control()
        async with (
            serving(control, uds=tmp_path / "c"),
            gateway_before(tmp_path, control=f"unix:{tmp_path / 'c'}") as served,
        ):
            host, port = served.url.removeprefix("http://").split(":")
            for path in PRIVATE:
                reader, writer = await asyncio.open_connection(host, int(port))  # clients would tidy the path up
                writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
                assert b"404" in await reader.readline(), path
                writer.close()
            assert control.heads == []

    asyncio.run(main())


@settings(deadline=None)
@given(
    path=st.one_of(st.binary(max_size=80), st.text("/:%ab1v.projectslocationsendpoints", max_size=80).map(str.encode))
)
def test_any_path_has_a_meaning(path: bytes) -> None:
    """No path breaks the reading of paths."""
    for method in ("GET", "POST", "DELETE"):
        assert match(method, b"/" + path.replace(b"\n", b"")).action in Action


SEGMENT = st.text("abcXYZ019-._~@*", min_size=1, max_size=12).filter(lambda text: text not in (".", ".."))


def encoded(text: str) -> str:
    """Every character percent-encoded."""
    return "".join(f"%{byte:02X}" for byte in text.encode())


@settings(deadline=None)
@given(
    project=SEGMENT,
    location=SEGMENT,
    endpoint=SEGMENT,
    version=st.sampled_from(["v1", "v1beta1"]),
    method=st.sampled_from([":predict", "/chat/completions", "/invoke/completions", "/invoke/v1/chat/completions"]),
    escape=st.booleans(),
)
def test_endpoint_paths_are_read_back(
    project: str, location: str, endpoint: str, version: str, method: str, escape: bool
) -> None:
    """What is put into a path is what comes out of it, percent-encoded or not."""
    write = encoded if escape else str
    target = f"/{version}/projects/{write(project)}/locations/{write(location)}/endpoints/{write(endpoint)}{method}"
    found = match("POST", target.encode())
    assert found.action in (Action.PREDICT, Action.CHAT, Action.COMPLETIONS)
    assert found.endpoint is not None
    assert (found.endpoint.project, found.endpoint.location, found.endpoint.endpoint) == (project, location, endpoint)


@pytest.mark.parametrize(
    ("method", "target", "action"),
    [
        ("POST", "/v1/projects/p/locations/l:deploy", Action.CONTROL),
        ("GET", "/v1/projects/p/locations/l/endpoints/e", Action.CONTROL),
        ("POST", "/v1/projects/p/locations/l/endpoints/e:undeployModel", Action.CONTROL),
        ("GET", "/v1/projects/p/locations/l/endpoints/e:predict", Action.WRONG_METHOD),
        ("POST", "/v2/projects/p/locations/l/endpoints/e:predict", Action.CONTROL),
        ("POST", "/v1/projects/p/locations/l/endpoints/:predict", Action.CONTROL),
        ("POST", "/v1/projects/p/locations/l/endpoints/e:predict/x", Action.CONTROL),
        ("POST", "/v1/projects/p/locations/l/endpoints/e/deployedModels/d/chat/completions", Action.CONTROL),
        ("POST", "/v1/projects/p/locations/l/endpoints/a%2Fb:predict", Action.PREDICT),
        ("GET", "/v1/models/", Action.CONTROL),
        ("GET", "/v1/models/a%2Fb", Action.MODEL),
        ("POST", "/v1/models", Action.WRONG_METHOD),
        ("DELETE", "/v1/models/a", Action.WRONG_METHOD),
        ("POST", "/healthz", Action.WRONG_METHOD),
        ("QUERY", "/healthz", Action.WRONG_METHOD),
        ("GET", "/", Action.ROOT),
        ("GET", "/ui/projects/p/locations/l/operations/1", Action.CONTROL),
    ],
)
def test_whose_path_it_is(method: str, target: str, action: Action) -> None:
    """Control gets every path that is not the gateway's own."""
    assert match(method, target.encode()).action is action


def test_requests_that_two_readers_take_differently(tmp_path: Path) -> None:
    """Ambiguous framing is refused at the door, so nothing can be smuggled to control."""

    async def main() -> None:
        control = Control()
        async with (
            serving(control, uds=tmp_path / "c"),
            gateway_before(tmp_path, control=f"unix:{tmp_path / 'c'}") as served,
        ):
            host, port = served.url.removeprefix("http://").split(":")
            framings: list[Any] = [
                "content-length: 4\r\ntransfer-encoding: chunked",
                "content-length: 4\r\ncontent-length: 5",
                "transfer-encoding: xchunked\r\ncontent-length: 4",
                "content-length: +4",
            ]
            for framing in framings:
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(
                    f"POST /v1/x HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n0\r\n\r\nGET /v1/y HTTP/1.1\r\n\r\n".encode()
                )
                assert b" 400 " in await reader.readline(), framing
                writer.close()
            assert [head.target for head in control.heads if head.target == b"/v1/y"] == []

    asyncio.run(main())


def test_control_down_and_back(tmp_path: Path) -> None:
    """Without control its paths say so while inference goes on, and they work again once it is back."""

    async def main() -> None:
        control = Control()
        address = f"unix:{tmp_path / 'c'}"
        async with gateway_before(tmp_path, deployed(), control=address, control_returns_s=0) as served:
            for _ in range(2):
                async with serving(control, uds=tmp_path / "c"):
                    assert (await served.client.get("/v1/x")).status_code == 207
                os.unlink(tmp_path / "c")
                down = await served.client.get("/v1/projects/p/locations/l/endpoints")
                assert down.status_code == 503
                assert down.json()["error"]["details"][0]["reason"] == "CONTROL_PLANE_DOWN"
                inference = await served.client.post("/v1/chat/completions", json=CHAT | {"model": "e1"})
                assert inference.json()["error"]["code"] == "NOT_READY"

    asyncio.run(main())


def test_who_comes_while_control_starts_waits_for_it(tmp_path: Path) -> None:
    """What finds nobody there, changes too, reaches the next control whole and once; inference is not held up by it."""

    async def main() -> None:
        control = Control()
        async with gateway_before(tmp_path, deployed(), control=f"unix:{tmp_path / 'c'}") as served:
            waiting = [
                asyncio.create_task(served.client.post("/v1/x", content=b"first")),
                asyncio.create_task(served.client.get("/v1/y")),
            ]
            inference = await served.client.post("/v1/chat/completions", json=CHAT | {"model": "e1"})
            assert inference.json()["error"]["code"] == "NOT_READY"
            assert not any(one.done() for one in waiting)
            async with serving(control, uds=tmp_path / "c"):
                answers = await asyncio.gather(*waiting)
        assert [answer.status_code for answer in answers] == [207, 207]
        assert answers[0].text == "first|first"
        assert sorted(head.target for head in control.heads) == [b"/v1/x", b"/v1/y"]

    asyncio.run(main())


@pytest.mark.parametrize(("method", "status", "times"), [("GET", 200, 2), ("POST", 503, 1), ("DELETE", 503, 1)])
def test_what_control_was_working_on_is_sent_again_only_if_it_is_read(
    tmp_path: Path, method: str, status: int, times: int
) -> None:
    """A control that ends in the midst of a request may have carried it out: its next one gets nothing but reads."""
    seen = []

    async def break_off_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        if len(seen) > 1:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async def main() -> None:
        async with (
            await asyncio.start_unix_server(break_off_first, tmp_path / "c"),
            gateway_before(tmp_path, control=f"unix:{tmp_path / 'c'}") as served,
        ):
            answer = await served.client.request(method, "/v1/x")
            assert (answer.status_code, len(seen)) == (status, times)
            if status == 503:
                assert "may have been carried out" in answer.text

    asyncio.run(main())
