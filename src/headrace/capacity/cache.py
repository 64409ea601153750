"""What a sequence leaves in memory, by the kinds of a model's layers and by what a runtime really allocates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from headrace.capacity.fields import Fields
from headrace.capacity.layers import layer_kinds, window_tokens
from headrace.capacity.states import NUMBER_BYTES, state_numbers
from headrace.resources.errors import ConfigInvalid
from headrace.weights.config import ModelConfig

Saving = Literal["latent", "window"]
"""Keep the compressed keys and values of latent attention; let go of tokens that left a window."""

SAVINGS: Mapping[str, frozenset[Saving]] = {"transformers": frozenset({"latent"}), "vllm": frozenset({"latent"})}
"""Which savings a runtime is known to make of every allocation, by its name; none where it does not stand here.

``latent``: vLLM 0.32.0 caches one vector of ``kv_lora_rank + qk_rope_head_dim`` numbers a token ("MLA stores a single
latent vector per state; there is no separate V", ``MLAAttentionSpec`` in vllm/v1/kv_cache_interface.py); transformers
5.23.0 caches the same two parts still compressed (``DeepseekV3Attention.forward``, ``DeepseekV2Attention.forward``).
``window``: nobody's, on purpose. vLLM lets go of such tokens only while its hybrid allocator is on, which it turns off
by itself in several configurations (vllm/config/vllm.py, ``need_disable_hybrid_kv_cache_manager``); our transformers
engine keeps sequences of several lengths side by side; of OpenVINO it is not known. A saving is added here once the
peak of that runtime was measured with it.
Layers without attention need no line: no runtime has keys and values to keep for them.
"""


_LATENT = frozenset({"deepseek_v2", "deepseek_v3"})
"""The families of which it is known that both runtimes keep them compressed. Others with ``kv_lora_rank`` are planned
with whole keys and values: vLLM 0.32.0 computes MiniCPM3's so, and some keep more beside the compressed vector."""


class CacheNeed(msgspec.Struct, frozen=True):
    """What sequences take.

    Attributes:
        bytes_per_token: Of layers that keep every token.
        window_bytes_per_token: Of layers that keep the last `window_tokens` only.
        window_tokens: The window; 0 without one.
        bytes_per_sequence: States of fixed size.
    """

    bytes_per_token: int
    window_bytes_per_token: int = 0
    window_tokens: int = 0
    bytes_per_sequence: int = 0


def cache_need(config: ModelConfig, number_bytes: int, runtime: str = "", tensor_parallel: int = 1) -> CacheNeed:
    """The cache of one sequence.

    Full attention keeps 2 (keys and values) × KV heads × head width for each token and layer. Latent attention keeps
    (arXiv:2405.04434, section 2.1) one compressed vector and one key with positions, on every device whole. Of several
    devices each has at least one KV head. An encoder-decoder's decoder keeps keys and values of the same size for each
    token that it writes (itself) and for each that the encoder read (cross-attention), so that a token costs the same
    on either side.

    Args:
        config: The model's shape.
        number_bytes: What one number of keys and values takes.
        runtime: Its name, for `SAVINGS`.
        tensor_parallel: Devices that share the model.

    Raises:
        ConfigInvalid: The configuration does not give the sizes that this takes.
    """
    kinds, savings = layer_kinds(config), SAVINGS.get(runtime, frozenset[Saving]())
    whole, windowed = sum(kind in {"full", "both"} for kind in kinds), kinds.count("window")
    window = window_tokens(config) if "window" in savings else 0
    if not window:
        whole, windowed = whole + windowed, 0
    if whole or windowed or not kinds:
        layer_bytes = (
            _numbers_per_token(config, "latent" in savings and config.model_type in _LATENT, tensor_parallel)
            * number_bytes
        )
    else:
        layer_bytes = 0
    return CacheNeed(
        bytes_per_token=whole * layer_bytes,
        window_bytes_per_token=windowed * layer_bytes,
        window_tokens=window,
        bytes_per_sequence=sum(state_numbers(config, kind) for kind in kinds) * NUMBER_BYTES,
    )


def _numbers_per_token(config: ModelConfig, latent: bool, tensor_parallel: int) -> int:
    """Numbers that a layer of attention keeps for a token, on all devices together."""
    fields = Fields(config.text)
    rank, rope = fields.number("kv_lora_rank"), fields.number("qk_rope_head_dim")
    if rank and latent:
        return (rank + rope) * tensor_parallel
    nope, value = fields.number("qk_nope_head_dim"), fields.number("v_head_dim")
    if rank and config.heads and nope and value:
        return max(config.heads, tensor_parallel) * (nope + rope + value)
    sizes = {"layers": config.layers, "key/value heads": config.kv_heads, "head width": config.head_dim}
    unknown = [name for name, size in sizes.items() if size is None]
    if unknown:
        raise ConfigInvalid(
            "The memory that this model needs cannot be told from its configuration.",
            evidence=f"config.json does not give its {', '.join(unknown)}.",
            fix="Copy the complete config.json from the model's source.",
        )
    return 2 * max(config.kv_heads or 0, tensor_parallel) * (config.head_dim or 0)
