"""A folder of weights becomes a served model, or a reason why not."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from headrace_engines.serving.fatal import FatalError, is_out_of_memory
from headrace_engines.serving.generator import Limits, OnDeath, ServedModel
from headrace_engines.serving.heap import give_back
from headrace_engines.serving.images import sees
from headrace_engines.serving.recommended import recommended_sampling
from headrace_engines.transformers.attention import attend_as_cpus_should
from headrace_engines.transformers.batch import DynamicBatch
from headrace_engines.transformers.cache_cost import cost_of
from headrace_engines.transformers.checkpoint import load_tokenizer, load_weights
from headrace_engines.transformers.encoder import load_embedder
from headrace_engines.transformers.encoder_decoder import EncoderDecoderForward
from headrace_engines.transformers.forward import PROBE_TOKENS, CausalForward, Forward, probe
from headrace_engines.transformers.generator import SteppingGenerator
from headrace_engines.transformers.grammar import GrammarCompiler
from headrace_engines.transformers.kinds import Kind, kind_of, read_config
from headrace_engines.transformers.packed import pack
from headrace_engines.transformers.tokenizer import HuggingFaceCodec

_log = logging.getLogger(__name__)

# Names under which configurations state the context length; transformers maps most others onto the first.
_CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")

UNBOUNDED_CONTEXT = 2048
"""Tokens of context where neither the command nor the configuration says: positions are relative, and any would do."""

OWN_CACHE_BYTES = 2**30
"""The key-value cache when nothing is said: 46,000 tokens of SmolLM2-135M, 8,000 of a Llama of eight billion."""

LOADERS = {
    "causal": transformers.AutoModelForCausalLM,
    "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
    "vision-language": transformers.AutoModelForImageTextToText,
}
"""The class of transformers that loads each kind of text model."""


class LoadOptions(NamedTuple):
    """What to load and how much of it to run.

    Attributes:
        folder: Configuration, tokeniser and safetensors.
        dtype: A torch dtype's name, or ``auto`` for the configuration's own.
        device: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one.
        threads: CPU threads; None leaves it to torch.
        max_model_len: Tokens of context; None takes the configuration's.
        max_running: Sequences computed at once.
        max_waiting: Sequences accepted beyond those.
        kv_cache_bytes: Memory for keys and values; 0 takes `OWN_CACHE_BYTES`, or one full context where that is more.
        own_code: Run the Python code that the folder brings for itself.
    """

    folder: Path
    dtype: str
    device: str
    threads: int | None
    max_model_len: int | None
    max_running: int
    max_waiting: int
    kv_cache_bytes: int
    own_code: bool = False


def load(options: LoadOptions, loop: asyncio.AbstractEventLoop, on_death: OnDeath) -> ServedModel:
    """Read configuration, tokeniser and weights, and start the model's thread.

    Raises:
        FatalError: They cannot be served; it says why.
    """
    try:
        return _load(options, loop, on_death)
    except FatalError:
        raise
    except Exception as error:  # whatever somebody else's code raises
        if not options.own_code or is_out_of_memory(error):
            raise
        raise FatalError(
            "ENGINE_UNSUPPORTED_ARCHITECTURE",
            "The model's own code does not load, or does not compute, in this engine.",
            evidence=f"{type(error).__name__}: {error}",
        ) from error


def _load(options: LoadOptions, loop: asyncio.AbstractEventLoop, on_death: OnDeath) -> ServedModel:
    transformers.logging.disable_progress_bar()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = _device(options.device)
    if device == "cpu":
        attend_as_cpus_should()
    config = read_config(options.folder, own_code=options.own_code)
    kind = kind_of(options.folder, config, own_code=options.own_code)
    if kind == "encoder":
        embedder = load_embedder(
            options.folder,
            config,
            dtype=options.dtype,
            device=device,
            threads=options.threads,
            max_model_len=options.max_model_len,
            own_code=options.own_code,
            loop=loop,
            on_death=on_death,
        )
        tokenizer = load_tokenizer(options.folder, own_code=options.own_code)
        return ServedModel(None, HuggingFaceCodec(tokenizer), embedder=embedder)
    max_model_len = _max_model_len(config, options.max_model_len)
    tokenizer = load_tokenizer(options.folder, own_code=options.own_code)
    loader = LOADERS[kind]
    model = load_weights(options.folder, config, loader, options.dtype, own_code=options.own_code).to(device).eval()
    if not options.own_code:
        pack(model)
    _log.info("Loaded %s as %s on %s, context %d.", type(model).__name__, model.dtype, device, max_model_len)
    forward = forward_of(kind, model)
    if kind != "encoder-decoder":  # of whose context the encoder takes a part, and nobody knows how much
        forward.most_columns = max_model_len
    give_back()  # what loading copied
    vocab_size = config.get_text_config(decoder=True).vocab_size
    end_ids = _end_ids(model, tokenizer, vocab_size)
    generator = SteppingGenerator(
        batch=_batch(forward, options, max_model_len, device),
        limits=Limits(
            max_model_len=max_model_len,
            max_running=options.max_running,
            max_waiting=options.max_waiting,
            vocab_size=vocab_size,
        ),
        end_ids=end_ids,
        grammars=GrammarCompiler(tokenizer, vocab_size, end_ids),
        device=device,
        threads=options.threads,
        alive=lambda: probe(forward),
        loop=loop,
        on_death=on_death,
    )
    return ServedModel(
        generator,
        HuggingFaceCodec(tokenizer),
        recommended_sampling(options.folder),
        sees=sees(config.model_type, config.architectures),
        continues=kind != "encoder-decoder",
    )


def forward_of(kind: Kind, model: Any) -> Forward:
    """How a model of this kind is run."""
    return EncoderDecoderForward(model) if kind == "encoder-decoder" else CausalForward(model)


def _batch(forward: Forward, options: LoadOptions, max_model_len: int, device: str) -> DynamicBatch:
    cost = cost_of(probe(forward), PROBE_TOKENS)
    full_context_bytes = cost.block_bytes(1, forward.with_growth(max_model_len))
    budget_bytes = options.kv_cache_bytes or max(OWN_CACHE_BYTES, full_context_bytes)
    if budget_bytes < full_context_bytes:
        raise FatalError(
            "ENGINE_OUT_OF_MEMORY",
            f"The key-value cache of {budget_bytes:,} bytes does not hold one context of {max_model_len:,} tokens.",
            evidence=f"A token takes {cost.block_bytes(1, 1):,} bytes, a whole context {full_context_bytes:,}.",
        )
    _log.info("A token of cache takes %d bytes; %d are set aside.", cost.block_bytes(1, 1), budget_bytes)
    return DynamicBatch(
        forward,
        max_running=options.max_running,
        budget_bytes=budget_bytes,
        cost=cost,
        give_back=torch.cuda.empty_cache if device == "cuda" else give_back,
    )


def _device(wanted: str) -> str:
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise FatalError(
            "ENGINE_DIED",
            "The engine is to compute on a GPU, and torch finds none.",
            evidence=f"torch {torch.__version__}, CUDA {torch.version.cuda or 'not built in'}, "
            f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '(not set)')!r}.",
        )
    if wanted == "auto":
        return "cuda" if there else "cpu"
    return wanted


def own_context(config: Any) -> int | None:
    """The longest sequence, in tokens, by a configuration or its class's default; None where neither bounds it."""
    text_config = config.get_text_config(decoder=True)
    stated = (getattr(text_config, field, None) for field in _CONTEXT_FIELDS)
    own: int | None = next((tokens for tokens in stated if tokens), None)
    return own


def _max_model_len(config: Any, wanted: int | None) -> int:
    own = own_context(config)
    if own is not None and wanted is not None and wanted > own:
        raise FatalError(
            "ENGINE_DIED",
            f"--max-model-len {wanted} is more than the model's context of {own} tokens.",
            evidence=f"config.json, or its class's default: {own}",
        )
    return wanted or own or UNBOUNDED_CONTEXT


def _end_ids(model: Any, tokenizer: Any, vocab_size: int) -> frozenset[int]:
    """Every token that the folder calls the end: generation configuration, configuration and tokeniser may differ.

    One that the model has no weights for never comes, and could not be kept from coming.
    """
    configs = (model.generation_config, model.config, model.config.get_text_config(decoder=True))
    stated = [getattr(config, "eos_token_id", None) for config in configs] + [tokenizer.eos_token_id]
    return frozenset(
        token_id
        for one in stated
        if one is not None
        for token_id in (one if isinstance(one, list) else [one])
        if 0 <= token_id < vocab_size
    )
