"""The checkpoint's tensors on their way into a graph: each once, at its place, in the type it is kept in."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino import Node, op
from openvino import opset15 as ops
from openvino._offline_transformations import compress_model_transformation

from headrace_engines.convert.checkpoint import StoredTensor
from headrace_engines.convert.decoder import Decoder
from headrace_engines.serving.fatal import FatalError

_OV_TYPES = {"F32": ov.Type.f32, "F16": ov.Type.f16, "BF16": ov.Type.bf16}

_IGNORED = ".rotary_emb.inv_freq"
"""A buffer that old checkpoints hold; the configuration says the same."""


class Weights:
    """Constants made of tensors, and the account of which were used.

    Args:
        decoder: Says what shape a matrix has.
        tensors: The checkpoint.
        stored: ``own``: matrices stay as they lie in the checkpoint, bit for bit; ``bf16`` or ``f16``: those that lie
            there in float32 are rounded to it.
    """

    def __init__(self, decoder: Decoder, tensors: dict[str, StoredTensor], stored: str) -> None:
        self._decoder = decoder
        self._tensors = tensors
        self._stored = stored
        self._used: set[str] = set()
        self._embedding: Node | None = None
        self._kept: list[ov.Tensor] = []  # constants only point into these

    def embedding(self) -> Node:
        """``[vocabulary, hidden]``."""
        if self._embedding is None:
            self._embedding = self.matrix("model.embed_tokens")
        return self._embedding

    def head(self) -> Node:
        """The output head: the embedding where they are tied."""
        tied = self._decoder.tied
        if tied or (tied is None and "lm_head.weight" not in self._tensors):
            self._used.add("lm_head.weight")  # a copy that transformers does not read either
            return self.embedding()
        return self.matrix("lm_head")

    def matrix(self, name: str) -> Node:
        """``NAME.weight`` as a constant that is widened to float32 when it is computed with."""
        tensor = self._take(f"{name}.weight")
        rounded = _rounded(tensor, self._stored)
        kept = ov.Tensor(rounded.values, ov.Shape(list(rounded.values.shape)), _OV_TYPES[rounded.dtype])
        self._kept.append(kept)
        constant = op.Constant(kept, shared_memory=True)  # pages of the checkpoint, not a copy
        constant.set_friendly_name(tensor.name)
        return constant if rounded.dtype == "F32" else _widened(constant)

    def vector(self, name: str, shape: tuple[int, ...]) -> Node:
        """A norm's weights or a bias, in float32."""
        constant = ops.constant(self._take(name).as_float32().reshape(shape))
        constant.set_friendly_name(name)
        return constant

    def require_all_used(self) -> None:
        """A tensor without a place means a model that computes something else.

        Raises:
            FatalError: There is one.
        """
        left = sorted(name for name in self._tensors.keys() - self._used if not name.endswith(_IGNORED))
        contradicting = [name for name in left if name.startswith("model.layers.")]
        if contradicting:
            raise _contradiction(
                f"{len(contradicting)} of its tensors have no place in it, {contradicting[0]} among them"
            )
        if left:  # a head for another task, say: transformers leaves it out
            raise _refusal(f"{len(left)} of its tensors have no place in a {self._decoder.model_type}", left[0])

    def _take(self, name: str) -> StoredTensor:
        if name not in self._tensors:
            raise _contradiction(f"{name} is missing")
        self._used.add(name)
        tensor, expected = self._tensors[name], self._decoder.shape(name)
        if expected is not None and tensor.values.shape != expected:
            shape = list(tensor.values.shape)
            raise _contradiction(f"{name} has the shape {shape}; by config.json it is {list(expected)}")
        return tensor


def _contradiction(evidence: str) -> FatalError:
    """No other way would make a better model of it."""
    return FatalError("ENGINE_BAD_TENSOR", "The weights do not fit their configuration.", evidence=f"{evidence}.")


def _widened(narrow: Node) -> Node:
    """A conversion to float32 that is marked as decompression, so that the plugin computes with the narrow numbers.

    Unmarked it is folded when the model is compiled, and the weights lie in memory in float32 (611 MB instead of 88 for
    SmolLM2-135M, before the first token). Python can only mark a node by way of the pass that compresses float32
    constants: it is let loose on a placeholder, whose place the narrow weights then take.
    """
    any_input = op.Parameter(ov.Type.f32, ov.PartialShape.dynamic())
    user = ops.add(any_input, ops.constant(np.zeros(1, np.float32)))
    compress_model_transformation(ov.Model([user], [any_input]))
    conversion = user.input_value(1).get_node()
    conversion.input(0).replace_source_output(narrow.output(0))
    conversion.validate_and_infer_types()
    return conversion


def _rounded(tensor: StoredTensor, stored: str) -> StoredTensor:
    if tensor.dtype != "F32" or stored == "own":
        return tensor
    if stored == "bf16":
        return StoredTensor(tensor.name, "BF16", _to_bfloat16(tensor.values))
    with np.errstate(over="ignore"):
        halves = tensor.values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise _refusal("its weights do not fit float16", tensor.name)
    return StoredTensor(tensor.name, "F16", halves)


def _to_bfloat16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Round to the nearest, ties to the even one, as torch does."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _refusal(why: str, name: str) -> FatalError:
    return FatalError("CONVERSION_FAILED", f"The checkpoint is not what config.json says: {why}.", evidence=name)
