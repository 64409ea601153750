"""The tokenizer as OpenVINO models, which OpenVINO GenAI wants beside the weights: text to ids, and back.

``openvino_tokenizers`` reads a ``tokenizer.json`` and asks a few things of a transformers tokenizer besides. Those few
come from a stand-in here, so that the engine's environment does without transformers: 50 MB, and 5 to 10 s of the
minute in which the quickstart is to answer. A test holds the result against the one made with transformers.
"""

from __future__ import annotations

import json
import shutil
import sys
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import openvino as ov

from headrace_engines.serving.fatal import FatalError

_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_UNLIMITED = 10**30
"""transformers' ``VERY_LARGE_INTEGER``: what ``model_max_length`` is where nothing limits it."""


class _AddedToken(NamedTuple):
    content: str
    lstrip: bool
    rstrip: bool
    special: bool


class FolderTokenizer:
    """What ``openvino_tokenizers`` asks of a ``PreTrainedTokenizerFast``, from a model folder's own files.

    Args:
        folder: Holds ``tokenizer.json``, and ``tokenizer_config.json`` if there is one.
    """

    is_fast = True
    model_input_names = ("input_ids", "attention_mask")

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tokenizer.json"
        self._content = json.loads(self._path.read_bytes())
        config_file = folder / "tokenizer_config.json"
        self._config: dict[str, Any] = json.loads(config_file.read_bytes()) if config_file.exists() else {}
        template = folder / "chat_template.jinja"
        self.chat_template = template.read_text("utf-8") if template.exists() else self._config.get("chat_template")
        self.clean_up_tokenization_spaces = bool(self._config.get("clean_up_tokenization_spaces", False))
        self.model_max_length = int(self._config.get("model_max_length") or _UNLIMITED)
        # what comes next is generated from the right end, as in optimum-intel's export
        self.padding_side = self.truncation_side = "left"

    def save_pretrained(self, folder: str) -> None:
        """Give the file away."""
        shutil.copyfile(self._path, Path(folder) / "tokenizer.json")

    def get_vocab(self) -> dict[str, int]:
        """Every token's id."""
        return self._vocabulary

    @property
    def added_tokens_decoder(self) -> dict[int, _AddedToken]:
        """Tokens that text is split at before anything else: those of the file, and the special ones it only names."""
        added = {
            entry["id"]: _AddedToken(entry["content"], entry["lstrip"], entry["rstrip"], entry["special"])
            for entry in self._content.get("added_tokens", ())
        }
        for content in filter(None, (self._special(name) for name in _NAMED)):
            if (number := self._vocabulary.get(content)) is not None and number not in added:
                added[number] = _AddedToken(content, lstrip=False, rstrip=False, special=True)
        return dict(sorted(added.items()))

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        known = self._content["model"]["vocab"]
        # a Unigram model has pairs of token and score
        pairs = ((token, number) for number, (token, _) in enumerate(known)) if isinstance(known, list) else known
        vocabulary: dict[str, int] = dict(pairs)
        added: dict[str, int] = {entry["content"]: entry["id"] for entry in self._content.get("added_tokens", ())}
        return vocabulary | added

    def _special(self, name: str) -> str | None:
        named = self._config.get(name)
        content = named["content"] if isinstance(named, dict) else named
        return content if isinstance(content, str) else None

    def __getattr__(self, name: str) -> Any:
        if name in _NAMED:
            return self._special(name)
        if name.removesuffix("_id") in _NAMED:
            return self._vocabulary.get(self._special(name.removesuffix("_id")) or "")
        raise AttributeError(name)


def write_tokenizer(source: Path, target: Path) -> None:
    """Write ``openvino_tokenizer`` and ``openvino_detokenizer`` into `target`.

    Raises:
        FatalError: ``CONVERSION_FAILED``: it does something that OpenVINO's operations cannot.
    """
    _stand_in_for_transformers()
    from openvino_tokenizers import convert_tokenizer  # noqa: PLC0415 - it looks for transformers when imported

    try:
        tokenizer, detokenizer = convert_tokenizer(FolderTokenizer(source), with_detokenizer=True)
    except Exception as error:
        raise FatalError(
            "CONVERSION_FAILED",
            "The tokenizer cannot be converted to OpenVINO's operations.",
            evidence=f"{type(error).__name__}: {error}",
        ) from error
    ov.save_model(tokenizer, target / "openvino_tokenizer.xml", compress_to_fp16=False)
    ov.save_model(detokenizer, target / "openvino_detokenizer.xml", compress_to_fp16=False)


def _stand_in_for_transformers() -> None:
    """Let ``openvino_tokenizers`` 2026.4 find the five names that it imports of transformers."""

    def require_version(_requirement: str) -> None:
        """Any: its only question is whether decoding is that of transformers 5.7 and later."""

    def import_protobuf() -> None:
        raise ImportError("sentencepiece files are not read here")

    transformers = ModuleType("transformers")
    transformers.PreTrainedTokenizerBase = transformers.PreTrainedTokenizerFast = FolderTokenizer  # type: ignore[attr-defined]
    slow = ModuleType("transformers.convert_slow_tokenizer")
    slow.import_protobuf = import_protobuf  # type: ignore[attr-defined]
    versions = ModuleType("transformers.utils.versions")
    versions.require_version = require_version  # type: ignore[attr-defined]
    for module in (transformers, slow, ModuleType("transformers.utils"), versions):
        sys.modules[module.__name__] = module
