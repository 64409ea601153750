"""Errors as Databricks' REST API sends them: ``error_code`` for programs, ``message`` for people, ``details``.

The names are those that `databricks-sdk` maps to exceptions of their own; it goes by ``error_code`` first and by the
HTTP status where it does not know that. It repeats whatever comes with 429 or 503, for five minutes, whatever the
answer says besides: what another try cannot change (`HeadraceError.lasting`) gets neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.contracts.vertex.errors import google_error
from headrace.resources.errors import (
    Aborted,
    AlreadyExists,
    BadJson,
    DeadlineExceeded,
    FailedForGood,
    FailedPrecondition,
    HeadraceError,
    Internal,
    InvalidArgument,
    KeyLimited,
    KeyLimitTooSmall,
    MethodNotAllowed,
    NotFound,
    NotSupported,
    PermissionDenied,
    QueueFull,
    ResourceExhausted,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownPath,
)

_CODES: Mapping[type[HeadraceError], tuple[str, int | None]] = {
    BadJson: ("MALFORMED_REQUEST", None),
    MethodNotAllowed: ("ENDPOINT_NOT_FOUND", None),
    UnknownPath: ("ENDPOINT_NOT_FOUND", None),  # Databricks' word for a path that no route has
    NotSupported: ("NOT_IMPLEMENTED", None),
    FailedForGood: ("INVALID_STATE", 400),
    KeyLimitTooSmall: ("REQUEST_LIMIT_EXCEEDED", 400),
    KeyLimited: ("REQUEST_LIMIT_EXCEEDED", None),
    QueueFull: ("REQUEST_LIMIT_EXCEEDED", None),
    InvalidArgument: ("INVALID_PARAMETER_VALUE", None),
    Unauthenticated: ("UNAUTHENTICATED", None),
    PermissionDenied: ("PERMISSION_DENIED", None),
    NotFound: ("RESOURCE_DOES_NOT_EXIST", None),
    AlreadyExists: ("RESOURCE_ALREADY_EXISTS", 400),
    Aborted: ("RESOURCE_CONFLICT", None),
    FailedPrecondition: ("INVALID_STATE", None),
    ResourceExhausted: ("RESOURCE_EXHAUSTED", None),
    TooLarge: ("MAX_REQUEST_SIZE_EXCEEDED", None),
    Unavailable: ("TEMPORARILY_UNAVAILABLE", None),
    DeadlineExceeded: ("DEADLINE_EXCEEDED", None),
    Internal: ("INTERNAL_ERROR", None),
}
"""By our class, the most specific that holds; with the HTTP status where Databricks has another than we."""


def databricks_error(error: HeadraceError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of an error.

    ``message`` says what happened, the evidence and the fix; ``details`` has our stable code, evidence and fix by
    themselves, and the code's page, as in Google's shape, which Databricks' SDK reads too.
    """
    word, status = next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)
    details = google_error(error)[1]["error"]["details"]
    body = {"error_code": word, "message": f"{error} ({error.code})", "details": details}
    return status or error.http_status, body
