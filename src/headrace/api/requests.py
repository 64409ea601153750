"""What every handler takes from its request and gives back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec
from fastapi import Request, Response

from headrace.contracts.vertex.errors import google_error
from headrace.resources.access import Principal
from headrace.resources.errors import BodyTooLarge, HeadraceError
from headrace.resources.layout import Layout
from headrace.resources.names import Scope
from headrace.store import Store, Transaction

MAX_BODY_BYTES = 1 << 20
"""No request to the control plane describes more than a resource."""

T = TypeVar("T")


class Wakeable(Protocol):
    """What is told that something changed: the reconciler."""

    def wake(self) -> None:
        """Look at the store now, not at the next tick."""


class Context(msgspec.Struct, frozen=True):
    """What handlers work with.

    Attributes:
        clock: Gives Unix seconds.
    """

    store: Store
    reconciler: Wakeable
    layout: Layout
    clock: Callable[[], float] = time.time

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Read from the store, at one moment of it."""
        return await self.store.run(work, read_only=True)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Change the store, and have the reconciler act on it."""
        result = await self.store.run(work)
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


def refusal(error: HeadraceError) -> Response:
    """An error as an HTTP answer."""
    status, body = google_error(error)
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    return Response(msgspec.json.encode(body), status, headers, "application/json")
