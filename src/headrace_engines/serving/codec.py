"""The seam between text and token ids: a model's tokeniser and the chat template of its folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

_PANIC = "PanicException"
_WHY_MAX_CHARS = 300


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


class EncodingFailed(Exception):
    """The tokeniser fails on a text."""


def encoded(codec: TextCodec, text: str, *, add_special_tokens: bool) -> list[int]:
    """Token ids of `text`; what `TextCodec.encode` raises is told apart from other failures.

    Raises:
        EncodingFailed: The tokeniser fails on this text. Its own words are the message: a pattern of its folder's that
            backtracks without end, for one, which the tokenizers library gives up after some million tries.
    """
    try:
        return codec.encode(text, add_special_tokens=add_special_tokens)
    except BaseException as error:
        if why := why_not_encoded(error):
            raise EncodingFailed(why) from error
        raise


def why_not_encoded(error: BaseException) -> str:
    """What a tokeniser says by an exception; empty for one that is not its own."""
    # Rust's panics come as exceptions that are no `Exception`, of a class that cannot be imported.
    if isinstance(error, Exception) or type(error).__name__ == _PANIC:
        return f"{type(error).__name__}: {error}"[:_WHY_MAX_CHARS]
    return ""


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
