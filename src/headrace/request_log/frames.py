"""Requests on the pipe from a gateway to its writer: the length in four bytes, then the request as MessagePack."""

from __future__ import annotations

import os

import msgspec

from headrace.resources.request_log import LoggedRequest

_LENGTH_BYTES = 4
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(LoggedRequest)


def to_frame(request: LoggedRequest) -> bytes:
    """A request, as it goes through the pipe."""
    content = _ENCODER.encode(request)
    return len(content).to_bytes(_LENGTH_BYTES, "big") + content


def read_frame(descriptor: int) -> LoggedRequest | None:
    """The next request; None where the pipe ends, be it in the middle of one: its gateway is gone."""
    head = _read(descriptor, _LENGTH_BYTES)
    content = head and _read(descriptor, int.from_bytes(head, "big"))
    return _DECODER.decode(content) if content else None


def _read(descriptor: int, size: int) -> bytes:
    """So many bytes, or none."""
    pieces: list[bytes] = []
    while size:
        piece = os.read(descriptor, size)
        if not piece:
            return b""
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
