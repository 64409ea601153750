"""A conversation with a model: what was said so far, and the next answer."""

from __future__ import annotations

from typing import Any

from headrace.cli.client import Client
from headrace.cli.output import Output
from headrace.cli.streaming import AnswerStats, Message, stream_chat


class Conversation:
    """Messages so far, and where they go.

    Args:
        client: The server.
        output: Where answers are shown.
        options: OpenAI's request without messages: model, limits, sampling.
        system: A system message to begin with, or empty.
        show_stats: Whether each answer is followed by what was measured.
    """

    def __init__(
        self, client: Client, output: Output, options: dict[str, Any], *, system: str = "", show_stats: bool = False
    ) -> None:
        self._client = client
        self._output = output
        self._options = options
        self._show_stats = show_stats
        self.messages: list[Message] = [{"role": "system", "content": system}] if system else []

    def answer(self, asked: str) -> None:
        """Ask, and show the answer piece by piece. What came before an interrupt stays part of the conversation.

        Raises:
            HeadraceError: Whatever the server says.
        """
        self.messages.append({"role": "user", "content": asked})
        stats = AnswerStats()
        pieces: list[str] = []

        def show(piece: str) -> None:
            pieces.append(piece)
            self._output.event({"content": piece})
            self._output.piece(piece)

        try:
            stream_chat(self._client, {**self._options, "messages": self.messages}, show, stats)
        finally:
            if pieces:
                self.messages.append({"role": "assistant", "content": "".join(pieces)})
                self._output.line()
        self._output.event({"finish_reason": stats.finish_reason, "stats": stats.document()})
        if self._show_stats:
            self._output.line(f"[{stats.sentence()}]")

    def forget_last(self) -> None:
        """Take back a question that was not answered, and whatever came of its answer."""
        while self.messages and self.messages[-1]["role"] == "assistant":
            self.messages.pop()
        if self.messages and self.messages[-1]["role"] == "user":
            self.messages.pop()
