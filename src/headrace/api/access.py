"""Who is asking, and what every route demands of them: deny by default, in one place.

Each contract lists its `Route`s, each with its permission; `mount` is the only way into the application. Before any
routing, `Authentication` turns away whoever shows no good key, so that even unknown paths answer 401 to strangers.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from fastapi import Depends, FastAPI, Request, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.api.requests import principal_of, refusal
from headrace.contracts.vertex.service_accounts import is_token, key_id_of, unknown_signer, verify_token
from headrace.resources.access import EVERY_PROJECT, PUBLIC_ROUTES, Permission, Principal, Process, secret_hash
from headrace.resources.errors import HeadraceError, NoKey, UnknownKey
from headrace.resources.operations import ApiKey
from headrace.store import Store, Transaction

INTERNAL = "/internal/"
"""Below it our own processes talk; they show the internal token instead of a key."""

Handler = Callable[[Request], Awaitable[Response]]


class Route(msgspec.Struct, frozen=True):
    """One method of one path, and what its caller must be allowed.

    Attributes:
        permission: Held against the project in the path (``{project}``). Without one in the path it is held against
            the key's own project, and the handler must keep to what `Principal.reaches`.
        server_wide: It tells of the whole machine, and so takes a key that reaches every project.
    """

    method: str
    path: str
    permission: Permission
    handler: Handler
    server_wide: bool = False


def mount(app: FastAPI, routes: Sequence[Route]) -> None:
    """Add routes to the application, each behind its permission."""
    for route in routes:
        demand = Depends(_demand(route))
        app.add_api_route(route.path, route.handler, methods=[route.method], dependencies=[demand])


def check_routes(routes: Sequence[BaseRoute], declared: Sequence[Route]) -> None:
    """Hold the rule that every route is declared with a permission, or public with a reason, or internal.

    Raises:
        RuntimeError: One is none of these; nothing should be served then.
    """
    permitted = {(route.method, route.path) for route in declared}
    public = {(method, path) for process, method, path in PUBLIC_ROUTES if process is Process.CONTROL}
    for route in routes:
        path, methods = getattr(route, "path", ""), getattr(route, "methods", None) or {"*"}
        for method in methods:
            if not path.startswith(INTERNAL) and (method, path) not in permitted | public:
                raise RuntimeError(f"{method} {path or repr(route)} declares no permission and is in no PUBLIC_ROUTES.")


def _demand(route: Route) -> Callable[[Request], Awaitable[None]]:
    async def demand(request: Request) -> None:
        principal = principal_of(request)
        own = EVERY_PROJECT if route.server_wide else principal.project
        principal.require(route.permission, request.path_params.get("project", own))

    return demand


class Authentication:
    """ASGI middleware: finds out who is asking, or answers 401.

    Args:
        app: What comes behind it.
        store: Where keys are.
        internal_token: What our own processes show below `INTERNAL`.
    """

    def __init__(self, app: ASGIApp, store: Store, internal_token: str) -> None:
        self._app = app
        self._store = store
        self._internal_token = internal_token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it pass with ``state.principal`` set, or answer."""
        if scope["type"] == "http" and (Process.CONTROL, scope["method"], scope["path"]) not in PUBLIC_ROUTES:
            request = Request(scope)
            try:
                if scope["path"].startswith(INTERNAL):
                    self._check_internal(request)
                else:
                    request.state.principal = await self._principal(request)
            except HeadraceError as error:
                await refusal(error, scope["path"])(scope, receive, send)
                return
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    def _check_internal(self, request: Request) -> None:
        if not hmac.compare_digest(_secret(request).encode(), self._internal_token.encode()):
            raise UnknownKey("This path is for Headrace's own processes.")

    async def _principal(self, request: Request) -> Principal:
        secret = _secret(request)
        if is_token(secret):
            return await self._signer(secret)
        digest = secret_hash(secret)

        def find(tx: Transaction) -> list[ApiKey]:
            return tx.list(ApiKey, secret_hash=digest, limit=1)

        keys = await self._store.run(find, one_query=True)
        if not keys or keys[0].revoked_at is not None:
            raise UnknownKey(
                "The key is unknown or was revoked.",
                evidence=f"Key {keys[0].id} was revoked." if keys else "",
                fix="Use another, or have one made: `headrace keys create`.",
            )
        return keys[0].principal

    async def _signer(self, token: str) -> Principal:
        """Whoever signed a token, as the gateway finds it; there is time for it here, so nothing is remembered."""
        key_id = key_id_of(token)
        key = await self._store.run(lambda tx: tx.get(ApiKey, id=key_id), one_query=True)
        if key is None or key.revoked_at is not None or not key.public_key:
            raise unknown_signer(key_id)
        verify_token(token, key_id=key_id, project=key.project, public_key=key.public_key, now=time.time())
        return key.principal


def _secret(request: Request) -> str:
    """The key that a request shows: ``Authorization: Bearer``, or Google's header for API keys."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    secret = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-goog-api-key", "").strip()
    if not secret:
        raise NoKey(
            "The request carries no key.",
            evidence="There is no Authorization: Bearer header, nor x-goog-api-key.",
            fix="Send `Authorization: Bearer KEY`; `headrace keys create` makes one.",
        )
    return secret
