"""The routes that nodes use, and the client that talks to the gateway: over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import msgspec
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from scripted import World

from headrace.api.internal import internal_router
from headrace.control import GatewayAway, HttpGatewayClient
from headrace.resources.assignments import NodeOrders
from headrace.resources.errors import HeadraceError
from headrace.resources.nodes import Node
from headrace.resources.snapshot import GatewayStatus, RoutingSnapshot

TOKEN = "between-us"


def _app(world: World) -> FastAPI:
    app = FastAPI()
    app.include_router(internal_router(world.reconciler, TOKEN))

    async def told(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HeadraceError)
        return Response(error.code, status_code=error.http_status)

    app.add_exception_handler(HeadraceError, told)
    return app


async def _call(
    world: World, method: str, path: str, *, token: str | None = TOKEN, body: bytes = b""
) -> httpx.Response:
    headers = {} if token is None else {b"authorization": f"Bearer {token}".encode()}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=_app(world)), base_url="http://control") as client:
        return await client.request(method, path, headers=headers, content=body)


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", "bétween"])
@pytest.mark.parametrize(("method", "path"), [("GET", "orders"), ("PUT", "report")])
def test_strangers_get_nothing(world: World, method: str, path: str, token: str | None) -> None:
    """Without the internal token, a node's routes answer 401."""
    response = asyncio.run(_call(world, method, f"/internal/nodes/local/{path}", token=token))
    assert (response.status_code, response.text) == (401, "UNKNOWN_KEY")


def test_orders_and_reports_cross_the_wire(world: World) -> None:
    """A report is stored; orders come back as the typed message, by their generation."""
    body = msgspec.json.encode(world.node.report(world.clock.now))

    async def scenario() -> NodeOrders:
        assert (await _call(world, "PUT", "/internal/nodes/local/report", body=body)).status_code == 204
        world.deploy()
        world.node.silent = True
        await world.turns(3)
        response = await _call(world, "GET", "/internal/nodes/local/orders?seen=0&wait_s=5")
        return msgspec.json.decode(response.content, type=NodeOrders)

    orders = asyncio.run(scenario())
    assert orders.generation > 0
    assert [stage.artifact_uri for stage in orders.stages] == ["file:///models/llama"]
    (node,) = world.rows(Node)
    assert (node.id, node.boot_id, node.cores) == ("local", "boot-1", 2)


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("PUT", "local/report", b"{", "BAD_JSON"),
        ("PUT", "local/report", b"{}", "BAD_JSON"),
        ("PUT", "other/report", None, "BAD_FIELD"),
        ("PUT", "local/report", b" " * ((16 << 20) + 1), "BODY_TOO_LARGE"),
        ("GET", "local/orders?seen=x", b"", "BAD_FIELD"),
        ("GET", "local/orders?wait_s=-1", b"", "BAD_FIELD"),
        ("GET", "local/orders?wait_s=nan", b"", "BAD_FIELD"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_nonsense_is_told(world: World, method: str, path: str, body: bytes | None, code: str) -> None:
    """What is no report, or another node's, or no number, is refused with its code, and nothing is stored."""
    content = msgspec.json.encode(world.node.report(1.0)) if body is None else body
    response = asyncio.run(_call(world, method, f"/internal/nodes/{path}", body=content))
    assert response.text == code
    assert world.rows(Node) == []


async def _with_gateway(folder: Path, app: FastAPI, work: Callable[[HttpGatewayClient], Awaitable[None]]) -> None:
    path = folder / "gateway.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    client = HttpGatewayClient(path, TOKEN)
    try:
        await work(client)
    finally:
        await client.close()
        server.should_exit = True
        await serving


def test_the_gateway_client_speaks_the_admin_sockets_language(tmp_path: Path) -> None:
    """A push carries the token and the whole snapshot; a refusal is answered by asking what the gateway has."""
    app, seen = FastAPI(), []

    async def push(request: Request) -> Response:
        seen.append(request.headers["authorization"])
        snapshot = msgspec.json.decode(await request.body(), type=RoutingSnapshot)
        if snapshot.generation < 5:
            return Response("stale", status_code=409)
        return Response(msgspec.json.encode(GatewayStatus(generation=snapshot.generation)))

    async def status(_request: Request) -> Response:
        return Response(msgspec.json.encode(GatewayStatus(generation=5, outstanding={"r": 1})))

    app.add_api_route("/snapshot", push, methods=["PUT"])
    app.add_api_route("/status", status, methods=["GET"])

    async def work(client: HttpGatewayClient) -> None:
        assert await client.push(RoutingSnapshot(generation=6)) == GatewayStatus(generation=6)
        assert (await client.push(RoutingSnapshot(generation=4))).generation == 5
        assert (await client.status()).outstanding == {"r": 1}

    asyncio.run(_with_gateway(tmp_path, app, work))
    assert set(seen) == {f"Bearer {TOKEN}"}


def test_a_gateway_that_does_not_answer_is_away(tmp_path: Path) -> None:
    """No socket, or an answer that is none: one exception for both."""

    async def nobody() -> None:
        with pytest.raises(GatewayAway):
            await HttpGatewayClient(tmp_path / "none.sock", TOKEN).status()

    async def confused(client: HttpGatewayClient) -> None:
        with pytest.raises(GatewayAway):
            await client.status()

    asyncio.run(nobody())
    asyncio.run(_with_gateway(tmp_path, FastAPI(), confused))
