"""Reads a folder's tokeniser and weights; nothing that is missing or does not fit is passed over."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError

from headrace_engines.serving.fatal import FatalError, fatal_from, is_out_of_memory

_log = logging.getLogger(__name__)

_NAMES_SHOWN = 5


def load_tokenizer(folder: Path, *, own_code: bool = False) -> Any:
    """The folder's tokeniser; the folder's own Python code for it is run only where that is allowed.

    Raises:
        FatalError: It cannot be read.
    """
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=own_code)
    except Exception as error:  # the tokenizers library raises plain ones
        if is_out_of_memory(error):
            raise fatal_from(error) from error
        raise FatalError(
            "TOKENIZER_INVALID",
            f"The tokenizer in {folder} cannot be read.",
            evidence=f"{type(error).__name__}: {error}",
        ) from error


def load_weights(
    folder: Path, config: Any, loader: Any, dtype: str, *, unused: str | None = None, own_code: bool = False
) -> Any:
    """A model with every weight of its folder.

    Args:
        folder: Configuration and safetensors.
        config: The configuration, read.
        loader: The class of transformers that loads it.
        dtype: A torch dtype's name, or ``auto`` for the configuration's own.
        unused: The beginning of names that may be missing, as nobody uses what they stand for.
        own_code: Run the folder's own Python code where its configuration names it.

    Raises:
        FatalError: They cannot be read, or are not those of the configuration.
    """
    try:
        model, info = loader.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=own_code,
            ignore_mismatched_sizes=True,  # refused below, with the shapes as evidence
            output_loading_info=True,
        )
    except (SafetensorError, RuntimeError, OSError, KeyError, ValueError) as error:
        if is_out_of_memory(error):
            raise fatal_from(error) from error
        raise FatalError(
            "ENGINE_BAD_TENSOR",
            f"The weights in {folder} cannot be read as {config.model_type}.",
            evidence=f"{type(error).__name__}: {error}",
        ) from error
    # transformers only warns here, and leaves random numbers where a tensor is missing. Tied weights are not listed.
    info["missing_keys"] = {key for key in info["missing_keys"] if unused is None or not key.startswith(unused)}
    for fault in ("mismatched_keys", "missing_keys"):
        if info[fault]:
            raise FatalError(
                "ENGINE_BAD_TENSOR",
                f"The weights in {folder} do not fit their configuration.",
                evidence=f"{fault}: {_shown(info[fault])}",
            )
    if info["unexpected_keys"]:
        _log.warning("Tensors that the model does not use: %s", _shown(info["unexpected_keys"]))
    return model


def _shown(names: set[Any]) -> str:
    first = sorted(str(name) for name in names)[:_NAMES_SHOWN]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")
