"""The control plane's application: every contract's routes behind one gate."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import msgspec
from fastapi import FastAPI, Request, Response

from headrace import __version__
from headrace.api import databricks, native, vertex
from headrace.api.access import Authentication, Handler, Route, check_routes, mount
from headrace.api.errors import LastResort, install
from headrace.api.internal import internal_router
from headrace.api.openapi import document
from headrace.api.requests import Context, Counting, answer
from headrace.catalogue import Mirror
from headrace.control.reconciler import Reconciler
from headrace.resources.layout import Layout
from headrace.store import Store

OPENAPI = "/openapi.json"
"""Where the document is that describes all of them."""

ROUTES = (*native.ROUTES, *databricks.ROUTES, *vertex.ROUTES)
"""Every route that wants a key, with the permission that the key must have. Vertex AI's last one takes what is left."""


def create_app(
    store: Store,
    reconciler: Reconciler,
    layout: Layout,
    *,
    internal_token: str,
    mirrors: tuple[Mirror, ...] = (),
    gateways: tuple[Counting, ...] = (),
) -> FastAPI:
    """The application that the control process serves on its unix socket.

    Args:
        store: Where everything is kept.
        reconciler: Is woken after every write.
        layout: Where the logs of replicas on this machine are.
        internal_token: What our own processes show instead of a key, below ``/internal/``.
        mirrors: Where the operator keeps published models.
        gateways: Whom to ask what was counted of requests.

    Raises:
        RuntimeError: A route declares no permission.
    """
    # The framework's own schema would say nothing of what handlers read from their requests: `openapi` does.
    app = FastAPI(
        title="Headrace", version=__version__, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.context = Context(store, reconciler, layout, mirrors=mirrors, gateways=gateways)
    app.add_api_route("/healthz", healthz, methods=["GET"])
    app.add_api_route(OPENAPI, _openapi(ROUTES), methods=["GET"])
    app.router.routes.extend(internal_router(reconciler, internal_token).routes)
    mount(app, ROUTES)
    check_routes(app.routes, ROUTES)
    install(app)
    app.add_middleware(Authentication, store=store, internal_token=internal_token)
    app.add_middleware(LastResort)
    return app


async def healthz(_request: Request) -> Response:
    """That the process runs, and nothing else."""
    return answer({"status": "ok"})


def _openapi(routes: Sequence[Route]) -> Handler:
    """The handler that answers with the OpenAPI document; it is made when it is first asked for."""
    made = functools.cache(lambda: msgspec.json.encode(document(routes)))

    async def openapi(_request: Request) -> Response:
        return Response(made(), media_type="application/json")

    return openapi
