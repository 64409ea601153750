"""The OpenAI wire's answers: whole, and as the chunks of a stream."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from headrace_engines.serving.generator import FinishReason


class AnswerShape(ABC):
    """How one answer looks on the wire. Chunks are fresh dictionaries that the caller may add to."""

    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(self, answer_id: str, model: str) -> None:
        self._id = answer_id
        self._model = model
        self._created = int(time.time())

    def whole(self, text: str, finish_reason: FinishReason, usage: dict[str, int]) -> dict[str, Any]:
        """The answer of a request that does not stream."""
        choice = {"index": 0, **self._whole_text(text), "logprobs": None, "finish_reason": finish_reason}
        return self._envelope(self.whole_object) | {"choices": [choice], "usage": usage}

    def piece(self, text: str, finish_reason: FinishReason | None) -> dict[str, Any]:
        """One chunk of a stream."""
        choice = {"index": 0, **self._piece_text(text), "logprobs": None, "finish_reason": finish_reason}
        return self._envelope(self.chunk_object) | {"choices": [choice]}

    def usage_only(self) -> dict[str, Any]:
        """The chunk that carries the usage, after the last piece."""
        return self._envelope(self.chunk_object) | {"choices": []}

    def opening(self) -> list[dict[str, Any]]:
        """Chunks that come before the first piece."""
        return []

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    @abstractmethod
    def _whole_text(self, text: str) -> dict[str, Any]: ...

    @abstractmethod
    def _piece_text(self, text: str) -> dict[str, Any]: ...


class CompletionShape(AnswerShape):
    """``/v1/completions``."""

    whole_object = chunk_object = "text_completion"

    def _whole_text(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _piece_text(self, text: str) -> dict[str, Any]:
        return {"text": text}


class ChatShape(AnswerShape):
    """``/v1/chat/completions``."""

    whole_object, chunk_object = "chat.completion", "chat.completion.chunk"

    def opening(self) -> list[dict[str, Any]]:
        """The chunk that names the role."""
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return [self._envelope(self.chunk_object) | {"choices": [choice]}]

    def _whole_text(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}

    def _piece_text(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}
