"""Attention on a CPU, where what transformers chooses for every device is not what is fast."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

_ASKED_TWICE = 2

_NOT_OURS = ("softcap", "cache")
"""What a layer may say that transformers alone answers to: a refusal, or a cache of its own."""


def attend_as_cpus_should() -> None:
    """Let transformers' ``sdpa`` be `attend` from now on, and repeat no keys and values where there is a mask.

    transformers repeats each key-value head for every query head that reads it, unless there is no mask. A CPU's kernel
    takes masks, too: measured on one layer of 8 rows of 1,024 tokens 1.25 instead of 5.05 ms, equal to the bit.
    """
    os.environ["TRANSFORMERS_SDPA_FORCE_GQA"] = "1"
    AttentionInterface.register("sdpa", attend)


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: Any = None,
    **more: Any,
) -> tuple[Any, None]:
    """As transformers' own, but one new token's query heads that read the same keys are rows of one product.

    In bfloat16 a product of one row takes longer than one of two or three, and a head's keys are packed for each
    product anew: for 32 rows of 512 tokens of a Llama of eight billion 57 ms a layer, and 6.8 as here. Where no heads
    share keys each is asked twice, which takes 0.55 of asking once. In float32 it is all the other way round.

    Args:
        module: The layer.
        query: Of shape (rows, heads, new tokens, width).
        key: Of shape (rows, key-value heads, tokens, width).
        value: The same for values; their width may be another.
        attention_mask: Of shape (rows, 1 or heads, new tokens, tokens), or None where all is seen.
        dropout: None is ever wanted here.
        scaling: Of the scores; None for torch's own.
        position_bias: Where there is one, everything is transformers' affair.
        more: What else a model says; transformers' affair, too.

    Returns:
        What every head read, of shape (rows, new tokens, heads, width) and contiguous, and no scores.
    """
    rows, heads, new, width = query.shape
    theirs = position_bias is not None or any(more.get(name) is not None for name in _NOT_OURS)
    if theirs or new > 1 or query.dtype != torch.bfloat16:
        more |= {"dropout": dropout, "scaling": scaling, "position_bias": position_bias}
        read, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **more)
        return read, None
    kv_heads = key.shape[1]
    if kv_heads == heads:
        asked = query.expand(rows, heads, _ASKED_TWICE, width)
    else:
        asked = query.reshape(rows, kv_heads, heads // kv_heads, width)
        if attention_mask is not None and attention_mask.shape[1] > 1:
            attention_mask = attention_mask.reshape(len(attention_mask), kv_heads, heads // kv_heads, key.shape[2])
    read = torch.nn.functional.scaled_dot_product_attention(
        asked, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    if kv_heads == heads:
        read = read[:, :, :1]
    return read.reshape(len(read), 1, heads, value.shape[-1]).contiguous(), None
