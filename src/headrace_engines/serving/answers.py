"""The OpenAI wire's answers: whole, and as the events of a stream."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from headrace_engines.serving.choices import Piece
from headrace_engines.serving.logprobs import LoggedToken, chat_logprobs, completion_logprobs

_END_OF_STREAM = b"data: [DONE]\n\n"

_ANY_TEXT = "\x00"
"""Stands where a chunk's text goes; encoded, it occurs nowhere else in what follows the model's name."""


class AnswerShape(ABC):
    """How one answer looks on the wire.

    Args:
        answer_id: Its id.
        model: The model's name.
        logprobs: Whether log probabilities are told.
        include_usage: Chunks have a field for the usage, empty but in the last.
    """

    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]
    _first_words: ClassVar[dict[str, Any]] = {}

    def __init__(self, answer_id: str, model: str, *, logprobs: bool, include_usage: bool) -> None:
        self._id = answer_id
        self._model = model
        self._created = int(time.time())
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._around_text: dict[int, tuple[bytes, bytes]] = {}

    def whole(self, pieces: Sequence[Piece], usage: dict[str, int]) -> bytes:
        """The answer of a request that does not stream; one piece is one choice."""
        choices = []
        for index, piece in enumerate(pieces):
            logprobs = self._tokens(piece.tokens) if self._logprobs else None
            choices.append({**self._choice(index, piece, self._whole(piece)), "logprobs": logprobs})
        return msgspec.json.encode(self._envelope(self.whole_object) | {"choices": choices, "usage": usage})

    def event(self, index: int, piece: Piece) -> bytes:
        """What one piece of a stream adds, as server-sent events; nothing for a piece that says nothing."""
        if piece.is_text_only:
            if not piece.content:
                return b""
            before, after = self._around_text.get(index) or self._cut_around_text(index)
            return before + msgspec.json.encode(piece.content) + after
        return self._chunk(self._choice(index, piece, self._delta(piece)))

    def opening(self, choices: int) -> bytes:
        """The events before the first piece."""
        said = self._first_words
        return b"".join(self._chunk(self._choice(index, Piece(), said)) for index in range(choices)) if said else b""

    def closing(self, usage: dict[str, int]) -> bytes:
        """The events after the last piece."""
        if not self._include_usage:
            return _END_OF_STREAM
        chunk = self._envelope(self.chunk_object) | {"choices": [], "usage": usage}
        return _event(chunk) + _END_OF_STREAM

    def _cut_around_text(self, index: int) -> tuple[bytes, bytes]:
        # All chunks of nothing but text differ in that text alone: what stands around it is encoded once.
        piece = Piece(content=_ANY_TEXT)
        event = self._chunk(self._choice(index, piece, self._delta(piece)))
        before, _, after = event.rpartition(msgspec.json.encode(_ANY_TEXT))
        self._around_text[index] = before, after
        return before, after

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        chunk = self._envelope(self.chunk_object) | {"choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        return _event(chunk)

    def _choice(self, index: int, piece: Piece, said: dict[str, Any]) -> dict[str, Any]:
        logprobs = self._tokens(piece.tokens) if piece.tokens else None
        return {"index": index, **said, "logprobs": logprobs, "finish_reason": piece.finish_reason}

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    @abstractmethod
    def _whole(self, piece: Piece) -> dict[str, Any]: ...

    @abstractmethod
    def _delta(self, piece: Piece) -> dict[str, Any]: ...

    @abstractmethod
    def _tokens(self, tokens: Sequence[LoggedToken]) -> dict[str, Any]: ...


class CompletionShape(AnswerShape):
    """``/v1/completions``."""

    whole_object = chunk_object = "text_completion"

    def _whole(self, piece: Piece) -> dict[str, Any]:
        return {"text": piece.content}

    _delta = _whole

    def _tokens(self, tokens: Sequence[LoggedToken]) -> dict[str, Any]:
        return completion_logprobs(tokens)


class ChatShape(AnswerShape):
    """``/v1/chat/completions``."""

    whole_object, chunk_object = "chat.completion", "chat.completion.chunk"
    _first_words: ClassVar[dict[str, Any]] = {"delta": {"role": "assistant", "content": ""}}

    def _whole(self, piece: Piece) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": piece.content}
        if piece.calls:
            message["content"] = piece.content or None
            message["tool_calls"] = _whole_calls(piece)
        return {"message": message}

    def _delta(self, piece: Piece) -> dict[str, Any]:
        delta: dict[str, Any] = {"content": piece.content} if piece.content else {}
        if piece.calls:
            delta["tool_calls"] = [_call_delta(piece, number) for number in range(len(piece.calls))]
        return {"delta": delta}

    def _tokens(self, tokens: Sequence[LoggedToken]) -> dict[str, Any]:
        return chat_logprobs(tokens)


def _call_delta(piece: Piece, number: int) -> dict[str, Any]:
    call = piece.calls[number]
    if call.name is None:
        return {"index": call.call_index, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.call_index, "id": piece.call_ids[call.call_index], "type": "function", "function": function}


def _whole_calls(piece: Piece) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    for part in piece.calls:
        if part.name is not None:
            function = {"name": part.name, "arguments": ""}
            calls.append({"id": piece.call_ids[part.call_index], "type": "function", "function": function})
        calls[part.call_index]["function"]["arguments"] += part.arguments
    return calls


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(content) + b"\n\n"
