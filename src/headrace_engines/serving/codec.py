"""The seam between text and token ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypedDict


class ChatMessage(TypedDict):
    """One turn of a conversation, as chat templates take it."""

    role: str
    content: str


class ChatRefused(Exception):
    """The model has no chat template, or its template refuses these messages."""


class TextCodec(ABC):
    """Turns text into token ids and back.

    Calls may block: `encode` and `render_chat` each run one at a time, each in a thread of its own.
    """

    @abstractmethod
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`; with the model's own leading and trailing tokens when asked."""

    @abstractmethod
    def render_chat(self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool = True) -> str:
        """The prompt that the model's chat template makes of `messages`, special tokens included.

        Raises:
            ChatRefused: There is no template, it refused, or it took too long or too much.
        """

    @abstractmethod
    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids` without special tokens; U+FFFD stands where bytes are not (yet) valid UTF-8."""
