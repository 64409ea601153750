"""One request as a row of the log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from headrace.contracts.openai.assembled import assembled
from headrace.request_log.redaction import Redaction
from headrace.resources.request_log import LoggedRequest

NULL = msgspec.Raw(b"null")
"""Where there is no body: msgspec cannot read what is either raw or null."""

_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What the log says of a request, in the order of its columns.

    Attributes:
        at: When it arrived.
        key: Id of the key that asked.
        status: HTTP status of the answer; 499 where the client left before it began.
        code: Stable code of the error; empty if there was none.
        queue_s: How long it waited for its turn; null if that never came.
        ttft_s: From arrival to the engine's first byte.
        duration_s: From arrival to the end.
        request: Its body, redacted; null where a note says why.
        request_bytes: As it came.
        response: The answer's body, redacted; of a stream what its events add up to, in the shape of a unary answer.
        response_bytes: As they went out.
        note: What is missing here, and why; empty if nothing is.
    """

    at: datetime
    request_id: str
    project: str
    location: str
    endpoint: str
    deployed_model: str
    model: str
    model_version: str
    replica: str
    key: str
    path: str
    status: int
    code: str
    streamed: bool
    queue_s: float | None
    ttft_s: float | None
    duration_s: float
    prompt_tokens: int | None
    completion_tokens: int | None
    sampling_rate: float
    request: msgspec.Raw
    request_bytes: int
    response: msgspec.Raw
    response_bytes: int
    note: str


_ENCODE = msgspec.json.Encoder().encode
_DECODER = msgspec.json.Decoder(Row)

_SAME = frozenset(Row.__struct_fields__) & frozenset(LoggedRequest.__struct_fields__) - {"at", "request"}
"""Columns that are what the gateway told."""


def row_of(logged: LoggedRequest, redaction: Redaction) -> Row:
    """The row of a request, with nothing in it that is to be redacted."""
    notes: list[str] = []
    request = NULL
    if logged.request is None:
        notes.append("request too large")
    else:
        request = _document(logged.request, redaction, "request", notes)
    response = _response(logged, redaction, notes)
    same = {name: getattr(logged, name) for name in _SAME}
    return Row(
        at=datetime.fromtimestamp(logged.at, UTC),
        sampling_rate=logged.settings.sampling_rate,
        request=request,
        response=response,
        note="; ".join(notes),
        **same,
    )


def to_line(row: Row) -> bytes:
    """The row as a line of JSON."""
    return _ENCODE(row) + b"\n"


def from_line(line: bytes) -> Row:
    """A row, as it was written."""
    return _DECODER.decode(line)


def _response(logged: LoggedRequest, redaction: Redaction, notes: list[str]) -> msgspec.Raw:
    whole = b"".join(logged.answer)
    if logged.streamed:
        if logged.cut:
            notes.append("response cut")
        value = assembled(whole)
        return NULL if value is None else _redacted(value, len(whole), redaction, "response", notes)
    if logged.cut:
        notes.append("response too large")
        return NULL
    return _document(whole, redaction, "response", notes) if whole else NULL


def _document(content: bytes, redaction: Redaction, what: str, notes: list[str]) -> msgspec.Raw:
    """JSON as it came, but for white space and what is redacted: numbers keep their digits, names their order."""
    try:
        if not redaction:
            formatted = msgspec.json.format(content, indent=-1)
            if b"\n" not in formatted:
                return msgspec.Raw(formatted)
        return _redacted(msgspec.json.decode(content), len(content), redaction, what, notes)
    except _UNREADABLE:
        notes.append(f"{what} is not JSON that can be read")
        return NULL


def _redacted(value: Any, size_bytes: int, redaction: Redaction, what: str, notes: list[str]) -> msgspec.Raw:
    try:
        return msgspec.Raw(_ENCODE(redaction.apply(value, size_bytes) if redaction else value))
    except TimeoutError:
        notes.append(f"{what} could not be redacted in time")
        return NULL
    except _UNREADABLE:
        notes.append(f"{what} is not JSON that can be read")
        return NULL
