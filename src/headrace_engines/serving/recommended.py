"""How a model's makers want it sampled when a request does not say: the folder's ``generation_config.json``.

As vLLM does by default (``--generation-config auto``): at OpenAI's temperature of 1 a small chat model talks nonsense.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec

from headrace_engines.serving.generator import Sampling
from headrace_engines.serving.parameters import MinP, RepetitionPenalty, Temperature, TopK, TopP, sampling_with

_log = logging.getLogger(__name__)

FILE = "generation_config.json"

_FIELDS: dict[str, Any] = {
    "temperature": Temperature | None,
    "top_k": TopK | None,
    "top_p": TopP | None,
    "min_p": MinP | None,
    "repetition_penalty": RepetitionPenalty | None,
}
"""The fields of transformers' ``GenerationConfig`` that say how to sample, bounded as a request's are."""


def recommended_sampling(model_folder: Path) -> Sampling:
    """Sampling defaults of a model; those of `Sampling` where its folder says nothing readable and possible."""
    try:
        config = msgspec.json.decode((model_folder / FILE).read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return Sampling()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _log.warning("%s is passed over: %s", FILE, error)
        return Sampling()
    said: dict[str, Any] = {}
    for name in _FIELDS.keys() & config.keys():
        try:
            value = msgspec.convert(config[name], _FIELDS[name])
        except msgspec.ValidationError as error:
            _log.warning("%s: its %s, %r, is passed over: %s", FILE, name, config[name], error)
        else:
            if value is not None:
                said[name] = value
    return sampling_with(said, Sampling())
