"""How much the paged key-value cache takes and holds."""

from __future__ import annotations

from typing import Literal, NamedTuple

import openvino as ov

from headrace_engines.serving.fatal import FatalError

BLOCK_TOKENS = 32
"""Tokens of a block on a CPU (``cpu_block_size`` of GenAI's ``kv_cache_manager.hpp``)."""

OWN_BYTES = 2**30
"""The size when nobody says one, as vLLM's CPU build has it in all examples."""

KvPrecision = Literal["f32", "u8"]

_SCALE_BYTES = 8
"""Scale and zero point of a quantised group, both float32."""


class KvCache(NamedTuple):
    """A cache of fixed size.

    Attributes:
        blocks: How many there are.
        block_bytes: What one takes in all layers.
    """

    blocks: int
    block_bytes: int


def blocks_of(tokens: int) -> int:
    """Blocks that this many tokens of one sequence fill."""
    return -(-tokens // BLOCK_TOKENS)


def sized(model: ov.Model, precision: KvPrecision, *, max_model_len: int, wanted_bytes: int) -> KvCache:
    """A cache of `wanted_bytes`, or of `OWN_BYTES` for 0; in that case larger if one context needs it.

    Raises:
        FatalError: What is wanted does not hold one sequence of `max_model_len`; or the model keeps no keys and values.
    """
    block_bytes = _block_bytes(model, precision)
    needed = blocks_of(max_model_len)
    blocks = (wanted_bytes or max(OWN_BYTES, needed * block_bytes)) // block_bytes
    if blocks < needed:
        raise FatalError(
            "ENGINE_OUT_OF_MEMORY",
            f"The key-value cache does not hold one context of {max_model_len:,} tokens.",
            evidence=f"{wanted_bytes:,} bytes hold {blocks * BLOCK_TOKENS:,} tokens; "
            f"{needed * block_bytes:,} bytes are needed.",
        )
    return KvCache(blocks, block_bytes)


def _block_bytes(model: ov.Model, precision: KvPrecision) -> int:
    """Bytes of a block, as the CPU plugin lays it out; a test holds it against what GenAI allocates.

    Of 8-bit keys every channel of a block has a scale of its own, of 8-bit values every token.
    """
    block_bytes = 0
    for variable in model.get_variables():
        shape = variable.info.data_shape
        if len(shape) != 4 or shape[1].is_dynamic or shape[3].is_dynamic:
            raise _unsupported(f"the state {variable.info.variable_id} has the shape {shape}")
        heads, head_dim = shape[1].get_length(), shape[3].get_length()
        if precision == "f32":
            block_bytes += heads * BLOCK_TOKENS * head_dim * 4
        elif ".key" in variable.info.variable_id:
            block_bytes += heads * (BLOCK_TOKENS + _SCALE_BYTES) * head_dim
        else:
            block_bytes += heads * BLOCK_TOKENS * (head_dim + _SCALE_BYTES)
    if not block_bytes:
        raise _unsupported("it has no states")
    return block_bytes


def _unsupported(evidence: str) -> FatalError:
    return FatalError(
        "ENGINE_UNSUPPORTED_ARCHITECTURE", "This model does not keep its keys and values in pages.", evidence=evidence
    )
