"""A converted folder becomes a pipeline, or a reason why not. For the process that computes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
import openvino as ov
import openvino_genai as genai  # type: ignore[import-not-found]  # in the engine's environment only

from headrace_engines.openvino.kv_cache import BLOCK_TOKENS, KvCache, KvPrecision, sized
from headrace_engines.openvino.messages import Load, Loaded
from headrace_engines.openvino.running import Running
from headrace_engines.serving.fatal import FatalError, fatal_from, is_out_of_memory

_log = logging.getLogger(__name__)

MODEL_FILE = "openvino_model.xml"

PROMPT_TOKENS_PER_STEP = 64
"""Prompt tokens in a step that every running sequence takes part in.

More of them make prompts faster and everybody else wait longer for the next token: 1,500 tokens took 180, 200, 225,
237 and 250 per second of CPU time in pieces of 32, 64, 128, 256 and 512 (SmolLM2-135M, a busy machine, one run each).
A step with fewer sequences than the most there can be gives their places to the prompt.
"""

_NO_THREAD = "resource temporarily unavailable"
"""glibc's EAGAIN: how a thread's stack that finds no address space is told by C++."""

# Names under which configurations state the context length.
_CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


def load(order: Load) -> tuple[Running, Loaded]:
    """Read configuration and weights, and make the pipeline.

    Raises:
        FatalError: They cannot be served; it says why.
    """
    folder = Path(order.folder)
    config = _config(folder)
    max_model_len = _max_model_len(config, order.max_model_len)
    core = ov.Core()
    model = _graph(core, folder)
    computed_in, kept_in = _precisions(core, order.dtype)
    cache = sized(model, kept_in, max_model_len=max_model_len, wanted_bytes=order.kv_cache_bytes)
    vocab_size = model.output("logits").get_partial_shape()[2].get_length()
    del model  # the pipeline reads its own
    pipeline = _pipeline(order, cache, {"INFERENCE_PRECISION_HINT": computed_in, "KV_CACHE_PRECISION": kept_in})
    end_ids = _end_ids(folder, config, order.end_id)
    running = Running(pipeline, cache_blocks=cache.blocks, max_running=order.max_running, end_ids=end_ids)
    tokens = cache.blocks * BLOCK_TOKENS
    _log.info("Loaded %s in %s, context %d, KV cache of %d tokens.", MODEL_FILE, computed_in, max_model_len, tokens)
    return running, Loaded(max_model_len, vocab_size)


def _config(folder: Path) -> dict[str, Any]:
    """``config.json``, or the part of it that describes the text model."""
    if not (folder / MODEL_FILE).is_file():
        raise FatalError("ENGINE_BAD_TENSOR", f"{folder} was not converted for OpenVINO.", evidence=f"no {MODEL_FILE}")
    config = _read_json(folder / "config.json")
    if config is None:
        raise FatalError("ENGINE_DIED", f"There is no readable config.json in {folder}.")
    text_config: dict[str, Any] = config.get("text_config") or config
    return text_config


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _max_model_len(config: dict[str, Any], wanted: int | None) -> int:
    own: Any = next((value for field in _CONTEXT_FIELDS if (value := config.get(field))), None)
    if own is None and wanted is None:
        raise FatalError(
            "ENGINE_DIED",
            "The configuration does not state a context length; give --max-model-len.",
            evidence=f"none of {', '.join(_CONTEXT_FIELDS)}",
        )
    if own is not None and wanted is not None and wanted > own:
        raise FatalError(
            "ENGINE_DIED",
            f"--max-model-len {wanted} is more than the model's context of {own} tokens.",
            evidence=f"config.json: {own}",
        )
    return int(own if wanted is None else wanted)


def _graph(core: ov.Core, folder: Path) -> ov.Model:
    try:
        return core.read_model(folder / MODEL_FILE)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise fatal_from(error) from error
        raise FatalError("ENGINE_BAD_TENSOR", f"{folder / MODEL_FILE} cannot be read.", evidence=str(error)) from error


def _precisions(core: ov.Core, dtype: str) -> tuple[str, KvPrecision]:
    """What is computed in, and what keys and values are kept in: float32 throughout only where that is asked for.

    A CPU without bfloat16 computes in float32. Quantised keys and values cost nothing that shows either way: over eight
    texts of 700 tokens SmolLM2-135M has a negative log-likelihood of 3.7712 a token in float32; 3.7711 with 8-bit keys
    and values; in bfloat16 3.7710, and 3.7704 with 8-bit ones (no text off by more than 0.005). They take 0.59 of the
    memory of bfloat16 ones.
    """
    if dtype == "float32":
        return "f32", "f32"
    return "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32", "u8"


def _pipeline(order: Load, cache: KvCache, precisions: dict[str, str]) -> Any:
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = cache.blocks
    scheduler.max_num_seqs = order.max_running
    scheduler.max_num_batched_tokens = order.max_running + PROMPT_TOKENS_PER_STEP
    scheduler.dynamic_split_fuse = True  # a long prompt is computed in pieces, beside the others' next tokens
    scheduler.enable_prefix_caching = order.prefix_caching
    # Threads bound to cores would share one core with the next engine, that binds its own there.
    properties: dict[str, Any] = {"ENABLE_CPU_PINNING": False} | precisions
    if order.threads is not None:
        properties |= {"INFERENCE_NUM_THREADS": order.threads, "sampler_num_threads": order.threads}
    tokenizer_properties = {"ENABLE_CPU_PINNING": False, "INFERENCE_NUM_THREADS": 1}
    try:
        return genai.ContinuousBatchingPipeline(order.folder, scheduler, "CPU", properties, tokenizer_properties)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise fatal_from(error) from error
        if _NO_THREAD in str(error).lower():
            raise FatalError(
                "ENGINE_OUT_OF_MEMORY", "There is no room for another thread.", evidence=str(error)
            ) from error
        raise FatalError(
            "ENGINE_UNSUPPORTED_ARCHITECTURE",
            f"OpenVINO {ov.__version__} cannot run {order.folder}/{MODEL_FILE} with paged attention.",
            evidence=str(error),
        ) from error


def _end_ids(folder: Path, config: dict[str, Any], tokenizer_end_id: int | None) -> frozenset[int]:
    """Every token that the folder calls the end: generation configuration, configuration and tokeniser may differ."""
    generation_config = _read_json(folder / "generation_config.json") or {}
    stated = (generation_config.get("eos_token_id"), config.get("eos_token_id"), tokenizer_end_id)
    return frozenset(
        token_id for one in stated if one is not None for token_id in (one if isinstance(one, list) else [one])
    )
