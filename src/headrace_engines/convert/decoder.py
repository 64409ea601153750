"""What `graph` has to know of a decoder, from ``config.json``: one shape, and the few ways in which families differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace_engines.serving.fatal import FatalError

MODEL_TYPES = frozenset({"granite", "llama", "mistral", "qwen2", "qwen3", "smollm3"})
"""Families that are built here; the tests hold each against transformers. `headrace.runtimes.conversions` names the
same, and a test holds the two lists together."""

ROPE_TYPES = frozenset({"default", "linear", "llama3"})


@dataclass(frozen=True)
class Decoder:
    """A decoder of pre-normed blocks: attention with rotary positions, then a gated feed-forward part.

    Attributes:
        intermediate: Width of the feed-forward part; None where ``config.json`` leaves it to the class's default.
        heads: Attention heads.
        kv_heads: Key and value heads; fewer under grouped-query attention.
        head_dim: Width of a head.
        norm_eps: Added to the mean of squares in every norm.
        inverse_frequencies: Of rotary positions, ``head_dim / 2`` of them.
        rotary_layers: Whether each layer rotates its queries and keys (SmolLM3 leaves every fourth out).
        qkv_bias: Whether those three projections have one.
        output_bias: Whether attention's output projection has one.
        mlp_bias: Whether the feed-forward projections have one.
        head_norm: Whether each head's queries and keys are normed before they are rotated (Qwen3).
        tied: Whether the output head is the embedding; None: if the checkpoint has no other.
        attention_scale: What scores are multiplied with.
        embedding_scale: What embeddings are multiplied with (Granite).
        residual_scale: What a block's two parts are multiplied with before they are added (Granite).
        logits_divisor: What logits are divided by (Granite).
    """

    model_type: str
    layers: int
    hidden: int
    intermediate: int | None
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    norm_eps: float
    inverse_frequencies: np.ndarray[Any, np.dtype[np.float32]]
    rotary_layers: tuple[bool, ...]
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    head_norm: bool
    tied: bool | None
    attention_scale: float
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logits_divisor: float = 1.0

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """The shape that a tensor must have, ``[to, from]`` for a matrix; None where the configuration does not say."""
        owner, _, kind = tensor.rpartition(".")
        wide, queries, keys = self.intermediate, self.heads * self.head_dim, self.kv_heads * self.head_dim
        hidden, vocabulary = self.hidden, self.vocabulary
        matrices: dict[str, tuple[int | None, int | None]] = {
            "embed_tokens": (vocabulary, hidden),
            "lm_head": (vocabulary, hidden),
            "q_proj": (queries, hidden),
            "k_proj": (keys, hidden),
            "v_proj": (keys, hidden),
            "o_proj": (hidden, queries),
            "gate_proj": (wide, hidden),
            "up_proj": (wide, hidden),
            "down_proj": (hidden, wide),
        }
        name = owner.rpartition(".")[2]
        if name not in matrices:  # a norm: of a head's width, or of the model's
            return (self.head_dim,) if name in ("q_norm", "k_norm") else (hidden,)
        expected = matrices[name][:1] if kind == "bias" else matrices[name]
        return None if None in expected else tuple(side for side in expected if side is not None)


def read_decoder(config: dict[str, Any]) -> Decoder:
    """The decoder that ``config.json`` describes, defaults as in transformers' configuration classes.

    Raises:
        FatalError: ``CONVERSION_FAILED``: it is of another family, or has what is not built here.
    """
    model_type = config.get("model_type", "")
    _require(model_type in MODEL_TYPES, f"model_type is {model_type!r}")
    _require(config.get("hidden_act", "silu") == "silu", f"hidden_act is {config.get('hidden_act')!r}")
    _require(not slides(config), "its attention has a sliding window")
    try:
        heads, layers, hidden = config["num_attention_heads"], config["num_hidden_layers"], config["hidden_size"]
        # These two have no default that the families share, but for llama's.
        kv_heads = config["num_key_value_heads"] if model_type != "llama" else config.get("num_key_value_heads")
        head_dim = config["head_dim"] if model_type == "qwen3" else config.get("head_dim")
        vocabulary = config["vocab_size"]
    except KeyError as missing:
        raise _refusal(f"it does not say {missing}") from None
    head_dim = head_dim or hidden // heads
    biased = bool(config.get("attention_bias", False))
    granite = model_type == "granite"
    return Decoder(
        model_type=model_type,
        layers=layers,
        hidden=hidden,
        intermediate=config.get("intermediate_size"),
        heads=heads,
        kv_heads=kv_heads or heads,
        head_dim=head_dim,
        vocabulary=vocabulary,
        norm_eps=config.get("rms_norm_eps", 1e-6),
        inverse_frequencies=inverse_frequencies(config, head_dim),
        rotary_layers=_rotary_layers(config, layers),
        qkv_bias=biased or model_type == "qwen2",
        output_bias=biased and model_type != "qwen2",
        mlp_bias=bool(config.get("mlp_bias", False)),
        head_norm=model_type == "qwen3",
        tied=config.get("tie_word_embeddings"),
        attention_scale=config.get("attention_multiplier", 1.0) if granite else head_dim**-0.5,
        embedding_scale=config.get("embedding_multiplier", 1.0) if granite else 1.0,
        residual_scale=config.get("residual_multiplier", 1.0) if granite else 1.0,
        logits_divisor=config.get("logits_scaling", 1.0) if granite else 1.0,
    )


def slides(config: dict[str, Any]) -> bool:
    """Whether some layer attends to fewer tokens than the model's longest context.

    A Mistral that does not say has its class's window of 4,096; for the others a window counts once it is switched on.
    """
    if "sliding_attention" in (config.get("layer_types") or ()):
        return True
    if config["model_type"] == "mistral":
        window = config.get("sliding_window", 4096)
    else:
        window = config.get("sliding_window") if config.get("use_sliding_window") else None
    return window is not None and window < config.get("max_position_embeddings", math.inf)


def inverse_frequencies(config: dict[str, Any], head_dim: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """How fast each pair of a head's dimensions turns, in radians per position.

    The scalings are those of transformers' ``modeling_rope_utils.py``: ``linear`` and ``llama3``.
    """
    # transformers 5 writes one object; 4 wrote rope_theta beside it
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    _require(kind in ROPE_TYPES, f"its positions are scaled by {kind!r}")
    _require(rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) == 1.0, "it rotates in part")
    # float32 throughout, as torch computes it
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    plain = (np.float32(1.0) / np.float32(theta) ** exponents).astype(np.float32)
    if kind == "linear":
        return (plain / np.float32(rope["factor"])).astype(np.float32)
    if kind == "llama3":
        return _llama3(plain, rope)
    return plain


def _llama3(plain: np.ndarray[Any, Any], rope: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Slow turns are slowed further by the factor, fast ones stay, those between are blended."""
    length, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    wavelength = 2 * np.pi / plain
    slowed = plain / rope["factor"]
    share = (length / wavelength - low) / (high - low)
    blended = (1 - share) * slowed + share * plain
    scaled = np.where(wavelength > length / low, slowed, np.where(wavelength < length / high, plain, blended))
    return scaled.astype(np.float32)


def _rotary_layers(config: dict[str, Any], layers: int) -> tuple[bool, ...]:
    if config["model_type"] != "smollm3":
        return (True,) * layers
    said = config.get("no_rope_layers")  # despite its name, 1 stands for a layer that rotates
    if said is None:
        interval = config.get("no_rope_layer_interval", 4)
        return tuple((layer + 1) % interval != 0 for layer in range(layers))
    return tuple(bool(rotates) for rotates in said)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _refusal(otherwise)


def _refusal(why: str) -> FatalError:
    return FatalError("CONVERSION_FAILED", "This model is not one that is converted directly.", evidence=f"{why}.")
