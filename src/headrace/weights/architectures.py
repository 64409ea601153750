"""What the tensors of an architecture are called and how they are shaped (``architectures.toml``).

The table knows the sizes of ``config.json`` under common names; this file finds them in a configuration, computes the
formulas, and brings the names in a file to the table's form.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple, TypeGuard

import msgspec

from headrace.weights.config import ModelConfig, parse_config, text_part

HEADS = frozenset({"lm_head.weight", "embed_out.weight"})
"""The rows that make scores for tokens out of the last layer, where a model does not use its embedding for that."""

_AROUND = frozenset(
    {"model", "language_model", "transformer", "gpt_neox", "backbone", "bert", "roberta", "distilbert", "mpnet"}
)
"""Names around a model that depend on the class by which it was saved (``base_model_prefix`` of transformers' classes,
and what its multimodal models call their text part)."""

_FFN = ("intermediate_size", "ffn_dim", "d_ff", "n_inner", "ffn_hidden_size", "encoder_ffn_dim", "hidden_dim")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_OWN_HEAD_DIM = frozenset(
    {
        "gemma",
        "gemma2",
        "gemma3_text",
        "glm",
        "glm4",
        "gpt_oss",
        "llama4_text",
        "ministral3",
        "mt5",
        "qwen3",
        "qwen3_moe",
    }
    | {"qwen3_next", "t5", "umt5"}
)
_OWN_KV_HEADS = frozenset(
    {"exaone4", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt_oss", "llama4_text", "ministral3", "mistral"}
    | {"mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "smollm3", "stablelm", "starcoder2"}
)
"""Families that mean a number of their own where config.json does not say how wide a head is, or how many there are for
keys and values; the others derive them from the hidden size and the heads (``configuration_*.py`` of transformers
5.23.0). What is not said is not compared."""

_ENCODER_LAYERS = ("encoder_layers", "num_layers")
_LEGACY_NORM = {"gamma": "weight", "beta": "bias"}
"""What the first BERT checkpoints call a normalisation's two tensors; transformers still reads them."""


_LARGEST = 2**40
"""No size is larger. What an attacker writes stays a number that can be multiplied and printed."""


class Row(msgspec.Struct, frozen=True):
    """One line of the table.

    Attributes:
        shape: A formula for each dimension.
        required: Every model of the family has it, in each of its layers.
    """

    shape: tuple[str, ...]
    required: bool


class Place(NamedTuple):
    """Where a tensor belongs: the table's name for it, and the numbers that stood where the name has ``*``."""

    pattern: str
    layer: int | None
    expert: int | None


@lru_cache(maxsize=1)
def families() -> Mapping[str, Mapping[str, Row]]:
    """The table: rows by their pattern, by ``model_type``."""
    raw = tomllib.loads(files("headrace.weights").joinpath("architectures.toml").read_text("utf-8"))
    return {name: {pattern: _row(shape) for pattern, shape in _lines(raw, name).items()} for name in raw}


def _lines(raw: Mapping[str, dict[str, str]], name: str) -> dict[str, str]:
    own = dict(raw[name])
    like = own.pop("like", None)
    lines = (_lines(raw, like) if like else {}) | own
    return {pattern: shape for pattern, shape in lines.items() if shape}


def _row(text: str) -> Row:
    return Row(tuple(part.strip() for part in text.lstrip("?").split(",")), required=not text.startswith("?"))


def family_of(raw: Mapping[str, Any]) -> str:
    """The ``model_type`` by which the table knows a configuration: that of its text part."""
    family = text_part(raw).get("model_type") or raw.get("model_type")
    return family if isinstance(family, str) else ""


@lru_cache(maxsize=4096)
def _stem(parts: tuple[str, ...]) -> str:
    start = 0
    while start < len(parts) - 1 and parts[start] in _AROUND:
        start += 1
    last = _LEGACY_NORM.get(parts[-1], parts[-1])
    return ".".join((*parts[start:-1], last))


def place_of(name: str) -> Place:
    """The table's name for a tensor: the first number in it is a layer's, one after ``experts`` an expert's."""
    parts = name.split(".")
    layer = expert = None
    for number, part in enumerate(parts):
        if not part.isdigit() or not part.isascii() or len(part) > 7:
            continue
        if number and parts[number - 1] == "experts":
            expert, parts[number] = int(part), "*"
        elif layer is None:
            layer, parts[number] = int(part), "*"
    return Place(_stem(tuple(parts)), layer, expert)


def sizes_of(raw: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that formulas may name: every whole number of the text part, and the common names.

    Raises:
        ConfigInvalid: As `parse_config`.
    """
    text, config = text_part(raw), parse_config(raw)
    sizes = {key: value for key, value in text.items() if _is_size(value)}
    common = {
        "hidden": config.hidden,
        "heads": config.heads,
        "vocab": config.vocab,
        "positions": config.max_positions,
        "ffn": _first(text, _FFN),
        "experts": _first(text, _EXPERTS),
        "decoder_layers": config.layers,
        "encoder_layers": _first(text, _ENCODER_LAYERS) or config.layers,
    }
    if config.heads and (head_dim := _head_dim(text, config)):
        common |= {"head_dim": head_dim, "q": config.heads * head_dim}
        if config.kv_heads and ("num_key_value_heads" in text or text.get("model_type") not in _OWN_KV_HEADS):
            common["kv"] = config.kv_heads * head_dim
    return sizes | {key: value for key, value in common.items() if value is not None}


def _head_dim(text: Mapping[str, Any], config: ModelConfig) -> int | None:
    if explicit := _first(text, ("head_dim", "d_kv")):
        return explicit
    derived = config.hidden and config.heads and config.hidden % config.heads == 0
    return config.head_dim if derived and text.get("model_type") not in _OWN_HEAD_DIM else None


def _first(text: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    found = (text.get(name) for name in names)
    return next((value for value in found if _is_size(value)), None)


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def shape_of(row: Row, sizes: Mapping[str, int]) -> tuple[int | None, ...]:
    """The shape that a configuration gives a row; None for a dimension whose sizes it does not say."""
    return tuple(_value(formula, sizes) for formula in row.shape)


def _value(formula: str, sizes: Mapping[str, int]) -> int | None:
    for choice in formula.split("|"):
        terms = [_product(term, sizes) for term in choice.split("+")]
        known = [term for term in terms if term is not None]
        if len(known) == len(terms):
            return sum(known)
    return None


def _product(term: str, sizes: Mapping[str, int]) -> int | None:
    value = 1
    for factor in term.split("*"):
        size = int(factor) if factor.isdigit() else sizes.get(factor)
        if size is None:
            return None
        value *= size
    return value
