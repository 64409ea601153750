"""Text and token ids by a folder's ``tokenizer.json``, without transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer

from headrace_engines.serving.codec import ChatRefused, TextCodec

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""transformers' ``SPECIAL_TOKENS_ATTRIBUTES``: the names that templates know."""

_TEMPLATE_FILE = "chat_template.jinja"
_MORE_TEMPLATES_FOLDER = "additional_chat_templates"


class TokenizerFile(TextCodec):
    """The tokeniser and chat template of a model folder; what transformers makes of the same files.

    Where there is a ``tokenizer.json``, transformers 5 leaves ``add_bos_token`` and its like to that, and so does this.

    Args:
        folder: Holds ``tokenizer.json``, and usually ``tokenizer_config.json``.

    Raises:
        Exception: They cannot be read; the tokenizers library raises plain ones.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        config = _read_json(folder / "tokenizer_config.json")
        self._named = _named_tokens(_read_json(folder / "special_tokens_map.json") | config)
        self._templates = _templates(folder, config)

    @property
    def end_id(self) -> int | None:
        """The end-of-sequence token, if the folder names one."""
        token = self._named.get("eos_token")
        return None if token is None else self._tokenizer.token_to_id(token)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`."""
        # Of the library's ways the one that lets other threads run meanwhile, and that notes no places in the text.
        [encoded] = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        token_ids: list[int] = encoded.ids
        return token_ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `token_ids`."""
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)
        return text

    def piece(self, token_id: int) -> str:
        """The vocabulary's own spelling of one token."""
        return self._tokenizer.id_to_token(token_id) or ""

    def chat_template(self, *, tools: bool = False) -> str | None:
        """The folder's chat template."""
        if not self._templates:
            return None
        for name in ("tool_use", "default") if tools else ("default",):
            if name in self._templates:
                return self._templates[name]
        names = ", ".join(sorted(self._templates))
        raise ChatRefused(f"This model has several chat templates, and none of them is the default: {names}.")

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """``bos_token`` and its like."""
        return self._named


def _read_json(path: Path) -> dict[str, Any]:
    """A file's object; empty when there is no such file."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) if path.exists() else {}


def _named_tokens(said: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens by name; files write them as text, or as an object that holds it."""
    named = {}
    for name in _NAMED_TOKENS:
        token = said.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str):
            named[name] = content
    return named


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name: files of their own go before ``tokenizer_config.json``."""
    templates = {path.stem: path.read_text("utf-8") for path in (folder / _MORE_TEMPLATES_FOLDER).glob("*.jinja")}
    if (folder / _TEMPLATE_FILE).exists():
        templates["default"] = (folder / _TEMPLATE_FILE).read_text("utf-8")
    if templates:
        return templates
    said = config.get("chat_template")
    if isinstance(said, str):
        return {"default": said}
    return {each["name"]: each["template"] for each in said or ()}
