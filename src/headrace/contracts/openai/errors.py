"""Errors as OpenAI's API sends them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headrace.resources.errors import BadField, HeadraceError, ModelNotFound

REFUSALS = frozenset({400, 413, 422})
"""Statuses by which a model server says that the request is at fault. 401, 403 and 404 are the gateway's fault."""

_FIELD = re.compile(r"`([\w.\[\]]+)`")
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def openai_error(error: HeadraceError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of an error.

    ``code`` is our stable code (``headrace explain CODE``), but for an unknown model, which OpenAI's clients know as
    ``model_not_found``. ``param`` is the field that a refusal begins with.
    """
    unknown_model = isinstance(error, ModelNotFound)
    status = error.http_status
    body = {
        "message": str(error),
        "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": "model" if unknown_model else _field_of(error),
        "code": "model_not_found" if unknown_model else error.code,
    }
    return status, {"error": body}


def _field_of(error: HeadraceError) -> str | None:
    named = _FIELD.match(str(error)) if isinstance(error, BadField) else None
    return named[1] if named else None


def message_of(body: bytes) -> str:
    """The sentence in an engine's error body, whichever of the usual shapes it has; else the body's beginning."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body[:500].decode("utf-8", "replace").strip()
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    message = error.get("message", error.get("detail")) if isinstance(error, dict) else error
    return message if isinstance(message, str) else msgspec.json.encode(error)[:500].decode("utf-8", "replace")
