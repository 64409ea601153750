"""A SentencePiece model as ``tokenizer.json``, for the families whose token ids are the model's own.

The converters of transformers know how, and need protobuf, the sentencepiece library and a class for each family; what
they make of Llama's, Gemma's and T5's models is restated here (``convert_slow_tokenizer.py`` of transformers 5.23.0),
and held against the sentencepiece library itself in tests.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from headrace.resources.errors import ConfigInvalid, TokenizerInvalid
from headrace.weights.config import CONFIG_FILE
from headrace.weights.reader import SMALL_FILE_BYTES, FolderReader, read_json_object
from headrace.weights.sentencepiece.pieces import count_pieces, is_tiktoken
from headrace.weights.sentencepiece.proto import (
    BPE,
    CONTROL,
    NORMAL,
    UNIGRAM,
    UNKNOWN,
    USER_DEFINED,
    Piece,
    SentencePieceModel,
    parse,
)

_FILES = ("tokenizer.model", "spiece.model")
_CONFIG = "tokenizer_config.json"
_BOS = {"LlamaTokenizer": "<s>", "CodeLlamaTokenizer": "<s>", "Phi3Tokenizer": "<s>", "GemmaTokenizer": "<bos>"}
_EOS = {"T5Tokenizer": "</s>", "MT5Tokenizer": "</s>"}
"""By ``tokenizer_class``: what each puts before or behind a text unless the folder says otherwise. Others shift or
add ids (XLM-RoBERTa, mBART, Pegasus, …), which a model file alone does not tell."""

_BY_MODEL_TYPE = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "phi3"), "LlamaTokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
    **dict.fromkeys(("t5", "mt5"), "T5Tokenizer"),
}
"""The class of a folder that names none, by ``model_type``: as transformers' ``AutoTokenizer`` takes it, and for
Mistral and Mixtral the one that their publisher's folders name."""


def convertible_model(reader: FolderReader) -> str | None:
    """The SentencePiece model that stands where a ``tokenizer.json`` is wanted; None where nothing can be done."""
    sizes = reader.sizes()
    if "tokenizer.json" in sizes:
        return None
    name = next((name for name in _FILES if name in sizes and sizes[name] <= SMALL_FILE_BYTES), None)
    if name is None or is_tiktoken(reader, name) or _family(reader) not in _BOS | _EOS:
        return None
    model = _read(reader, name)
    plain = model.escaped and not model.suffix and any(piece.kind == UNKNOWN for piece in model.pieces)
    return name if plain and model.model_type in {UNIGRAM, BPE} else None


def tokenizer_json(reader: FolderReader, name: str) -> dict[str, Any]:
    """The content of ``tokenizer.json``.

    Args:
        reader: The folder.
        name: As `convertible_model` found it.

    Raises:
        TokenizerInvalid: The file is no SentencePiece model.
    """
    model = _read(reader, name)
    config = _read_config(reader, _CONFIG)
    family = _family(reader)
    ids = {piece.text: number for number, piece in enumerate(model.pieces)}
    before = _around(config, "bos", _BOS.get(family), ids)
    behind = _around(config, "eos", _EOS.get(family), ids)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(model, config),
        "normalizer": _normalizer(model),
        "pre_tokenizer": None,
        "post_processor": _post_processor(before, behind, ids),
        "decoder": _decoder(model),
        "model": _unigram(model) if model.model_type == UNIGRAM else _bpe(model),
    }


def _read(reader: FolderReader, name: str) -> SentencePieceModel:
    count_pieces(reader, name)  # its checks and its errors
    try:
        return parse(reader.read_range(name, 0, reader.sizes()[name]))
    except ValueError as error:
        raise TokenizerInvalid(
            f"{name} is not a SentencePiece model.",
            evidence=f"{name}: {error}.",
            fix=f"Copy {name} from the model's source again.",
        ) from error


def _family(reader: FolderReader) -> str:
    named = _read_config(reader, _CONFIG).get("tokenizer_class")
    if named is None:
        model_type = _read_config(reader, CONFIG_FILE).get("model_type")
        named = _BY_MODEL_TYPE.get(model_type) if isinstance(model_type, str) else None
    return named.removesuffix("Fast") if isinstance(named, str) else ""


def _read_config(reader: FolderReader, name: str) -> dict[str, Any]:
    return read_json_object(reader, name, ConfigInvalid) if name in reader.sizes() else {}


def _around(config: Mapping[str, Any], which: str, own: str | None, ids: Mapping[str, int]) -> str | None:
    """The token that is put before (bos) or behind (eos) every text, or None."""
    wanted = config.get(f"add_{which}_token", own is not None)
    named = config.get(f"{which}_token") or own
    text = named.get("content") if isinstance(named, dict) else named
    return text if wanted and isinstance(text, str) and text in ids else None


def _added_tokens(model: SentencePieceModel, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Control tokens and those of the model's users, and what else the folder's configuration adds."""
    added = {
        number: _added(number, piece.text, special=piece.kind != USER_DEFINED)
        for number, piece in enumerate(model.pieces)
        if piece.kind in {UNKNOWN, CONTROL, USER_DEFINED}
    }
    said = config.get("added_tokens_decoder")
    for number, token in (said if isinstance(said, dict) else {}).items():
        if number.isdigit() and isinstance(token, dict) and isinstance(token.get("content"), str):
            flags = {key: bool(value) for key, value in token.items() if isinstance(value, bool)}
            added[int(number)] = _added(int(number), token["content"], special=False) | flags
    return [added[number] for number in sorted(added)]


def _added(number: int, text: str, *, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return {"id": number, "content": text} | flags


def _normalizer(model: SentencePieceModel) -> dict[str, Any]:
    """``Normalizer::Normalize``: characters mapped, spaces squeezed, one put in front, all of them made visible."""
    steps: list[dict[str, Any]] = []
    if model.charsmap:
        steps.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(model.charsmap).decode()})
    if model.squeezed:
        steps += [_replace({"Regex": r"\A +| +\z"}, ""), _replace({"Regex": " {2,}"}, " ")]
    if model.dummy_prefix:
        steps.append({"type": "Prepend", "prepend": "▁"})
    steps.append(_replace({"String": " "}, "▁"))
    return {"type": "Sequence", "normalizers": steps}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _decoder(model: SentencePieceModel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [_replace({"String": "▁"}, " ")]
    steps += [{"type": "ByteFallback"}] if model.byte_fallback else []
    steps.append({"type": "Fuse"})
    steps += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if model.dummy_prefix else []
    return {"type": "Sequence", "decoders": steps}


def _post_processor(before: str | None, behind: str | None, ids: Mapping[str, int]) -> dict[str, Any] | None:
    if before is None and behind is None:
        return None

    def around(*sequence: tuple[str, int]) -> list[dict[str, Any]]:
        pieces: list[dict[str, Any]] = []
        for name, number in sequence:
            pieces += [{"SpecialToken": {"id": before, "type_id": number}}] if before else []
            pieces.append({"Sequence": {"id": name, "type_id": number}})
            pieces += [{"SpecialToken": {"id": behind, "type_id": number}}] if behind else []
        return pieces

    tokens = sorted({token for token in (before, behind) if token is not None})
    return {
        "type": "TemplateProcessing",
        "single": around(("A", 0)),
        "pair": around(("A", 0), ("B", 1)),
        "special_tokens": {text: {"id": text, "ids": [ids[text]], "tokens": [text]} for text in tokens},
    }


def _unigram(model: SentencePieceModel) -> dict[str, Any]:
    return {
        "type": "Unigram",
        "unk_id": next(number for number, piece in enumerate(model.pieces) if piece.kind == UNKNOWN),
        "vocab": [[piece.text, piece.score] for piece in model.pieces],
        "byte_fallback": model.byte_fallback,
    }


def _bpe(model: SentencePieceModel) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": next(piece.text for piece in model.pieces if piece.kind == UNKNOWN),
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": model.byte_fallback,
        "ignore_merges": False,
        "vocab": {piece.text: number for number, piece in enumerate(model.pieces)},
        "merges": _merges(model.pieces),
    }


def _merges(pieces: tuple[Piece, ...]) -> list[list[str]]:
    """Every way to make a piece of two, the piece with the best score first: SentencePiece merges to the best piece."""
    normal = {piece.text: number for number, piece in enumerate(pieces) if piece.kind == NORMAL}
    merges: list[tuple[float, int, int, str, str]] = []
    for text in normal:
        score = pieces[normal[text]].score
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in normal and right in normal:
                merges.append((-score, normal[left], normal[right], left, right))
    return [[left, right] for _, _, _, left, right in sorted(merges)]
