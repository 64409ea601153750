"""What each layer of a model keeps while a sequence is under way, told from the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from headrace.capacity.fields import Fields
from headrace.weights.config import ModelConfig

Kind = Literal["full", "window", "linear", "state", "both", "none"]
"""Keys and values of all tokens; of the last ones; a linear attention's state; a state space's state; keys and values
of all tokens and a state beside them; nothing."""

WITHOUT_ATTENTION = frozenset({"falcon_mamba", "mamba", "mamba2", "rwkv"})
"""By ``model_type``: families that keep a state of fixed size for each sequence and nothing for each token."""

_WORDS: Mapping[str, Kind] = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "window",
    "linear_attention": "linear",
    "hybrid": "both",
    "mamba": "state",
    "mamba2": "state",
    "moe": "none",
    "mlp": "none",
}
"""The names in ``layer_types`` and ``layers_block_type``. What is not among them counts as full attention."""

_LETTERS: Mapping[str, Kind] = {"M": "state", "*": "full", "-": "none", "E": "none"}
"""Nemotron-H's ``hybrid_override_pattern``."""

_WINDOWED_PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "gpt_oss": 2, "cohere2": 4}
"""Every so many-th layer looks at all tokens where the file has no ``layer_types``; by ``model_type``, from
``models/*/configuration_*.py`` of transformers 5.23.0 (Gemma 2 and gpt-oss begin with a window, as all here do)."""

_ALL_WINDOWED = frozenset({"mistral", "mixtral", "phi3", "starcoder2"})
"""Families of which every layer has the window that the file names."""


def layer_kinds(config: ModelConfig) -> tuple[Kind, ...]:
    """What every layer of the decoder keeps; empty where the number of layers is not known."""
    count, fields = config.layers or 0, Fields(config.text)
    if config.model_type in WITHOUT_ATTENTION or config.model_type == "falcon_h1":
        every: Kind = "both" if config.model_type == "falcon_h1" else "state"
        return (every,) * count
    listed = fields.words("layer_types") or fields.words("layers_block_type")
    if count and len(listed) == count:
        return tuple(_WORDS.get(word, "full") for word in listed)
    pattern = fields.value("hybrid_override_pattern")
    if isinstance(pattern, str) and len(pattern) == count:
        return tuple(_LETTERS.get(letter, "full") for letter in pattern)
    kind = _kind_by_number(config.model_type, fields)
    return tuple(kind(number) for number in range(count))


def window_tokens(config: ModelConfig) -> int:
    """How many tokens a layer with a window keeps; 0 where none has one."""
    return Fields(config.text).known("sliding_window", "attention_window_size")


def _kind_by_number(model_type: str, fields: Fields) -> Callable[[int], Kind]:
    """For files that give a rule in place of a list."""
    if model_type == "bamba":
        attention = frozenset(fields.numbers("attn_layer_indices"))
        return lambda number: "full" if number in attention else "state"
    if model_type == "jamba":
        every, first = fields.known("attn_layer_period") or 8, fields.known("attn_layer_offset")
        return lambda number: "full" if number % every == first % every else "state"
    if model_type == "qwen3_next":
        every = fields.known("full_attention_interval") or 4
        return lambda number: "full" if (number + 1) % every == 0 else "linear"
    return _windowed_by_number(model_type, fields)


def _windowed_by_number(model_type: str, fields: Fields) -> Callable[[int], Kind]:
    if not fields.known("sliding_window"):
        return lambda _number: "full"
    if model_type in _WINDOWED_PATTERNS:
        every = fields.known("sliding_window_pattern", "_sliding_window_pattern") or _WINDOWED_PATTERNS[model_type]
        return lambda number: "full" if (number + 1) % every == 0 else "window"
    if fields.flag("use_sliding_window"):  # Qwen's: the layers from this one on
        first = fields.known("max_window_layers")
        return lambda number: "window" if number >= first else "full"
    return lambda _number: "window" if model_type in _ALL_WINDOWED else "full"
