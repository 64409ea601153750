"""The request log: what of an endpoint's requests is written down, and what the gateway tells the log's writer of one.

It is off until somebody turns it on for an endpoint. A request is in it or not by its id alone, so that every gateway,
and whoever sends the same id on to something else, decides alike.
"""

from __future__ import annotations

import hashlib

import msgspec

REQUEST_LOG_FOLDER = "requests"
"""Beside the gateway's routing snapshot."""

_HASHES = 2.0**64


class RequestLog(msgspec.Struct, frozen=True, kw_only=True):
    """What is written of an endpoint's requests.

    Attributes:
        sampling_rate: The share of them, above 0 and up to 1.
        redact_fields: Members of JSON objects, in requests and in answers, for whose values length and hash stand: a
            name (``content``), or the names on the way to it from some object on (``messages.content``). Lists on the
            way have none.
        redact_patterns: Regular expressions, as Python's ``re`` has them: what they match in any text is replaced.
    """

    sampling_rate: float = 1.0
    redact_fields: tuple[str, ...] = ()
    redact_patterns: tuple[str, ...] = ()

    def takes(self, request_id: str) -> bool:
        """Whether this request is written down: its id's SHA-256, as a number from 0 to 1, is below the rate."""
        digest = hashlib.sha256(request_id.encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.sampling_rate * _HASHES


class LoggedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request that is over, from the gateway to the process that writes the log.

    Attributes:
        at: Unix seconds of its arrival.
        key: Id of the key that asked; its secret is nowhere.
        queue_s: From when it was known what answers it to when an engine got it; None if none did.
        ttft_s: From its arrival to the first byte of an engine's answer; None if there was none.
        settings: What is to be redacted, and the rate by which it was chosen.
        request: Its body; None if that is too large to be kept.
        answer: The body of its answer, in pieces; of a stream the engine's events.
        cut: Whether the answer went on, and was too large to be kept as a whole.
    """

    at: float
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
    settings: RequestLog
    request: bytes | None
    request_bytes: int
    answer: list[bytes]
    cut: bool
    response_bytes: int
