"""Requests on the pipe from a gateway to its writer: three lengths, the request as MessagePack, and its two bodies.

The bodies stay the pieces that they are until the kernel has them: to put a long answer together would hold Python's
interpreter lock for milliseconds, and every stream of the gateway with it.
"""

from __future__ import annotations

import os
import struct

import msgspec

from headrace.resources.request_log import LoggedRequest

_LENGTHS = struct.Struct("!IqQ")  # of the request without bodies; of its body, or -1: it was not kept; of its answer
_NOT_KEPT = -1
_BUFFERS = 1024
"""The most that Linux takes in one call (``IOV_MAX``)."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(LoggedRequest)


def write_frame(descriptor: int, request: LoggedRequest) -> None:
    """Put a request into the pipe; waits while there is no room.

    Raises:
        OSError: Nobody reads any more.
    """
    body = request.request
    rest = _ENCODER.encode(msgspec.structs.replace(request, request=None, answer=[]))
    lengths = _LENGTHS.pack(len(rest), _NOT_KEPT if body is None else len(body), sum(map(len, request.answer)))
    buffers = [lengths, rest, body or b"", *request.answer]
    for start in range(0, len(buffers), _BUFFERS):
        _write(descriptor, [memoryview(buffer) for buffer in buffers[start : start + _BUFFERS]])


def read_frame(descriptor: int) -> LoggedRequest | None:
    """The next request; None where the pipe ends, be it in the middle of one: its gateway is gone."""
    lengths = _read(descriptor, _LENGTHS.size)
    if lengths is None:
        return None
    rest_bytes, body_bytes, answer_bytes = _LENGTHS.unpack(lengths)
    rest = _read(descriptor, rest_bytes)
    body = _read(descriptor, max(0, body_bytes))
    answer = _read(descriptor, answer_bytes)
    if rest is None or body is None or answer is None:
        return None
    request = _DECODER.decode(rest)
    return msgspec.structs.replace(request, request=None if body_bytes == _NOT_KEPT else body, answer=[answer])


def _write(descriptor: int, buffers: list[memoryview]) -> None:
    while buffers:
        written = os.writev(descriptor, buffers)
        while buffers and written >= len(buffers[0]):
            written -= len(buffers.pop(0))
        if buffers:  # a signal cut the call short
            buffers[0] = buffers[0][written:]


def _read(descriptor: int, size: int) -> bytes | None:
    """So many bytes; None where the pipe ends before."""
    pieces: list[bytes] = []
    while size:
        piece = os.read(descriptor, size)
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
