"""What a model's folder is for, and the class of transformers that loads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import transformers
from huggingface_hub.errors import StrictDataclassError

from headrace_engines.serving.fatal import FatalError

Kind = Literal["causal", "encoder-decoder", "vision-language", "encoder"]

ENCODER_DECODER_TYPES = frozenset({"bart", "marian", "mbart", "mt5", "pegasus", "t5", "umt5"})
"""Text in, text out, through ``AutoModelForSeq2SeqLM``. Some are causal language models to transformers, too: their
decoders alone."""

VISION_LANGUAGE_TYPES = frozenset({"mistral3"})
"""Loaded whole, with what reads images, because transformers has no causal language model for the folder; only text is
served."""

ENCODER_TYPES = frozenset(
    {
        "albert",
        "bert",
        "camembert",
        "distilbert",
        "electra",
        "modernbert",
        "mpnet",
        "nomic_bert",
        "roberta",
        "xlm-roberta",
    }
)
"""Encoders, served as embedding models."""


OWN_TEXT_CLASS = "AutoModelForCausalLM"
"""Where a folder's ``auto_map`` names its own class for text."""

_DECODER_CLASSES = ("LMHeadModel", "ForCausalLM")
"""How the names of those classes end that make decoders of the same families."""


def read_config(folder: Path, *, own_code: bool = False) -> Any:
    """The configuration of a folder, as transformers reads it.

    Args:
        folder: The folder.
        own_code: Run the folder's own Python code where the configuration names it; else that is never run.

    Raises:
        FatalError: There is none, or transformers cannot read it, by itself or with the folder's code.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FatalError("ENGINE_DIED", f"There is no config.json in {folder}.", evidence="no such file")
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=own_code)
    except StrictDataclassError as error:
        raise FatalError(
            "ENGINE_BAD_TENSOR",
            f"{path} describes tensors that cannot exist.",
            evidence=f"{type(error).__name__}: {error}",
        ) from error
    except (ValueError, KeyError) as error:
        raise _unsupported(path, error, own_code=own_code) from error


def kind_of(folder: Path, config: Any, *, own_code: bool = False) -> Kind:
    """What the folder is for.

    Args:
        folder: The folder.
        config: Its configuration, read.
        own_code: The folder's own Python code may run.

    Raises:
        FatalError: Nothing that this engine serves.
    """
    decodes = any(name.endswith(_DECODER_CLASSES) for name in config.architectures or ())
    if (folder / "modules.json").is_file() or (config.model_type in ENCODER_TYPES and not decodes):
        return "encoder"
    if own_code and OWN_TEXT_CLASS in (getattr(config, "auto_map", None) or {}):
        return "causal"
    if config.model_type in ENCODER_DECODER_TYPES and getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    if type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        return "causal"
    if config.model_type in VISION_LANGUAGE_TYPES:
        return "vision-language"
    no_language_model = ValueError(f"{config.model_type} is not a language model")
    raise _unsupported(folder / "config.json", no_language_model, own_code=own_code)


def _unsupported(path: Path, error: Exception, *, own_code: bool) -> FatalError:
    reason = f"transformers {transformers.__version__} has no language model for {path}."
    if code := _own_code(path):
        reason += f" The folder brings its own code ({code}), which "
        reason += "has none either." if own_code else "is not run: nobody allowed it."
    return FatalError("ENGINE_UNSUPPORTED_ARCHITECTURE", reason, evidence=f"{type(error).__name__}: {error}")


def _own_code(path: Path) -> str:
    """The module that a configuration names as its model's code, if it does."""
    try:
        named = msgspec.json.decode(path.read_bytes(), type=Mapping[str, Any]).get("auto_map")
    except (OSError, msgspec.MsgspecError):
        return ""
    return ", ".join(sorted({str(value) for value in named.values()})) if isinstance(named, dict) else ""
