"""The log of requests: a line for each, written soon, and never lost by a process that ends."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.gateway.access_log import COLLECTED_LINES, LOGGER, log_request, write_collected
from headrace.gateway.record import RequestRecord
from headrace.gateway.request_head import RequestHead


def record(number: int) -> RequestRecord:
    """A request that is over."""
    head = RequestHead(method="GET", target=b"/%d" % number, query=b"q=secret", headers=[], client="", scheme="http")
    over = RequestRecord(head)
    over.status = 200
    return over


class Written(logging.Handler):
    """Keeps the messages, and tells of each."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.told = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """As a handler has it."""
        self.messages.append(record.getMessage())
        self.told.set()


@contextmanager
def written() -> Iterator[Written]:
    """What is logged in the block."""
    write_collected()
    handler, level = Written(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)


def test_lines_that_follow_closely_share_a_record() -> None:
    """They are written although nothing follows, in order, each with its time and nothing that the request lacks."""

    async def main() -> list[str]:
        with written() as handler:
            for number in range(3):
                log_request(record(number))
            async with asyncio.timeout(20):
                await handler.told.wait()
            return handler.messages

    [message] = asyncio.run(main())
    lines = [json.loads(line) for line in message.splitlines()]
    assert [line["path"] for line in lines] == ["/0", "/1", "/2"]
    assert all(line["at"] and line["duration_s"] >= 0 for line in lines)
    assert set(lines[0]) == {"at", "request_id", "method", "path", "status", "duration_s", "chunks", "bytes_sent"}


def test_many_lines_are_not_waited_with() -> None:
    """A busy gateway writes a record when it has so many lines, at once."""

    async def main() -> list[str]:
        with written() as handler:
            for number in range(COLLECTED_LINES):
                log_request(record(number))
            return handler.messages

    [message] = asyncio.run(main())
    assert len(message.splitlines()) == COLLECTED_LINES


_ENDING = """
import asyncio, logging
from headrace.gateway.access_log import log_request
from headrace.gateway.exchange import RequestHead
from headrace.gateway.record import RequestRecord

async def main():
    head = RequestHead(method="GET", target=b"/last", query=b"", headers=[], client="", scheme="http")
    log_request(RequestRecord(head))

logging.basicConfig(level=logging.INFO, format="%(message)s")
asyncio.run(main())
"""


def test_a_process_that_ends_writes_what_it_has() -> None:
    """The last requests before the end are in the log."""
    done = subprocess.run([sys.executable, "-c", _ENDING], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr)["path"] == "/last"
