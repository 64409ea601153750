"""The states of fixed size that layers without attention keep for each sequence, in numbers."""

from __future__ import annotations

from headrace.capacity.fields import Fields
from headrace.capacity.layers import Kind
from headrace.weights.config import ModelConfig

NUMBER_BYTES = 4
"""A number of a state takes four bytes: transformers 5.23.0 keeps Qwen3-Next's in float32, vLLM 0.32.0 may keep a state
space's so (``mamba_ssm_cache_dtype``). Where it is kept in two, half of this is planned for nothing."""

_CONV = ("mamba_d_conv", "conv_kernel", "d_conv")
_STATE = ("mamba_d_state", "ssm_state_size", "state_size", "d_state")
_HEADS = ("mamba_n_heads", "mamba_num_heads")
_HEAD_DIM = ("mamba_d_head", "mamba_head_dim")
_GROUPS = ("mamba_n_groups", "n_groups")


def state_numbers(config: ModelConfig, kind: Kind) -> int:
    """Numbers that one layer keeps for a sequence: what it has summed up, and the last tokens of its convolution."""
    fields = Fields(config.text)
    if kind == "linear" and fields.known("linear_num_value_heads"):
        return _linear(fields)
    if kind == "linear" and not fields.known(*_STATE, *_HEADS):  # lightning attention: a matrix for each head
        return (config.heads or 0) * (config.head_dim or 0) ** 2
    if kind not in {"state", "both", "linear"}:  # transformers 5 calls state spaces linear attention, too
        return 0
    if config.model_type == "rwkv":  # five vectors, ``RwkvModel.forward`` in transformers 5.23.0
        return 5 * (fields.known("attention_hidden_size") or config.hidden or 0)
    return _state_space(config, fields)


def _state_space(config: ModelConfig, fields: Fields) -> int:
    """Mamba's (arXiv:2312.00752) and, where there are heads, Mamba-2's (arXiv:2405.21060)."""
    mamba2 = config.model_type == "mamba2"
    expand = fields.known("mamba_expand", "expand") or 2
    kernel, state = fields.known(*_CONV) or 4, fields.known(*_STATE) or (128 if mamba2 else 16)
    heads = fields.known(*_HEADS, *(("num_heads",) if mamba2 else ()))
    head_dim = fields.known(*_HEAD_DIM, *(("head_dim",) if mamba2 else ()))
    width = fields.known("mamba_d_ssm") or heads * head_dim or expand * (config.hidden or 0)
    if not heads and config.model_type in {"mamba", "falcon_mamba"}:
        width = fields.known("intermediate_size") or width
    groups = fields.known(*_GROUPS) or (8 if mamba2 else 1)
    return width * state + (width + (2 * groups * state if heads or mamba2 else 0)) * kernel


def _linear(fields: Fields) -> int:
    """Qwen3-Next's gated delta net: a matrix for each value head, and the convolution's last tokens."""
    key_dim, value_dim = fields.known("linear_key_head_dim"), fields.known("linear_value_head_dim")
    key_heads, value_heads = fields.known("linear_num_key_heads"), fields.known("linear_num_value_heads")
    kernel = fields.known("linear_conv_kernel_dim")
    return value_heads * key_dim * value_dim + (2 * key_heads * key_dim + value_heads * value_dim) * kernel
