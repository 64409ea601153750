"""Run by the engine's Python: what attention on a CPU reads, beside every head by itself in float64.

Prints JSON, for each case its name, the largest difference by the largest value, the shapes of both, and whether it was
left to transformers.
"""

import json
from types import SimpleNamespace

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from headrace_engines.transformers import attention
from headrace_engines.transformers.attention import attend, attend_as_cpus_should

ROWS, HEADS, WIDTH, TOKENS = 3, 6, 16, 50
MASKS = ("none", "shared", "by head", "added")


def mask_of(kind, heads, new):
    """Which tokens are seen: a row's first ones are not."""
    if kind == "none":
        return None
    seen = torch.ones((ROWS, heads if kind == "by head" else 1, new, TOKENS), dtype=torch.bool)
    for row in range(ROWS):
        seen[row, :, :, : 7 * row] = False
    if kind == "by head":
        seen[:, ::2, :, 30:33] = False
    return torch.zeros(seen.shape, dtype=torch.bfloat16).masked_fill(~seen, -1e4) if kind == "added" else seen


def by_itself(query, key, value, mask, scaling):
    """Every head's own products, in float64."""
    groups = query.shape[1] // key.shape[1]
    query, key, value = (each.double() for each in (query, key, value))
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.double()
    return (torch.softmax(scores, dim=-1) @ value).transpose(1, 2)


def case(kv_heads, value_width, new, kind, dtype):
    """One shape and mask."""
    torch.manual_seed(0)
    query = torch.randn(ROWS, new, HEADS, WIDTH).to(dtype).transpose(1, 2)
    key = torch.randn(ROWS, kv_heads, TOKENS + 9, WIDTH).to(dtype)[:, :, :TOKENS]
    value = torch.randn(ROWS, kv_heads, TOKENS + 9, value_width).to(dtype)[:, :, :TOKENS]
    mask = mask_of(kind, HEADS, new)
    if kind == "added":
        mask = mask.to(dtype)
    module = SimpleNamespace(num_key_value_groups=HEADS // kv_heads, is_causal=False, layer_idx=0)
    left.clear()
    # Many models say that they have no softcap.
    read, _ = attend(module, query, key, value, mask, scaling=0.3, is_causal=False, softcap=None)
    expected = by_itself(query, key, value, mask, 0.3)
    return {
        "name": f"{kv_heads} of {HEADS} heads, values of {value_width}, {new} new, mask {kind}, {dtype}",
        "off": float((read.double() - expected).abs().max() / expected.abs().max()),
        "shapes": [list(read.shape), list(expected.shape)],
        "left": bool(left),
        "hastened": new == 1 and dtype == torch.bfloat16,
        "contiguous": read.is_contiguous(),  # some models look at it in another shape
        "exact_enough": {torch.bfloat16: 2**-6, torch.float32: 1e-5}[dtype],
    }


def left_to_transformers(*given, **more):
    """As transformers' own, and noted."""
    left.append(given)
    return sdpa_attention_forward(*given, **more)


left = []
attention.sdpa_attention_forward = left_to_transformers
attend_as_cpus_should()
cases = []
with torch.inference_mode():
    for dtype in (torch.bfloat16, torch.float32):
        for kind in MASKS:
            for kv_heads in (1, 2, 3, 6):
                for value_width, new in ((16, 1), (24, 1), (16, 4)):
                    cases.append(case(kv_heads, value_width, new, kind, dtype))
print(json.dumps(cases))
