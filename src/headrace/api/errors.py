"""Every error that leaves the control plane has one shape, those of the web framework included."""

from __future__ import annotations

import logging
import re
import secrets

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.api.requests import allowed, path_of, refusal
from headrace.resources.errors import BadField, BadJson, HeadraceError, InternalError, MethodNotAllowed, UnknownPath

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

logger = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Give every kind of exception its answer; `LastResort` takes what is left."""

    @app.exception_handler(HeadraceError)
    async def ours(request: Request, error: HeadraceError) -> Response:
        return refusal(error, path_of(request))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        return refusal(_from_framework(request, error), path_of(request))

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> Response:
        places = [".".join(str(part) for part in fault["loc"]) + ": " + fault["msg"] for fault in error.errors()]
        return refusal(
            BadField("A parameter of the request is not valid.", evidence="; ".join(places)), path_of(request)
        )


def _from_framework(request: Request, error: HTTPException) -> HeadraceError:
    path = f"{request.method} {path_of(request)}"
    if error.status_code == 405 and (takes := allowed(request)):
        return MethodNotAllowed(f"There is no {path}.", allow=takes)
    if error.status_code in (404, 405):
        return UnknownPath(f"There is no {path}.")
    return BadJson(str(error.detail)) if error.status_code < 500 else InternalError(str(error.detail))


class LastResort:
    """ASGI middleware: an exception that nobody expected becomes INTERNAL, with an id that leads to the log.

    Every answer carries ``x-request-id``: the caller's own if it sent one that is fit for a log, else a fresh one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Request(scope).headers.get("x-request-id", "")
        request_id = sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(8)
        started = False

        async def stamp(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, stamp)
        except Exception:
            logger.exception("request %s failed: %s %s", request_id, scope["method"], scope["path"])
            if started:
                raise
            error = InternalError(
                "Headrace failed to handle this request.",
                evidence=f"Request {request_id}; the control process's log has the traceback.",
                fix="Please report it with that part of the log.",
            )
            await refusal(error, scope["path"])(scope, receive, stamp)
