"""What one request asked and was answered, as it goes by, for the request log. There only for requests that are in it.

Pieces are kept as they are, and nothing is read, copied or written here: that is the writer's work, in a process of
its own.
"""

from __future__ import annotations

import time
from typing import Protocol

from headrace.gateway.record import RequestRecord
from headrace.resources.request_log import LoggedRequest
from headrace.resources.snapshot import DeployedRoute, EndpointRoute

MAX_REQUEST_BYTES = 2**20
"""A larger body is not kept: pictures, mostly."""

MAX_ANSWER_BYTES = 8 * 2**20
"""Of a stream the rest is not kept: some 30,000 events."""

_REST_BYTES = 2048
"""What everything else takes in memory, about."""


class Room(Protocol):
    """Bounds what all recordings of a gateway hold, and takes those that are over."""

    def hold(self, size_bytes: int) -> bool:
        """Take so much of the memory, if there is so much."""

    def let_go(self, size_bytes: int) -> None:
        """Give it back."""

    def put(self, request: LoggedRequest, size_bytes: int) -> None:
        """Have a request written, and what it holds given back."""

    def drop(self) -> None:
        """Count one that is not written."""


class Recording:
    """One request's.

    Args:
        room: What bounds it.
        endpoint: What was asked; it has a request log.
        deployed: What answers.
        body: Of the request.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_cut",
        "_deployed",
        "_endpoint",
        "_held_bytes",
        "_pieces",
        "_room",
        "_streamed",
    )

    def __init__(self, room: Room, endpoint: EndpointRoute, deployed: DeployedRoute, body: bytes) -> None:
        self._room = room
        self._endpoint = endpoint
        self._deployed = deployed
        self._body_bytes = len(body)
        self._body = body if len(body) <= MAX_REQUEST_BYTES else None
        self._streamed = self._cut = False
        self._held_bytes = _REST_BYTES + (0 if self._body is None else len(body))
        self._pieces: list[bytes] | None = [] if room.hold(self._held_bytes) else None  # None: there was no room

    def goes_to(self, deployed: DeployedRoute) -> None:
        """Another deployed model answers than was chosen first."""
        self._deployed = deployed

    def events(self, events: bytes) -> None:
        """Whole events of an engine's stream go by."""
        self._streamed = True
        if events:
            self._keep(events)

    def answer(self, body: bytes, *, whole: bool = True) -> None:
        """An answer in one piece goes out: the model's, or an error. Of one that is not all here nothing is kept."""
        if whole:
            self._keep(body)
        else:
            self._cut = True

    def finish(self, record: RequestRecord) -> None:
        """The request is over."""
        if self._pieces is None:
            self._room.drop()
            return
        scope, deployed = self._endpoint.scope, self._deployed
        settings = self._endpoint.request_log
        assert settings is not None
        duration_s = time.monotonic() - record.arrived_s
        request = LoggedRequest(
            at=time.time() - duration_s,
            request_id=record.request_id,
            project=scope.project,
            location=scope.location,
            endpoint=self._endpoint.id,
            deployed_model=deployed.id,
            model=deployed.model.rpartition("/")[2],
            model_version=deployed.model_version,
            replica=record.replica,
            key=record.key_id,
            path=record.path,
            status=record.status,
            code=record.code,
            streamed=self._streamed,
            queue_s=None if record.sent_s is None else round(record.sent_s - record.routed_s, 6),
            ttft_s=None if record.first_byte_s is None else round(record.first_byte_s - record.arrived_s, 6),
            duration_s=round(duration_s, 6),
            prompt_tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
            settings=settings,
            request=self._body,
            request_bytes=self._body_bytes,
            answer=self._pieces,
            cut=self._cut,
            response_bytes=record.bytes_sent,
        )
        self._room.put(request, self._held_bytes)

    def _keep(self, piece: bytes) -> None:
        if self._pieces is None or self._cut:
            return
        size = len(piece)
        if self._held_bytes + size > _REST_BYTES + MAX_REQUEST_BYTES + MAX_ANSWER_BYTES:
            self._cut = True
        elif self._room.hold(size):
            self._held_bytes += size
            self._pieces.append(piece)
        else:
            self._room.let_go(self._held_bytes)
            self._pieces = self._body = None
