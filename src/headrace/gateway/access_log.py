"""One line of JSON per request, on the logger ``headrace.gateway.access``."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec

from headrace.gateway.record import RequestRecord

LOGGER = logging.getLogger("headrace.gateway.access")


def log_request(record: RequestRecord) -> None:
    """Write the line of a request that is over. The query is left out, for it may hold secrets."""
    if not LOGGER.isEnabledFor(logging.INFO):
        return
    line: dict[str, Any] = {
        "request_id": record.request_id,
        "method": record.method,
        "path": record.path,
        "status": record.status,
        "code": record.code,
        "key": record.key_id,
        "endpoint": record.endpoint,
        "deployed_model": record.deployed_model,
        "replica": record.replica,
        "duration_s": round(time.monotonic() - record.arrived_s, 6),
        "ttft_s": None if record.first_byte_s is None else round(record.first_byte_s - record.arrived_s, 6),
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "chunks": record.chunks,
        "bytes_sent": record.bytes_sent,
    }
    LOGGER.info(
        "%s", msgspec.json.encode({key: value for key, value in line.items() if value not in (None, "")}).decode()
    )
