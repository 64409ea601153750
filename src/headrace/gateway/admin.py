"""The gateway's admin socket: control pushes snapshots and asks for the status, Prometheus reads the metrics."""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from headrace.contracts.vertex.errors import google_error
from headrace.gateway.answering import send_error, send_json
from headrace.gateway.authentication import key_of
from headrace.gateway.exchange import Exchange
from headrace.gateway.limits import Limits
from headrace.gateway.metrics import Metrics
from headrace.gateway.record import RequestRecord
from headrace.gateway.routes import RouteEntry
from headrace.gateway.routing import Routing
from headrace.gateway.snapshot_file import save_snapshot
from headrace.resources.access import Process
from headrace.resources.errors import BadJson, HeadraceError, MethodNotAllowed, NoKey, UnknownKey, UnknownPath
from headrace.resources.snapshot import RoutingSnapshot

_ROUTES = (("PUT", "/snapshot"), ("GET", "/status"), ("GET", "/metrics"))


def admin_routes() -> tuple[RouteEntry, ...]:
    """Every route of the admin socket; all need the internal token."""
    return tuple(RouteEntry(Process.GATEWAY_ADMIN, method, path) for method, path in _ROUTES)


class Admin:
    """Answers exchanges on the admin socket.

    Args:
        token: The internal token, which every request must show.
    """

    def __init__(self, routing: Routing, metrics: Metrics, snapshot_path: Path, *, token: str, limits: Limits) -> None:
        self._routing = routing
        self._metrics = metrics
        self._snapshot_path = snapshot_path
        self._token = token.encode()
        self._limits = limits
        self._pushing = asyncio.Lock()

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        record = RequestRecord(exchange.head)
        try:
            self._authenticate(exchange)
            await self._dispatch(exchange, record)
        except HeadraceError as error:
            await send_error(exchange, record, error, google_error)

    def _authenticate(self, exchange: Exchange) -> None:
        key = key_of(exchange.head)
        if not key:
            raise NoKey("The gateway's admin socket needs the internal token.")
        if not hmac.compare_digest(key.encode(), self._token):
            raise UnknownKey("This is not the internal token.")

    async def _dispatch(self, exchange: Exchange, record: RequestRecord) -> None:
        route = (exchange.head.method, record.path)
        if route == ("PUT", "/snapshot"):
            await self._push(exchange)
            await send_json(exchange, record, self._routing.status)
        elif route == ("GET", "/status"):
            await send_json(exchange, record, self._routing.status)
        elif route == ("GET", "/metrics"):
            text = await self._metrics.render()
            await exchange.answer(200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], text)
        else:
            methods = [method for method, path in _ROUTES if path == record.path]
            if not methods:
                raise UnknownPath(f"The admin socket has no {record.path}.")
            raise MethodNotAllowed(f"{record.path} takes {methods[0]}.", evidence=f"The request is {record.method}.")

    async def _push(self, exchange: Exchange) -> None:
        """Route by a snapshot at once, so that a revoked key is refused even if the disk is full; then keep it."""
        body = await exchange.read_all(self._limits.snapshot_bytes)
        try:
            snapshot = msgspec.json.decode(body, type=RoutingSnapshot)
        except (msgspec.DecodeError, UnicodeDecodeError, HeadraceError) as error:
            raise BadJson("This is no routing snapshot.", evidence=f"{error}.") from error
        async with self._pushing:
            self._routing.follow(snapshot)
            self._metrics.keep_only(endpoint.id for endpoint in snapshot.endpoints)
            await asyncio.shield(asyncio.to_thread(save_snapshot, self._snapshot_path, snapshot))
