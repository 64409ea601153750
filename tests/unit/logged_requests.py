"""Requests for the log, and what is in its files."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import msgspec

from headrace.resources.request_log import LoggedRequest, RequestLog

CHAT_BODY = b'{"model": "m",\n "messages": [{"role": "user", "content": "my number is 555"}]}'
CHAT_ANSWER = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "so it is"}}]}'


def logged(number: int = 0, **fields: Any) -> LoggedRequest:
    """One of no particular request."""
    request = LoggedRequest(
        at=1e9 + number,
        request_id=str(number),
        project="p",
        location="l",
        endpoint="e",
        deployed_model="d",
        model="m",
        model_version="1",
        replica="r",
        key="k",
        path="/v1/chat/completions",
        status=200,
        code="",
        streamed=False,
        queue_s=0.25,
        ttft_s=0.5,
        duration_s=1.0,
        prompt_tokens=7,
        completion_tokens=3,
        settings=RequestLog(),
        request=CHAT_BODY,
        request_bytes=len(CHAT_BODY),
        answer=[CHAT_ANSWER],
        cut=False,
        response_bytes=len(CHAT_ANSWER),
    )
    return msgspec.structs.replace(request, **fields)


def lines_in(folder: Path) -> list[dict[str, Any]]:
    """Every row in a folder's files of lines; each must be whole."""
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()]


def is_written(path: Path) -> bool:
    """Whether somebody writes this file."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
