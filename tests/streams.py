"""Reading a streamed answer chunk by chunk, with something happening in the middle of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

QUESTION = {"role": "user", "content": "Count from one upwards, in words."}
TOKENS = 80
REQUEST: dict[str, Any] = {
    "model": "m",
    "messages": [QUESTION],
    "temperature": 0,
    "max_tokens": TOKENS,
    "ignore_eos": True,
}


class Stream:
    """What came of one streamed chat.

    Attributes:
        text: All content, joined.
        error: The error event, if one came.
        done: Whether ``[DONE]`` came.
        broken: The transport error with which it ended, if it did.
        usage: The usage event, if one came.
    """

    def __init__(self) -> None:
        self.text = ""
        self.error: dict[str, Any] | None = None
        self.done = False
        self.broken: httpx.TransportError | None = None
        self.usage: dict[str, Any] | None = None
        self.chunks = 0

    def take(self, line: str) -> None:
        """One line of the event stream."""
        if line == "data: [DONE]":
            self.done = True
        elif line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            self.error = event.get("error", self.error)
            self.usage = event.get("usage") or self.usage
            for choice in event.get("choices", []):
                self.text += choice["delta"].get("content") or ""
                self.chunks += 1


def read_stream(
    client: httpx.Client, endpoint: str, *, after_chunks: int, then: Callable[[], object], **more: Any
) -> Stream:
    """Stream `REQUEST` and `more` from an endpoint; once `after_chunks` chunks were read, do `then` and read on."""
    stream = Stream()
    happened = False
    body = REQUEST | more | {"stream": True, "stream_options": {"include_usage": True}}
    try:
        with client.stream("POST", f"/v1/{endpoint}/chat/completions", json=body) as response:
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                stream.take(line)
                if stream.chunks == after_chunks and not happened:
                    happened = True
                    then()
    except httpx.TransportError as error:
        stream.broken = error
    return stream


def whole_text(client: httpx.Client, endpoint: str) -> str:
    """The same answer, unary and undisturbed."""
    answer = client.post(f"/v1/{endpoint}/chat/completions", json=REQUEST)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text
