"""A folder of weights becomes a served model, or a reason why not."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from headrace_engines.serving.fatal import FatalError, fatal_from, is_out_of_memory
from headrace_engines.serving.generator import Limits, OnDeath, ServedModel
from headrace_engines.serving.recommended import recommended_sampling
from headrace_engines.transformers.batch import InterleavedBatch
from headrace_engines.transformers.generator import SteppingGenerator
from headrace_engines.transformers.tokenizer import HuggingFaceCodec

_log = logging.getLogger(__name__)

# Names under which configurations state the context length; transformers maps most others onto the first.
_CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")

_NAMES_SHOWN = 5


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
    """

    folder: Path
    dtype: str
    device: str
    threads: int | None
    max_model_len: int | None
    max_running: int
    max_waiting: int


def load(options: LoadOptions, loop: asyncio.AbstractEventLoop, on_death: OnDeath) -> ServedModel:
    """Read configuration, tokeniser and weights, and start the model's thread.

    Raises:
        FatalError: They cannot be served; it says why.
    """
    transformers.logging.disable_progress_bar()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = _device(options.device)
    config = _config(options.folder)
    max_model_len = _max_model_len(config, options.max_model_len)
    tokenizer = _tokenizer(options.folder)
    model = _weights(options, config).to(device).eval()
    _log.info("Loaded %s as %s on %s, context %d.", type(model).__name__, model.dtype, device, max_model_len)
    generator = SteppingGenerator(
        batch=InterleavedBatch(model, options.max_running),
        limits=Limits(
            max_model_len=max_model_len,
            max_running=options.max_running,
            max_waiting=options.max_waiting,
            vocab_size=config.get_text_config().vocab_size,
        ),
        end_ids=_end_ids(model, tokenizer),
        device=device,
        threads=options.threads,
        alive=lambda: model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=device)),
        loop=loop,
        on_death=on_death,
    )
    return ServedModel(generator, HuggingFaceCodec(tokenizer), recommended_sampling(options.folder))


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def _config(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise FatalError("ENGINE_DIED", f"There is no config.json in {folder}.", evidence="no such file")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except StrictDataclassError as error:
        raise FatalError(
            "ENGINE_BAD_TENSOR",
            f"{folder / 'config.json'} describes tensors that cannot exist.",
            evidence=f"{type(error).__name__}: {error}",
        ) from error
    except (ValueError, KeyError) as error:
        raise _unsupported(folder, error) from error
    if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise _unsupported(folder, ValueError(f"{config.model_type} is not a causal language model"))
    return config


def _unsupported(folder: Path, error: Exception) -> FatalError:
    return FatalError(
        "ENGINE_UNSUPPORTED_ARCHITECTURE",
        f"transformers {transformers.__version__} has no causal language model for {folder / 'config.json'}.",
        evidence=f"{type(error).__name__}: {error}",
    )


def _tokenizer(folder: Path) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises plain ones
        if is_out_of_memory(error):
            raise fatal_from(error) from error
        raise FatalError(
            "TOKENIZER_INVALID",
            f"The tokenizer in {folder} cannot be read.",
            evidence=f"{type(error).__name__}: {error}",
        ) from error


def _weights(options: LoadOptions, config: Any) -> Any:
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            options.folder,
            config=config,
            dtype=options.dtype,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # refused below, with the shapes as evidence
            output_loading_info=True,
        )
    except (SafetensorError, RuntimeError, OSError, KeyError, ValueError) as error:
        if is_out_of_memory(error):
            raise fatal_from(error) from error
        raise FatalError(
            "ENGINE_BAD_TENSOR",
            f"The weights in {options.folder} cannot be read as {config.model_type}.",
            evidence=f"{type(error).__name__}: {error}",
        ) from error
    # transformers only warns here, and leaves random numbers where a tensor is missing. Tied weights are not listed.
    for fault in ("mismatched_keys", "missing_keys"):
        if info[fault]:
            raise FatalError(
                "ENGINE_BAD_TENSOR",
                f"The weights in {options.folder} do not fit their configuration.",
                evidence=f"{fault}: {_shown(info[fault])}",
            )
    if info["unexpected_keys"]:
        _log.warning("Tensors that the model does not use: %s", _shown(info["unexpected_keys"]))
    return model


def _shown(names: set[Any]) -> str:
    first = sorted(str(name) for name in names)[:_NAMES_SHOWN]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")


def _max_model_len(config: Any, wanted: int | None) -> int:
    text_config = config.get_text_config()
    own: Any = next((value for field in _CONTEXT_FIELDS if (value := getattr(text_config, field, None))), None)
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


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that the folder calls the end: generation configuration, configuration and tokeniser may differ."""
    stated = (model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id)
    return frozenset(
        token_id for one in stated if one is not None for token_id in (one if isinstance(one, list) else [one])
    )
