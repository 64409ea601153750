"""What every handler takes from its request and gives back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
from fastapi import Request, Response
from starlette.routing import Match

from headrace.catalogue import Mirror
from headrace.contracts.databricks.errors import databricks_error
from headrace.contracts.databricks.paths import is_databricks_path
from headrace.contracts.openai.errors import openai_error
from headrace.contracts.openai.paths import is_openai_path
from headrace.contracts.vertex.errors import google_error
from headrace.control.reading import with_weights
from headrace.resources.access import Principal
from headrace.resources.errors import BadField, BodyTooLarge, HeadraceError, MethodNotAllowed
from headrace.resources.layout import Layout
from headrace.resources.names import Scope
from headrace.store import Store, Transaction

MAX_BODY_BYTES = 1 << 20
"""No request to the control plane describes more than a resource."""

LEFT_OVER = ":path}"
"""How the template of a route ends that takes every path that no other takes."""

_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")

T = TypeVar("T")


class Wakeable(Protocol):
    """What is told that something changed: the reconciler."""

    def wake(self) -> None:
        """Look at the store now, not at the next tick."""


class Counting(Protocol):
    """One gateway, as far as it tells what it counts."""

    async def metrics(self) -> str:
        """As Prometheus reads it.

        Raises:
            GatewayAway: It cannot be reached.
        """
        ...


class Context(msgspec.Struct, frozen=True):
    """What handlers work with.

    Attributes:
        clock: Gives Unix seconds.
        gateways: Those that serve the port.
        mirrors: Where the operator keeps published models.
    """

    store: Store
    reconciler: Wakeable
    layout: Layout
    clock: Callable[[], float] = time.time
    mirrors: tuple[Mirror, ...] = ()
    gateways: tuple[Counting, ...] = ()

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Read from the store, at one moment of it; once more after weights that it asks for were read."""
        return await with_weights(partial(self.store.run, read_only=True), work)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Change the store, and have the reconciler act on it; weights that it asks for are read before."""
        result = await with_weights(self.store.run, work)
        self.reconciler.wake()
        return result


def context_of(request: Request) -> Context:
    """The application's context."""
    context = request.app.state.context
    assert isinstance(context, Context)
    return context


def principal_of(request: Request) -> Principal:
    """Who is asking."""
    principal = request.state.principal
    assert isinstance(principal, Principal)
    return principal


def path_of(request: Request) -> str:
    """The path that was asked for, cut to what fits a message.

    Not `Request.url`'s: that one is put together with the caller's ``Host``, or where it is no host, our own address.
    """
    path: str = request.scope["path"]
    return path[:200]


def allowed(request: Request) -> tuple[str, ...]:
    """The methods that some route takes at the path of a request; a route that takes what is left does not count.

    Where the path itself is a route, no other one is meant that has it for a name.
    """
    taking = [
        route
        for route in request.app.routes
        if not getattr(route, "path", "").endswith(LEFT_OVER) and route.matches(request.scope)[0] is not Match.NONE
    ]
    exact = [route for route in taking if getattr(route, "path", "") == request.url.path]
    methods = (getattr(route, "methods", None) or set() for route in exact or taking)
    return tuple(sorted(set().union(*methods)))


def scope_of(request: Request) -> Scope:
    """The project and location in the path.

    Raises:
        BadName: One of them cannot be a name.
    """
    return Scope(request.path_params["project"], request.path_params["location"])


async def body_of(request: Request) -> bytes:
    """The whole body.

    Raises:
        BodyTooLarge: It has more than `MAX_BODY_BYTES`.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge(
                "The body is too large.", evidence=f"It has more than the {MAX_BODY_BYTES} bytes that are allowed here."
            )
    return bytes(body)


def answer(value: Any, status: int = 200) -> Response:
    """A value as a JSON answer."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def refusal(error: HeadraceError, path: str = "") -> Response:
    """An error as an HTTP answer, in the shape that clients read who ask at this path."""
    status, body = _shape(path)(error)
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if isinstance(error, MethodNotAllowed) and error.allow:
        headers["allow"] = ", ".join(error.allow)
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def _shape(path: str) -> Callable[[HeadraceError], tuple[int, dict[str, Any]]]:
    if is_databricks_path(path):
        return databricks_error
    return openai_error if is_openai_path(path) else google_error


def flag(request: Request, name: str) -> bool:
    """A yes or no in the query; absent is no.

    Raises:
        BadField: It is neither.
    """
    text = request.query_params.get(name, "false").lower()
    if text not in {"true", "false", "1", "0"}:
        raise BadField(f"{name} must be true or false.", evidence=f"It is {text[:40]!r}.")
    return text in {"true", "1"}


def mask_of(request: Request) -> str:
    """The query's ``readMask``, in either spelling; empty: everything."""
    query = request.query_params
    return query.get("readMask", query.get("read_mask", ""))


def number(request: Request, name: str, *, default: float, most: float) -> float:
    """A number of 0 or more in the query, cut down to ``most``.

    Raises:
        BadField: It is none.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text):
        raise BadField(f"{name} must be a number of 0 or more.", evidence=f"It is {text[:40]!r}.")
    return min(float(text), most)
