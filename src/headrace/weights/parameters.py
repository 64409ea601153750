"""How many numbers a model has, counted from its headers: all of them, and those that one token passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from headrace.weights.architectures import sizes_of
from headrace.weights.header import TensorEntry

_NOT_WEIGHTS = (".weight_scale_inv", ".weight_scale", ".input_scale", "_scales", ".scales", ".qzeros", ".g_idx",
                ".absmax", ".quant_map", ".SCB", ".weight_shape")  # fmt: skip
"""How the names of tensors end that a quantisation adds: scales, zeros, orders."""

_USED_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts")


class Parameters(NamedTuple):
    """Counts of a model's numbers.

    Attributes:
        total: All of them; a packed tensor counts as what it unpacks to.
        active: Those that one token passes; fewer than all in a mixture of experts.
    """

    total: int
    active: int


def count_parameters(raw: Mapping[str, Any], tensors: Iterable[TensorEntry]) -> Parameters:
    """Count a model's numbers.

    Args:
        raw: The content of ``config.json``.
        tensors: What the headers say.

    Raises:
        ConfigInvalid: As `parse_config`.
    """
    sizes = sizes_of(raw)
    experts = sizes.get("experts", 0)
    used = next((sizes[name] for name in _USED_EXPERTS if name in sizes), 0)
    total = of_experts = 0
    for tensor in tensors:
        if tensor.name.endswith(_NOT_WEIGHTS):
            continue
        count = tensor.elements * _packed(tensor)
        total += count
        if ".experts." in tensor.name or _is_granite_experts(tensor):
            of_experts += count
    idle = of_experts * (experts - used) // experts if 0 < used < experts else 0
    return Parameters(total, total - idle)


def _packed(tensor: TensorEntry) -> int:
    """How many numbers an element holds: of 4 bits two in a byte (MXFP4, bitsandbytes), eight in a word (GPTQ)."""
    if tensor.name.endswith((".qweight", ".weight_packed")) and tensor.dtype == "I32":
        return 8
    return 2 if tensor.dtype == "U8" and tensor.name.endswith(("_blocks", ".weight")) else 1


def _is_granite_experts(tensor: TensorEntry) -> bool:
    return len(tensor.shape) == 3 and tensor.name.endswith(("input_linear.weight", "output_linear.weight"))
