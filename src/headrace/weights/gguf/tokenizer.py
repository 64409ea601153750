"""The tokenizer inside a GGUF file, as ``tokenizer.json`` and ``tokenizer_config.json``.

A GGUF names its pre-tokenizer (``tokenizer.ggml.pre``) instead of describing it. The descriptions here are those of the
models' own ``tokenizer.json``, which llama.cpp's regular expressions of the same name restate (``llama-vocab.cpp``).
"""

from __future__ import annotations

from typing import Any

from headrace.weights.gguf.source import GgufSource

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt-2": _BYTE_LEVEL,
    "smollm": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL]},
    "llama-bpe": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": _LLAMA3_SPLIT}, "behavior": "Isolated", "invert": False},
            _BYTE_LEVEL | {"use_regex": False},
        ],
    },
}
"""How text is cut before merges apply, by the name that the file gives."""

_CONTROL, _USER_DEFINED = 3, 4  # llama.cpp's token types (`enum llama_token_type`)


def tokenizer_json(source: GgufSource) -> dict[str, Any]:
    """The content of ``tokenizer.json``, in the format of the ``tokenizers`` library.

    Raises:
        ConversionFailed: The vocabulary is not a byte-level BPE, or its pre-tokenizer is not in `PRE_TOKENIZERS`.
    """
    kind, pre = source.require("tokenizer.ggml.model"), source.metadata.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2":
        raise source.refuse(
            "its tokenizer is not a byte-level BPE, the only kind converted", f"tokenizer.ggml.model is {kind!r}."
        )
    if pre not in PRE_TOKENIZERS:
        raise source.refuse("its pre-tokenizer is not known", f"tokenizer.ggml.pre is {pre!r}.")
    tokens: list[str] = source.require("tokenizer.ggml.tokens")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(source, tokens),
        "normalizer": None,
        "pre_tokenizer": PRE_TOKENIZERS[pre],
        "post_processor": _post_processor(source, tokens),
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre == "llama-bpe",  # Llama 3 takes a whole word that is a token before any merge
            "vocab": {token: token_id for token_id, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in source.require("tokenizer.ggml.merges")],
        },
    }


def tokenizer_config_json(source: GgufSource) -> dict[str, Any]:
    """The content of ``tokenizer_config.json``, with the chat template inside."""
    tokens: list[str] = source.require("tokenizer.ggml.tokens")
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": source.require("llama.context_length"),
    }
    for name, key in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items():
        token_id = source.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if token_id is not None:
            config[f"{name}_token"] = tokens[token_id]
    if template := source.metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return config


def _added_tokens(source: GgufSource, tokens: list[str]) -> list[dict[str, Any]]:
    types = source.metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    return [
        {
            "id": token_id,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == _CONTROL,
        }
        for token_id, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in {_CONTROL, _USER_DEFINED}
    ]


def _post_processor(source: GgufSource, tokens: list[str]) -> dict[str, Any]:
    bos = source.metadata.get("tokenizer.ggml.bos_token_id")
    if not source.metadata.get("tokenizer.ggml.add_bos_token", False) or bos is None:
        return _BYTE_LEVEL
    start = {"SpecialToken": {"id": tokens[bos], "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [start, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {tokens[bos]: {"id": tokens[bos], "ids": [bos], "tokens": [tokens[bos]]}},
    }
