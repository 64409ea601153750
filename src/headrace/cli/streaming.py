"""One streamed chat answer, read as it comes and measured on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from headrace.cli.client import Client

Message = dict[str, str]


class AnswerStats(msgspec.Struct, kw_only=True):
    """What was measured of one answer, by the clock of the reader.

    Attributes:
        chunks: Pieces with text that came.
        time_to_first_token_s: From sending the request to the first of them.
        total_s: From sending the request to the last of them.
        prompt_tokens: As the server counted them; 0 when it did not say.
        completion_tokens: Likewise; the number of pieces when it did not say.
        finish_reason: Why it ended, ``stop`` or ``length``; empty when it was broken off.
    """

    chunks: int = 0
    time_to_first_token_s: float = 0.0
    total_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = ""

    @property
    def tokens_per_s(self) -> float:
        """Tokens after the first, by the time that they took; 0 when there were none."""
        span_s = self.total_s - self.time_to_first_token_s
        return (self.completion_tokens - 1) / span_s if self.completion_tokens > 1 and span_s > 0 else 0.0

    def sentence(self) -> str:
        """For a person."""
        return (
            f"time to first token {self.time_to_first_token_s:.2f} s, "
            f"{self.tokens_per_s:.1f} tokens/s, {self.completion_tokens} tokens"
        )

    def document(self) -> dict[str, Any]:
        """For a program."""
        return {**msgspec.to_builtins(self), "tokens_per_s": self.tokens_per_s}


def stream_chat(client: Client, body: dict[str, Any], show: Callable[[str], None], stats: AnswerStats) -> str:
    """Send a chat request, pass each piece of the answer on as it comes, measure, and return the whole.

    Args:
        client: The server.
        body: OpenAI's request, without what makes it a stream.
        show: Takes each piece of text.
        stats: Filled on the way, so that whoever interrupts the stream still has what was measured until then.

    Raises:
        HeadraceError: Whatever the server says, before the answer or in it.
    """
    request = {**body, "stream": True, "stream_options": {"include_usage": True}}
    pieces: list[str] = []
    sent = time.perf_counter()
    with client.events("/v1/chat/completions", request) as events:
        for piece in _pieces(events, stats):
            stats.total_s = time.perf_counter() - sent
            if not stats.chunks:
                stats.time_to_first_token_s = stats.total_s
            stats.chunks += 1
            pieces.append(piece)
            show(piece)
    stats.completion_tokens = stats.completion_tokens or stats.chunks
    return "".join(pieces)


def _pieces(events: Iterator[Any], stats: AnswerStats) -> Iterator[str]:
    for event in events:
        usage = event.get("usage") or {}
        stats.prompt_tokens = usage.get("prompt_tokens", stats.prompt_tokens)
        stats.completion_tokens = usage.get("completion_tokens", stats.completion_tokens)
        for choice in event.get("choices") or []:
            stats.finish_reason = choice.get("finish_reason") or stats.finish_reason
            if text := (choice.get("delta") or {}).get("content"):
                yield text
