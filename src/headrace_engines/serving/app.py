"""The routes of an engine and who may use them."""

from __future__ import annotations

import hmac
import time
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace_engines.serving.chat import chat_completions
from headrace_engines.serving.completions import completions
from headrace_engines.serving.embeddings import embeddings
from headrace_engines.serving.engine import Engine
from headrace_engines.serving.errors import ApiError, BadToken, UnknownPath, error_response
from headrace_engines.serving.tokenization import detokenize, tokenize

PUBLIC_ROUTES: dict[tuple[str, str], str] = {
    ("GET", "/health"): "The shim probes it before anybody could know the token; it says only whether it is ready.",
}
"""What answers without a token, and why. Everything else is refused, paths that do not exist included."""


class TokenRequired:
    """ASGI middleware: a bearer token on everything that `PUBLIC_ROUTES` does not name."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan" or self._may_pass(scope):
            await self._app(scope, receive, send)
            return
        error = BadToken("A bearer token is missing or wrong.", code="invalid_api_key")
        await error_response(error)(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        if scope["type"] == "http" and (scope["method"], scope["path"]) in PUBLIC_ROUTES:
            return True
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        return any(name == b"authorization" and hmac.compare_digest(value, self._expected) for name, value in headers)


async def health(request: Request) -> Response:
    """``GET /health``: 200 once one real token was generated, unless what computes stands still."""
    engine = _engine(request)
    state = "frozen" if engine.state == "ready" and engine.frozen else engine.state
    return _json({"status": state}, 200 if state == "ready" else 503)


async def models(request: Request) -> Response:
    """``GET /v1/models``: the one model, and whether it generates or embeds."""
    engine = _engine(request)
    card = {
        "id": engine.model_name,
        "object": "model",
        "created": request.app.state.started_at_s,
        "owned_by": "headrace",
        "max_model_len": engine.max_model_len,
        "task": engine.task,
    }
    if engine.task == "embed":
        card["dimensions"] = engine.embedder.limits.dimensions
    return _json({"object": "list", "data": [card]})


async def metrics(request: Request) -> Response:
    """``GET /metrics``, for Prometheus."""
    return Response(_engine(request).metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def version(request: Request) -> Response:
    """``GET /version``: the engine's name and what it is built on."""
    return _json(_engine(request).versions)


ROUTES = [
    Route("/health", health, methods=["GET"]),
    Route("/version", version, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
    Route("/tokenize", tokenize, methods=["POST"]),
    Route("/detokenize", detokenize, methods=["POST"]),
    Route("/v1/models", models, methods=["GET"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
]
"""Every route there is."""


def build_app(engine: Engine, token: str | None) -> Starlette:
    """The ASGI application; with a token, only `PUBLIC_ROUTES` answer without it."""
    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(TokenRequired, token=token)] if token else [],
        exception_handlers={
            ApiError: _api_error,
            ClientDisconnect: _gone,
            HTTPException: _no_such_route,
            Exception: _unforeseen,
        },
    )
    app.router.redirect_slashes = False
    app.state.engine = engine
    app.state.started_at_s = int(time.time())
    return app


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}."
    return error_response(UnknownPath(message, status=error.status_code))


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # hung up before the body was whole: nobody reads this


async def _unforeseen(_: Request, error: Exception) -> Response:
    # Starlette raises it again after this answer, so that the log has the traceback.
    return error_response(ApiError(f"The engine failed on this request: {type(error).__name__}.", code="internal"))
