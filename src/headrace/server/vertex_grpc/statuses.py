"""Errors in HTTP as ``google.rpc.Status``: what gRPC's clients get, with the same details."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
from google.protobuf import any_pb2, json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2

from headrace.contracts.vertex.errors import DOMAIN
from headrace.resources.errors import CODES

_BY_HTTP = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "OUT_OF_RANGE",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""https://github.com/googleapis/googleapis, ``google/rpc/code.proto``, and the same for what that leaves out."""

_MESSAGE_BYTES = 1536
_DETAILS_BYTES = 3072
"""Metadata of gRPC's clients is 8 KiB at most. The message is in it twice, percent-encoded and in the details, and
those are in base64."""

_EVIDENCE_CHARACTERS = 400


def status_of(http_status: int, body: bytes) -> status_pb2.Status:
    """The status that an error's answer stands for, in Google's shape, in OpenAI's, or in none that is known."""
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        parsed = None
    if isinstance(parsed, list) and len(parsed) == 1:  # as streams over REST have their errors
        parsed = parsed[0]
    error = parsed.get("error") if isinstance(parsed, dict) else None
    if not isinstance(error, dict):
        text = error if isinstance(error, str) else body[:500].decode("utf-8", "replace").strip()
        return _status(_code("", http_status), text or f"HTTP status {http_status}.", [])
    message = str(error.get("message") or f"HTTP status {http_status}.")
    own = CODES.get(str(error.get("code")))
    if own is not None:  # OpenAI's shape, with a code of ours
        reason = {"@type": f"type.googleapis.com/{_REASON}", "reason": own.code, "domain": DOMAIN}
        return _status(_code(own.status, http_status), message, [reason])
    details, said = error.get("details"), error.get("code")
    if isinstance(said, int) and 400 <= said < 600:  # of an error in a stream, whose answer began well
        http_status = said
    return _status(_code(str(error.get("status")), http_status), message, details if isinstance(details, list) else [])


_REASON = error_details_pb2.ErrorInfo.DESCRIPTOR.full_name


def _code(name: str, http_status: int) -> int:
    known = name if name in code_pb2.Code.keys() and name != "OK" else ""  # noqa: SIM118 - no mapping
    fallback = "INTERNAL" if http_status >= 500 else "UNKNOWN"
    return int(code_pb2.Code.Value(known or _BY_HTTP.get(http_status, fallback)))


def _status(code: int, message: str, details: list[Any]) -> status_pb2.Status:
    """A status that fits into a client's metadata: what is too long is cut, what still does not fit is left out."""
    status = status_pb2.Status(code=code, message=_cut(message))
    for detail in details:
        packed = _packed(detail)
        if packed is not None and status.ByteSize() + packed.ByteSize() <= _DETAILS_BYTES:
            status.details.append(packed)
    return status


def _packed(detail: Any) -> any_pb2.Any | None:
    """A detail as its message; None for one that nobody knows."""
    if not isinstance(detail, dict):
        return None
    metadata = detail.get("metadata")
    if isinstance(metadata, dict):
        shown = {str(key): str(value)[:_EVIDENCE_CHARACTERS] for key, value in metadata.items()}
        detail = {**detail, "metadata": shown}
    try:
        return json_format.ParseDict(detail, any_pb2.Any(), ignore_unknown_fields=True)
    except (json_format.Error, TypeError, ValueError):
        return None


def _cut(message: str) -> str:
    """The beginning of a message that takes no more than it may, as gRPC writes it."""
    if len(quote(message)) <= _MESSAGE_BYTES:
        return message
    short = message[: _MESSAGE_BYTES // 2]
    while len(quote(short)) > _MESSAGE_BYTES - len(quote("…")):
        short = short[: len(short) * 3 // 4]
    return f"{short}…"
