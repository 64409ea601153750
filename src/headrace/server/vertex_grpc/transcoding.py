"""Messages as HTTP requests, and answers as messages, by the rules of ``google/api/http.proto``."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from google.api_core import path_template, rest_helpers
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from headrace.resources.errors import BadField, BadJson, InternalError
from headrace.server.vertex_grpc.methods import Method

JSON = "application/json"
HTTP_BODY = "google.api.HttpBody"
"""A message that stands for a body as it is (https://github.com/googleapis/googleapis, google/api/httpbody.proto)."""

_CONTENT_TYPE = re.compile(r"[\x20-\x7e]{0,200}")
_IN_PATHS = "/:@%~!$&'()*+,;="


class HttpCall(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway is asked.

    Attributes:
        verb: GET, POST and so on.
        target: Path and query, percent-encoded.
        body: Empty where there is none.
        content_type: Of the body.
    """

    verb: str
    target: bytes
    body: bytes = b""
    content_type: str = ""


def read_request(method: Method, raw: bytes) -> Any:
    """The message that a client sent.

    Raises:
        BadJson: It is not one of this method's.
    """
    try:
        return method.request.FromString(raw)
    except DecodeError as error:
        raise BadJson(
            f"The message cannot be read as {method.request.DESCRIPTOR.full_name}.", evidence=f"{error}."
        ) from error


def transcode(method: Method, request: Any, *, query: tuple[tuple[str, str], ...] = ()) -> HttpCall:
    """The HTTP request that a message stands for.

    Args:
        method: What is asked for.
        request: With what.
        query: What the address says besides.

    Raises:
        BadField: It names no resource that the method takes, or holds what JSON has no place for.
    """
    try:
        made = path_template.transcode(list(method.rules), request)
        asked = rest_helpers.flatten_query_params(json_format.MessageToDict(made["query_params"]), strict=True)
        body, content_type = _body(made.get("body"))
    except (ValueError, json_format.Error) as error:
        raise _unfit(method, error) from error
    target = quote(made["uri"], safe=_IN_PATHS)
    if asked or query:
        target += f"?{urlencode([*asked, *query])}"
    return HttpCall(verb=made["method"].upper(), target=target.encode("ascii"), body=body, content_type=content_type)


def _body(message: Any) -> tuple[bytes, str]:
    if message is None:
        return b"", ""
    raw = _http_body(message)
    if raw is not None:
        if not _CONTENT_TYPE.fullmatch(raw.content_type):  # it becomes a line of a request's head
            raise ValueError(f"{raw.content_type!r} is no content type")
        return raw.data, raw.content_type or JSON
    return json_format.MessageToJson(message, indent=None).encode(), JSON


def _http_body(message: Any) -> Any:
    """The body that a message is, or that one of its fields is; None where it has to be written as JSON."""
    if message.DESCRIPTOR.full_name == HTTP_BODY:
        return message
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.full_name == HTTP_BODY:
            return getattr(message, field.name)
    return None


def _unfit(method: Method, error: Exception) -> BadField:
    names = sorted({found for rule in method.rules for found in _fields(rule["uri"])})
    return BadField(
        f"The message of {method.name} cannot be sent on.",
        evidence=str(error).strip().partition("\n")[0][:500],
        fix=f"Name a resource that it takes in {', '.join(names)}." if names else "",
    )


def _fields(uri: str) -> list[str]:
    return [part.partition("}")[0].partition("=")[0] for part in uri.split("{")[1:]]


def read_answer(method: Method, body: bytes, content_type: str) -> Any:
    """The message that an answer's body, or one document of a streamed one, stands for.

    Raises:
        InternalError: It stands for none of this method's.
    """
    if is_http_body(method):
        return method.answer(content_type=content_type, data=body)
    message = method.answer()
    try:
        if body.strip():
            json_format.Parse(body, message, ignore_unknown_fields=True)
    except (json_format.Error, ValueError) as error:  # `UnicodeDecodeError` is one
        raise InternalError(
            f"The answer of {method.name} cannot be said in gRPC.",
            evidence=f"{error}"[:500],
            fix="Report it; the same method over HTTP (`api_transport='rest'`) answers.",
        ) from error
    return message


def is_http_body(method: Method) -> bool:
    """Whether a method answers with bodies as they are."""
    return bool(method.answer.DESCRIPTOR.full_name == HTTP_BODY)
