"""Text and token ids with a Hugging Face tokeniser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace_engines.serving.codec import ChatMessage, ChatRefused, TextCodec
from headrace_engines.serving.template_process import TemplateProcess


class HuggingFaceCodec(TextCodec):
    """The tokeniser and chat template of a model folder."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._templates = TemplateProcess()

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`."""
        token_ids: list[int] = self._tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
        return token_ids

    def render_chat(self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool = True) -> str:
        """The prompt that the folder's chat template makes."""
        if not self._tokenizer.chat_template:
            raise ChatRefused("This model has no chat template; use /v1/completions.")
        try:
            template = self._tokenizer.get_chat_template()
        except ValueError as error:  # several, and none of them the default
            raise ChatRefused(str(error)) from error
        return self._templates.render(
            template,
            messages,
            add_generation_prompt=add_generation_prompt,
            special_tokens=self._tokenizer.special_tokens_map,
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids` without special tokens."""
        # Cleaning up spaces would make a piece depend on what follows it.
        text: str = self._tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
