"""The parameters of what mixes tokens: attention of every kind, and Qwen3-Next's linear attention."""

from __future__ import annotations

from headrace.capacity.families import Family
from headrace.capacity.fields import Fields
from headrace.weights.config import ModelConfig


def attention_parameters(config: ModelConfig, fields: Fields, family: Family) -> int:
    """Of one layer of full attention, latent (MLA) or not."""
    hidden, heads = config.hidden or 0, config.heads or 0
    if fields.number("kv_lora_rank"):
        return _latent(hidden, heads, fields)
    width, kv_width = heads * (config.head_dim or 0), (config.kv_heads or 0) * (config.head_dim or 0)
    biased = fields.flag("attention_bias")
    total = family.q_factor * hidden * width + 2 * hidden * kv_width + width * hidden
    total += family.q_factor * width + 2 * kv_width if family.qkv_bias or biased else 0
    total += hidden if family.out_bias or biased else 0
    total += 2 * (config.head_dim or 0) * family.norm_vectors if family.qk_norm else 0
    return total + (heads if family.sinks else 0)


def _latent(hidden: int, heads: int, fields: Fields) -> int:
    """Multi-head latent attention (arXiv:2405.04434, section 2.1), as DeepSeek V2 and V3 have it."""
    nope, rope = fields.number("qk_nope_head_dim"), fields.number("qk_rope_head_dim")
    rank, value = fields.number("kv_lora_rank"), fields.number("v_head_dim")
    q_rank, q_width = fields.number("q_lora_rank"), heads * (nope + rope)
    queries = hidden * q_rank + q_rank + q_rank * q_width if q_rank else hidden * q_width
    keys_and_values = hidden * (rank + rope) + rank + rank * heads * (nope + value)
    return queries + keys_and_values + heads * value * hidden


def linear_parameters(fields: Fields, hidden: int) -> int:
    """Of one layer of Qwen3-Next's gated delta net (``Qwen3NextGatedDeltaNet`` in transformers 5.23.0)."""
    key_heads, value_heads = fields.number("linear_num_key_heads"), fields.number("linear_num_value_heads")
    value_dim, kernel = fields.number("linear_value_head_dim"), fields.number("linear_conv_kernel_dim")
    keys, values = key_heads * fields.number("linear_key_head_dim"), value_heads * value_dim
    ins = hidden * (2 * keys + 2 * values) + hidden * 2 * value_heads
    return ins + (2 * keys + values) * kernel + 2 * value_heads + value_dim + values * hidden
