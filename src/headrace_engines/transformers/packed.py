"""Matrices as a CPU's kernels read them, laid out once instead of for every pass.

oneDNN multiplies bfloat16 by blocks of rows and columns that lie together. torch hands it a matrix as the checkpoint
has it, row by row, and each product begins with laying it out anew: of a token of SmolLM2 on its own a sixth of the
time. Only the order changes in which memory is read: results are equal to the bit, unless torch computes a product in
two steps (of a slice of a larger tensor, and adds the bias then) and rounds once more.
"""

from __future__ import annotations

import inspect
import logging
import platform
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch

from headrace_engines.transformers.mapped import MappedFiles

_log = logging.getLogger(__name__)

_ROWS = 32
"""The layout is chosen for products of so many rows; measured, that for 1, 8 or 512 serves none of them better."""

_READ = re.compile(r"\bself\.(\w+)\.weight\b")


class PackedLinear(torch.nn.Linear):  # type: ignore[misc]  # torch is there in the engine's environment only
    """A layer that computes with its packed matrix, and keeps no other."""

    _packed: Any

    def forward(self, input: Any) -> Any:  # noqa: A002 - torch's name
        """The product, with the bias added."""
        return torch.ops.mkldnn._linear_pointwise(input, self._packed, self.bias, "none", [], "")

    @property
    def weight(self) -> Any:
        """The matrix, row by row: made anew each time."""
        return self._packed.to_dense()


def pack(model: Any) -> int:
    """Let a model's linear layers compute with packed matrices, where this CPU has instructions for bfloat16.

    What is left as it is: layers of another type than torch's own, for they may compute something else; those whose
    matrix the model's code reads itself; and matrices that have another use, as a head that is the table of embeddings,
    which would be there twice.

    Returns:
        How many were packed.
    """
    if model.device.type != "cpu" or not multiplies_bfloat16():
        return 0
    uses = Counter(id(parameter) for module in model.modules() for parameter in module._parameters.values())
    read = set(map(id, _read_by_code(model)))
    chosen = [
        module
        for module in model.modules()
        if type(module) is torch.nn.Linear
        and _can_be_packed(module.weight)
        and uses[id(module.weight)] == 1
        and id(module) not in read
    ]
    files = MappedFiles()
    for module in chosen:
        _pack(module, files)
    _log.info("%d matrices are packed for oneDNN.", len(chosen))
    return len(chosen)


def multiplies_bfloat16() -> bool:
    """Whether this CPU is an x86 that does. AVX-512 alone gains next to nothing by packing; others were not tried."""
    if not torch.backends.mkldnn.is_available() or platform.machine() not in {"x86_64", "AMD64"}:
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _can_be_packed(weight: Any) -> bool:
    return bool(weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and weight.numel() > 0)


def _pack(module: Any, files: MappedFiles) -> None:
    plain = module._parameters.pop("weight").detach()
    module._packed = torch.ops.mkldnn._reorder_linear_weight(plain, _ROWS)
    files.let_go(plain)
    module.__class__ = PackedLinear


def _read_by_code(model: Any) -> Iterable[Any]:
    """Layers whose matrix is read where they stand in the model, and be it for its type: those would be unpacked."""
    names = {kind: _read_names(kind) for kind in set(map(type, model.modules()))}
    for module in model.modules():
        for name in names[type(module)]:
            yield getattr(module, name, None)


def _read_names(kind: type) -> frozenset[str]:
    try:
        return frozenset(_READ.findall(inspect.getsource(kind)))
    except (OSError, TypeError):  # a class without a file
        return frozenset()
