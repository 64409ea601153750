"""A file that was uploaded, as an answer: opened once, so that it is one file to its end whoever replaces it.

A ``Range`` of one part is honoured; of what is no range, or of several, the whole file comes, as HTTP allows.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import IO

from fastapi import Response
from fastapi.responses import StreamingResponse

from headrace.api.requests import refusal
from headrace.resources.errors import BadField
from headrace.storage.uploads import open_file

PIECE_BYTES = 1 << 18
"""What is read at once: a thread is asked for each."""

OCTETS = "application/octet-stream"

_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))")


async def file_answer(path: Path, headers: Mapping[str, str], request_path: str) -> Response:
    """A file, or the part of it that is asked for.

    Args:
        path: Where it is.
        headers: Of the request.
        request_path: Its path, which says in what shape a refusal is.

    Raises:
        UploadNotFound: There is none.
    """
    file = await asyncio.to_thread(open_file, path)
    status = os.fstat(file.fileno())
    size, etag = status.st_size, f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    told = {"accept-ranges": "bytes", "last-modified": formatdate(status.st_mtime, usegmt=True), "etag": etag}
    start, end = 0, size
    if headers.get("if-range", etag) in (etag, told["last-modified"]):
        start, end = range_of(headers.get("range", ""), size)
    if start >= end and size:
        file.close()
        return _beyond(size, request_path)
    part = (start, end) != (0, size)
    told |= {"content-length": str(end - start)} | (
        {"content-range": f"bytes {start}-{end - 1}/{size}"} if part else {}
    )
    return StreamingResponse(_pieces(file, start, end), 206 if part else 200, told, OCTETS)


def range_of(header: str, size: int) -> tuple[int, int]:
    """The first byte that is asked for, and the one behind the last; of what is not one range, all.

    >>> range_of("bytes=2-3", 10), range_of("bytes=2-", 10), range_of("bytes=-3", 10), range_of("lines=1-2", 10)
    ((2, 4), (2, 10), (7, 10), (0, 10))
    >>> range_of("bytes=10-", 10), range_of("bytes=-0", 10)  # no byte of it
    ((10, 10), (10, 10))
    """
    found = _RANGE.fullmatch(header.replace(" ", ""))
    if found is None:
        return 0, size
    first, last, of_end = found.groups()
    if of_end is not None:
        return max(size - int(of_end), 0), size
    if last is not None and int(last) < int(first):
        return 0, size
    return min(int(first), size), size if last is None else min(int(last) + 1, size)


async def _pieces(file: IO[bytes], start: int, end: int) -> AsyncIterator[bytes]:
    try:
        await asyncio.to_thread(file.seek, start)
        while start < end and (piece := await asyncio.to_thread(file.read, min(PIECE_BYTES, end - start))):
            start += len(piece)
            yield piece
    finally:
        file.close()


def _beyond(size: int, request_path: str) -> Response:
    error = BadField(
        "The file has no such part.", evidence=f"It has {size:,} bytes.", fix="Ask for bytes that it has, or for all."
    )
    answer = refusal(error, request_path)
    answer.status_code = 416
    answer.headers["content-range"] = f"bytes */{size}"
    return answer
