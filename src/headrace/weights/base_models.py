"""Which of the listed base models a folder is: told from its family and its dimensions (``base_models.toml``)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import msgspec

from headrace.weights.architectures import family_of, sizes_of

LEAST_SHARE, MOST_SHARE = 0.95, 1.35
"""How much the counted parameters may differ from the published count. More are common: a tied head that is stored
twice (Qwen3 0.6B: 1.26), layers that guess further tokens (DeepSeek V3: 1.02), a vision tower."""


class BaseModel(msgspec.Struct, frozen=True):
    """A base model of the list.

    Attributes:
        name: Family and size; several, where their configurations do not differ.
        source: Where the publisher's config.json is.
        parameters_billions: The published count.
        model_type: Of the part that reads texts.
        sizes: What its config.json says, under the names of `sizes_of`.
        native_quantisation: The ``quant_method`` in which the publisher releases it; None for 16-bit weights.
    """

    name: str
    source: str
    parameters_billions: float
    model_type: str
    sizes: dict[str, int]
    native_quantisation: str | None = msgspec.field(default=None, name="native")


@lru_cache(maxsize=1)
def base_models() -> tuple[BaseModel, ...]:
    """The list."""
    raw = tomllib.loads(files("headrace.weights").joinpath("base_models.toml").read_text("utf-8"))
    return msgspec.convert(raw["models"], type=tuple[BaseModel, ...])


def base_model(raw: Mapping[str, Any], parameters: int | None = None) -> BaseModel | None:
    """The base model that a configuration is of, or None.

    Args:
        raw: The content of ``config.json``.
        parameters: What `count_parameters` counted; a folder that has far fewer or more is none of the list.

    Raises:
        ConfigInvalid: As `parse_config`.
    """
    family, sizes = family_of(raw), sizes_of(raw)
    for model in base_models():
        if model.model_type != family or any(sizes.get(name) != size for name, size in model.sizes.items()):
            continue
        share = parameters / (model.parameters_billions * 1e9) if parameters is not None else 1.0
        if LEAST_SHARE <= share <= MOST_SHARE:
            return model
    return None
