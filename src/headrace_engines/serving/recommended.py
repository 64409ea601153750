"""How a model's makers want it sampled when a request does not say: the folder's ``generation_config.json``.

As vLLM does by default (``--generation-config auto``): at OpenAI's temperature of 1 a small chat model talks nonsense.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from headrace_engines.serving.generator import Sampling

_log = logging.getLogger(__name__)

FILE = "generation_config.json"


class _GenerationConfig(msgspec.Struct):
    """The fields of transformers' ``GenerationConfig`` that say how to sample; the others are not our business."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


def recommended_sampling(model_folder: Path) -> Sampling:
    """Sampling defaults of a model; those of `Sampling` where its folder says nothing readable."""
    try:
        config = msgspec.json.decode((model_folder / FILE).read_bytes(), type=_GenerationConfig)
    except FileNotFoundError:
        return Sampling()
    except (OSError, msgspec.MsgspecError) as error:
        _log.warning("%s is passed over: %s", FILE, error)
        return Sampling()
    said = {name: value for name, value in msgspec.structs.asdict(config).items() if value is not None}
    return Sampling(**said)
