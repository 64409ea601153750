"""One line of JSON per request, on the logger ``headrace.gateway.access``; lines that follow closely share a record.

What logging does for a record (its place in the code, its format, the file's size and its flush) costs many times what
a line does, and the event loop pays it. So lines are collected for a moment and handed over together, each with its own
time. A process that is killed takes the last moment's lines along; one that ends writes them.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import time
from datetime import UTC, datetime

import msgspec

from headrace.gateway.record import RequestRecord

LOGGER = logging.getLogger("headrace.gateway.access")

COLLECTED_S = 0.1
COLLECTED_LINES = 256
"""After these a record is written, whatever the time: it bounds how long the event loop is held."""


class _Line(msgspec.Struct, omit_defaults=True):
    """What is told of a request; what it does not have is left out.

    Made with its first fields by place: a struct that is made with more than fifteen by name takes 0.5 µs longer.
    """

    at: datetime
    request_id: str
    method: str
    path: str
    status: int
    duration_s: float
    chunks: int
    bytes_sent: int
    code: str = ""
    key: str = ""
    endpoint: str = ""
    deployed_model: str = ""
    replica: str = ""
    ttft_s: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


_encode = msgspec.json.Encoder().encode
_collected: list[bytes] = []


def log_request(record: RequestRecord) -> None:
    """Write the line of a request that is over, within a moment. The query is left out, for it may hold secrets."""
    if not LOGGER.isEnabledFor(logging.INFO):
        return
    line = _Line(
        datetime.now(UTC),
        record.request_id,
        record.method,
        record.path,
        record.status,
        code=record.code,
        key=record.key_id,
        endpoint=record.endpoint,
        deployed_model=record.deployed_model,
        replica=record.replica,
        duration_s=round(time.monotonic() - record.arrived_s, 6),
        ttft_s=None if record.first_byte_s is None else round(record.first_byte_s - record.arrived_s, 6),
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        chunks=record.chunks,
        bytes_sent=record.bytes_sent,
    )
    _collected.append(_encode(line))
    if len(_collected) >= COLLECTED_LINES:
        write_collected()
    elif len(_collected) == 1:
        asyncio.get_running_loop().call_later(COLLECTED_S, write_collected)


@atexit.register
def write_collected() -> None:
    """Write what was collected, now."""
    if _collected:
        lines = b"\n".join(_collected).decode()
        _collected.clear()
        LOGGER.info("%s", lines)
