"""The control plane's application: every contract's routes behind one gate."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from headrace import __version__
from headrace.api import native, vertex
from headrace.api.access import Authentication, check_routes, mount
from headrace.api.errors import LastResort, install
from headrace.api.internal import internal_router
from headrace.api.requests import Context, answer
from headrace.catalogue import Mirror
from headrace.control.reconciler import Reconciler
from headrace.resources.layout import Layout
from headrace.store import Store

ROUTES = (*native.ROUTES, *vertex.ROUTES)
"""Every route that wants a key, with the permission that the key must have. Vertex AI's last one takes what is left."""


def create_app(
    store: Store,
    reconciler: Reconciler,
    layout: Layout,
    *,
    internal_token: str,
    mirrors: tuple[Mirror, ...] = (),
) -> FastAPI:
    """The application that the control process serves on its unix socket.

    Args:
        store: Where everything is kept.
        reconciler: Is woken after every write.
        layout: Where the logs of replicas on this machine are.
        internal_token: What our own processes show instead of a key, below ``/internal/``.
        mirrors: Where the operator keeps published models.

    Raises:
        RuntimeError: A route declares no permission.
    """
    # Headrace's own documentation is on disk; a schema or a page that describes every route is not for strangers.
    app = FastAPI(
        title="Headrace", version=__version__, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.context = Context(store, reconciler, layout, mirrors=mirrors)
    app.add_api_route("/healthz", healthz, methods=["GET"])
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
