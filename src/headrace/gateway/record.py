"""What is remembered of one request while it runs: the source of its log line and its metrics."""

from __future__ import annotations

import random
import re
import secrets
import time
from typing import TYPE_CHECKING

from headrace.contracts.openai.usage import Usage
from headrace.gateway.buckets import INTER_TOKEN_S, Buckets
from headrace.gateway.request_head import RequestHead

if TYPE_CHECKING:
    from headrace.gateway.request_recording import Recording
    from headrace.gateway.tracing import RequestTrace

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_ids = random.Random(secrets.randbits(256))  # noqa: S311 - an id is no secret, and the kernel takes 5 µs for each


class RequestRecord:
    """One request, from its head to its last byte. Times are ``time.monotonic()`` seconds.

    Attributes:
        request_id: The client's ``x-request-id`` if it sent a printable one, else one of ours.
        endpoint: Id of the endpoint; empty for everything that is not inference.
        status: HTTP status of the answer; 499 (nginx's) when the client left before it began.
        code: Stable code of the error, if there was one.
        routed_s: When it was known what answers it: from then on it waits for its turn.
        sent_s: When it was first sent to an engine; None before, and for everything that is not inference.
        first_byte_s: When the first byte of the answer's body came from the engine.
        first_piece_s: When the first piece of a stream went out.
        stream: Whether its answer is to come as it is made.
        chunks: Pieces in which the answer was passed on.
        told: Answers of engines that told their usage.
        gaps: How long the pieces of a stream took to follow each other; None before the second one.
        recording: What is kept of it for the request log; None for those that are not in it.
        trace: Its spans; None where tracing is off, and for everything that is not inference.
    """

    __slots__ = (
        "_piece_s",
        "arrived_s",
        "bytes_sent",
        "chunks",
        "code",
        "completion_tokens",
        "deployed_model",
        "deployment",
        "endpoint",
        "first_byte_s",
        "first_piece_s",
        "gaps",
        "key_id",
        "method",
        "path",
        "prompt_tokens",
        "recording",
        "replica",
        "request_id",
        "routed_s",
        "sent_s",
        "status",
        "stream",
        "told",
        "trace",
    )

    def __init__(self, head: RequestHead) -> None:
        given = head.header(b"x-request-id")
        fits = given is not None and _REQUEST_ID.fullmatch(given)
        self.request_id = given.decode("ascii") if given is not None and fits else f"{_ids.getrandbits(128):032x}"
        self.method = head.method
        self.path = head.target.decode("latin-1")
        self.arrived_s = time.monotonic()
        self.routed_s = self.arrived_s
        self.sent_s: float | None = None
        self.first_byte_s: float | None = None
        self.first_piece_s: float | None = None
        self.stream = False
        self.endpoint = self.deployment = self.deployed_model = self.replica = self.key_id = self.code = ""
        self.status = self.told = 0
        self.chunks = 0
        self.bytes_sent = 0
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.gaps: Buckets | None = None
        self._piece_s: float | None = None
        self.recording: Recording | None = None
        self.trace: RequestTrace | None = None

    def sent(self) -> None:
        """Note that it goes to an engine now; only the first time counts."""
        if self.sent_s is None:
            self.sent_s = time.monotonic()

    def first_byte(self) -> None:
        """Note that the engine has begun its answer; only the first time counts."""
        if self.first_byte_s is None:
            self.first_byte_s = time.monotonic()

    def piece(self, size_bytes: int, *, timed: bool = True) -> None:
        """Note that a piece of a stream goes out.

        Args:
            size_bytes: Its size.
            timed: Whether it brings tokens, so that the time since the last one tells how fast they come. That is as
                the client gets them: a client that reads slowly makes its own gaps.
        """
        self.chunks += 1
        self.bytes_sent += size_bytes
        if timed:
            now, before = time.monotonic(), self._piece_s
            self._piece_s = now
            if before is None:
                self.first_piece_s = now
            else:
                if self.gaps is None:
                    self.gaps = Buckets(INTER_TOKEN_S)
                self.gaps.observe(now - before)

    def count(self, usage: Usage | None) -> None:
        """Add the tokens of one engine's answer, if it said."""
        if usage is not None:
            self.told += 1
            self.prompt_tokens = (self.prompt_tokens or 0) + usage.prompt_tokens
            self.completion_tokens = (self.completion_tokens or 0) + usage.completion_tokens
