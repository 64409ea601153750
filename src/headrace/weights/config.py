"""What ``config.json`` says about a model's shape, under the several names that architectures give the same thing."""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as brief  # of a value a thousand levels deep, too
from typing import Any

import msgspec

from headrace.resources.errors import ConfigInvalid, ConfigMissing
from headrace.weights.positions import DEFAULT_POSITIONS
from headrace.weights.reader import FolderReader, read_json_object

CONFIG_FILE = "config.json"

_LAYERS = ("num_decoder_layers", "decoder_layers", "num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("decoder_attention_heads", "num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
_HEAD_DIM = ("head_dim", "d_kv")
_VOCAB = ("vocab_size",)
_MAX_POSITIONS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"),
    *("context_length", "model_max_length"),  # rwkv's; kimi_linear's and bailing_hybrid's
)
_NESTED = ("text_config", "llm_config", "language_config")
_AROUND = "thinker_config"
"""Models that also speak keep the part that thinks, with its own text part, under this name."""

MOST_LAYERS = 10_000
"""More layers than any model has, by far: the deepest known have some hundreds. Plans walk them one by one."""

_TEXT_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "gemma": {"num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "num_hidden_layers": 28}
    | {"hidden_size": 3072, "vocab_size": 256_000},
    "gemma2": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "num_hidden_layers": 26}
    | {"hidden_size": 2304, "vocab_size": 256_000},
    "gemma3_text": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "num_hidden_layers": 26}
    | {"hidden_size": 2304, "vocab_size": 262_208},
    "llama": {"num_attention_heads": 32, "num_hidden_layers": 32} | {"hidden_size": 4096, "vocab_size": 32_000},
    "mistral": {"num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32}
    | {"hidden_size": 4096, "vocab_size": 32_000},
    "qwen2": {"num_attention_heads": 32, "num_key_value_heads": 32, "num_hidden_layers": 32}
    | {"hidden_size": 4096, "vocab_size": 151_936},
}
"""What a text part means that does not say: within another's configuration, transformers 4 wrote only what differs
from these (Gemma 3 4B says neither heads nor their width, LLaVA 1.5 none of its sizes). By the text part's
``model_type``; from ``models/*/configuration_*.py`` of transformers 5.23.0."""


class ModelConfig(msgspec.Struct, frozen=True):
    """A model's shape. What its configuration does not say is None; a multimodal model's is that of its text part.

    An encoder-decoder's is that of its decoder, which keeps keys and values: for each token that it writes its own, and
    for each that the encoder read those of the cross-attention, of the same size.

    Attributes:
        architectures: Class names, such as ``LlamaForCausalLM``; empty where the file names none.
        model_type: The family, such as ``llama``.
        layers: Transformer blocks.
        heads: Attention heads.
        kv_heads: Key and value heads; fewer than ``heads`` under grouped-query attention.
        head_dim: Width of a head.
        hidden: Width of the residual stream.
        vocab: Rows of the embedding.
        max_positions: The longest sequence that it was made for, in tokens; where the file does not say, what its class
            means then. None where neither bounds it.
        tied_embeddings: The output head is the embedding.
        quantisation: Name of the quantisation method, or None.
        text: Everything that the file says of the part that decodes texts, for what only some families have.
        vision: The same of the part that reads images; empty without one.
    """

    architectures: tuple[str, ...]
    model_type: str
    layers: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    hidden: int | None
    vocab: int | None
    max_positions: int | None
    tied_embeddings: bool
    quantisation: str | None
    text: dict[str, Any] = msgspec.field(default_factory=dict)
    vision: dict[str, Any] = msgspec.field(default_factory=dict)


def read_config(reader: FolderReader) -> ModelConfig:
    """Read ``config.json``.

    Raises:
        ConfigMissing: There is none.
        ConfigInvalid: It is not a JSON object, lacks ``model_type``, or a size in it is not a whole number above zero.
    """
    if CONFIG_FILE not in reader.sizes():
        raise ConfigMissing(
            "The folder has no config.json.",
            evidence=f"Files found: {', '.join(sorted(reader.sizes())[:8]) or 'none'}.",
            fix="Give the folder that holds config.json beside the weights, as `save_pretrained` writes it.",
        )
    return parse_config(read_json_object(reader, CONFIG_FILE, ConfigInvalid))


def parse_config(raw: Mapping[str, Any]) -> ModelConfig:
    """The same, from the file's content."""
    text = text_part(raw)
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise _invalid("It has no model_type.", f"model_type is {brief(model_type)}")
    heads, hidden = _size(text, _HEADS), _size(text, _HIDDEN)
    derived_head_dim = hidden // heads if hidden and heads else None
    return ModelConfig(
        architectures=_architectures(raw),
        model_type=model_type,
        layers=_size(text, _LAYERS, MOST_LAYERS),
        heads=heads,
        kv_heads=_kv_heads(text, heads),
        head_dim=_size(text, _HEAD_DIM) or derived_head_dim,
        hidden=hidden,
        vocab=_size(text, _VOCAB),
        max_positions=_size(text, _MAX_POSITIONS) or _default_positions(text, model_type),
        # transformers' own default is true; families that do not tie say so in the file
        tied_embeddings=bool(raw.get("tie_word_embeddings", text.get("tie_word_embeddings", True))),
        quantisation=_quantisation(raw) or _quantisation(text),
        text=dict(text),
        vision=vision if isinstance(vision := raw.get("vision_config"), dict) else {},
    )


def text_part(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of ``config.json`` describes the decoder of texts: the whole of it, or a part within."""
    outer = raw[_AROUND] if isinstance(raw.get(_AROUND), dict) else raw
    for key in _NESTED:
        if isinstance(text := outer.get(key), dict):
            family = text.get("model_type")
            return {**(_TEXT_DEFAULTS.get(family, {}) if isinstance(family, str) else {}), **text}
    return outer


def _default_positions(text: Mapping[str, Any], model_type: str) -> int | None:
    of_text = text.get("model_type")
    own = DEFAULT_POSITIONS.get(of_text) if isinstance(of_text, str) else None
    return own or DEFAULT_POSITIONS.get(model_type)


def _kv_heads(text: Mapping[str, Any], heads: int | None) -> int | None:
    # Falcon and GPT-BigCode say multi-query attention with a flag; Falcon's newer form ignores the flag.
    if text.get("multi_query") is True and not text.get("new_decoder_architecture"):
        return 1
    return _size(text, _KV_HEADS) or heads


def _size(text: Mapping[str, Any], names: tuple[str, ...], most: int = 2**40 - 1) -> int | None:
    for name in names:
        value = text.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise _invalid(f"{name} is not a whole number above zero.", f"{name} is {brief(value)}")
        if value > most:
            raise _invalid(
                f"{name} is larger than any model's.", f"{name} is {brief(value)}, and at most {most:,} are read"
            )
        return value
    return None


def _architectures(raw: Mapping[str, Any]) -> tuple[str, ...]:
    value = raw.get("architectures") or []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _invalid("architectures is not a list of class names.", f"architectures is {brief(value)}")
    return tuple(value)


def _quantisation(raw: Mapping[str, Any]) -> str | None:
    value = raw.get("quantization_config")
    if not value:
        return None
    named = value.get("quant_method") if isinstance(value, dict) else None
    return named if isinstance(named, str) and named else "unnamed"


def _invalid(message: str, evidence: str) -> ConfigInvalid:
    return ConfigInvalid(
        f"config.json is not valid: {message}",
        evidence=f"{evidence[:200]}.",
        fix="Copy config.json from the model's source again.",
    )
