"""Text and token ids with a Hugging Face tokeniser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace_engines.serving.codec import ChatRefused, TextCodec


class HuggingFaceCodec(TextCodec):
    """The tokeniser and chat template of a model folder."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # The library under transformers' fast tokenisers: a fifth of the time for the few ids of one streamed token.
        self._backend = getattr(tokenizer, "backend_tokenizer", None)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`."""
        token_ids: list[int] = self._tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
        return token_ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `token_ids`."""
        if self._backend is not None:
            backend_text: str = self._backend.decode(token_ids, skip_special_tokens=skip_special_tokens)
            return backend_text
        # Cleaning up spaces would make a piece depend on what follows it.
        text: str = self._tokenizer.decode(
            list(token_ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def piece(self, token_id: int) -> str:
        """The vocabulary's own spelling of one token."""
        return self._tokenizer.convert_ids_to_tokens(token_id) or ""

    def chat_template(self, *, tools: bool = False) -> str | None:
        """The folder's chat template."""
        if not self._tokenizer.chat_template:
            return None
        try:
            # Any list of tools makes transformers pick the template named `tool_use`, where there is one.
            template: str = self._tokenizer.get_chat_template(tools=[] if tools else None)
        except ValueError as error:  # several, and none of them the default
            raise ChatRefused(str(error)) from error
        return template

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """``bos_token`` and its like."""
        tokens: Mapping[str, str] = self._tokenizer.special_tokens_map
        return tokens
