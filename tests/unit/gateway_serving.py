"""A gateway that serves a loopback port, with stand-in engines behind it."""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from headrace.gateway import Gateway, HttpServer, Limits
from headrace.gateway.exchange import Handler
from headrace.gateway.http1 import Patience
from headrace.resources.access import EVERY_PROJECT, Principal, Role, secret_hash
from headrace.resources.names import Scope
from headrace.resources.request_log import RequestLog
from headrace.resources.snapshot import DeployedRoute, EndpointRoute, KeyRoute, ReplicaRoute, RoutingSnapshot

if TYPE_CHECKING:
    from headrace.gateway.tracing import Tracing

ADMIN_TOKEN = "internal-token"
KEY, OTHER_KEY, VIEWER_KEY, EVERYWHERE_KEY = "hr-key", "hr-other", "hr-viewer", "hr-everywhere"
SCOPE = Scope("default", "us-central1")
BASE = f"/v1/{SCOPE}/endpoints/e1"
CHAT: dict[str, Any] = {"model": "anything", "messages": [{"role": "user", "content": "hi"}]}
CONTENTS: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def _bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def key(secret: str, role: Role = Role.PREDICTOR, project: str = "default") -> KeyRoute:
    """A key as the gateway knows it."""
    return KeyRoute(secret_hash=secret_hash(secret), principal=Principal(f"id-{secret}", secret, project, role))


KEYS = (
    key(KEY),
    key(OTHER_KEY, project="elsewhere"),
    key(VIEWER_KEY, Role.VIEWER),
    key(EVERYWHERE_KEY, Role.VIEWER, EVERY_PROJECT),
)


def deployed(*addresses: str, name: str = "d1", traffic: int = 100, **more: Any) -> DeployedRoute:
    """A deployed model whose replicas listen at these addresses."""
    replicas = tuple(
        ReplicaRoute(id=f"{name}-r{index}", epoch=1, address=address, nonce="nonce")
        for index, address in enumerate(addresses)
    )
    fields: dict[str, Any] = {
        "deployment_id": f"dep-{name}",
        "model": f"{SCOPE}/models/m-{name}",
        "model_version": "1",
        "model_display_name": "custom-model",
        "model_user_id": "my-model",
        "served_name": "served",
        "max_model_len": 512,
        "created_at": 1.0,
    }
    return DeployedRoute(id=name, traffic=traffic, replicas=replicas, **(fields | more))


def snapshot(
    *models: DeployedRoute,
    generation: int = 1,
    keys: tuple[KeyRoute, ...] = KEYS,
    request_log: RequestLog | None = None,
) -> RoutingSnapshot:
    """One endpoint, ``e1``, with these deployed models."""
    endpoint = EndpointRoute(scope=SCOPE, id="e1", display_name="my-endpoint", deployed=models, request_log=request_log)
    return RoutingSnapshot(generation=generation, endpoints=(endpoint,), keys=keys)


@asynccontextmanager
async def serving(
    handler: Handler,
    *,
    uds: Path | None = None,
    patience: Patience | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """The handler behind our server, on a loopback port or a unix socket; yields its base address."""
    family = socket.AF_UNIX if uds else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind(str(uds) if uds else ("127.0.0.1", 0))
        listener.listen(256)
        server = HttpServer(handler, patience)
        await server.start(listener, tls)
        scheme = "http" if tls is None else "https"
        try:
            yield "http://gateway" if uds else f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await server.close(0)


class Served:
    """A gateway that runs.

    Attributes:
        url: Base address of its public port.
        client: An HTTP client of that port that shows `KEY`.
        admin: One of the admin socket that shows the internal token.
    """

    def __init__(self, gateway: Gateway, url: str, client: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
        self.gateway, self.url, self.client, self.admin = gateway, url, client, admin

    async def push(self, value: RoutingSnapshot) -> httpx.Response:
        """Push a snapshot, as control does."""
        return await self.admin.put("/snapshot", content=msgspec.json.encode(value))

    async def admin_get(self, path: str) -> httpx.Response:
        """Ask the admin socket."""
        return await self.admin.get(path)


@asynccontextmanager
async def gateway_before(
    folder: Path,
    *models: DeployedRoute,
    control: str = "unix:/nowhere",
    tracing: Tracing | None = None,
    **limits: Any,
) -> AsyncIterator[Served]:
    """A gateway that serves and has a snapshot with these deployed models."""
    gateway = Gateway(
        snapshot_path=folder / "snapshot.json",
        control_address=control,
        admin_token=ADMIN_TOKEN,
        limits=Limits(**limits),
        tracing=tracing,
    )
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nobody else waits
    async with serving_gateway(gateway, folder / f"{secrets.token_hex(4)}.admin") as served:
        answer = await served.push(snapshot(*models))
        assert answer.status_code == 200, answer.text
        yield served


@asynccontextmanager
async def serving_gateway(gateway: Gateway, admin_socket: Path) -> AsyncIterator[Served]:
    """This gateway on its two sockets."""
    async with (
        serving(gateway.handle) as url,
        serving(gateway.admin.handle, uds=admin_socket) as admin_url,
        httpx.AsyncClient(base_url=url, headers=_bearer(KEY), timeout=20, trust_env=False) as client,
        httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(admin_socket)), base_url=admin_url, headers=_bearer(ADMIN_TOKEN)
        ) as admin,
    ):
        yield Served(gateway, url, client, admin)
    await gateway.close()


async def pieces_of(response: httpx.Response) -> tuple[list[bytes], bool]:
    """All pieces of a streamed body, and whether it came to its end."""
    pieces = []
    with contextlib.suppress(httpx.RemoteProtocolError):
        async for piece in response.aiter_raw():
            pieces.append(piece)
        return pieces, True
    return pieces, False
