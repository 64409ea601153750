"""The seam between text and token ids: a model's tokeniser and the chat template of its folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict


class ChatMessage(TypedDict):
    """One turn of a conversation, as chat templates take it.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        content: What was said; empty for an assistant that only called tools.
        tool_calls: The assistant's calls, each ``{"type", "id", "function": {"name", "arguments"}}`` with the
            arguments as an object.
        tool_call_id: For the role ``tool``: the call that this answers.
        name: Who speaks, or the tool that answers.
    """

    role: str
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


class ChatRefused(Exception):
    """The model has no chat template, or its template refuses these messages."""


class TextCodec(ABC):
    """Turns text into token ids and back. `encode` may block and comes from a thread of its own, one at a time."""

    @abstractmethod
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`; with the model's own leading and trailing tokens when asked."""

    @abstractmethod
    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `token_ids`; U+FFFD stands where bytes are not (yet) valid UTF-8.

        Called on the event loop's thread once a token, with a few ids: it has to be quick.
        """

    @abstractmethod
    def piece(self, token_id: int) -> str:
        """The vocabulary's own spelling of one token: ``Ġthe``, ``▁the``, ``<0xE2>``; empty for an id without one."""

    @abstractmethod
    def chat_template(self, *, tools: bool = False) -> str | None:
        """The folder's Jinja template, the one for tools where it has one of its own; None without any.

        Raises:
            ChatRefused: There are several, and none is the default.
        """

    @property
    @abstractmethod
    def special_tokens(self) -> Mapping[str, str]:
        """The names that templates have for special tokens (``bos_token``, ``eos_token``, …) and their texts."""
