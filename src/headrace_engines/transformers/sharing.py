"""Which architectures' sequences may share a pass: a table of what was shown, not of what was hoped."""

from __future__ import annotations

from typing import Any

from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

from headrace_engines.transformers.rope import LONGROPE

SHARING_TYPES = frozenset(
    [
        "bloom",
        "codegen",
        "cohere",
        "cohere2",
        "deepseek_v2",
        "deepseek_v3",
        "exaone4",
        "falcon",
        "falcon_mamba",
        "gemma",
        "gemma2",
        "gemma3_text",
        "glm",
        "glm4",
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gpt_neox",
        "gpt_oss",
        "gptj",
        "granite",
        "granitemoe",
        "granitemoehybrid",
        "jais2",
        "llama",
        "llama4_text",
        "mamba",
        "mamba2",
        "ministral3",
        "mistral",
        "mixtral",
        "mpt",
        "nemotron",
        "olmo",
        "olmo2",
        "olmo3",
        "opt",
        "persimmon",
        "phi",
        "phi3",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "qwen3_next",
        "smollm3",
        "stablelm",
        "starcoder2",
    ]
)
"""``model_type`` of the text configurations for which ``tests/engine/test_transformers_architectures.py`` holds batched
answers, with sequences that join and leave, against ``generate``. Every other one computes a sequence at a time."""

_LONGROPE_TYPES = frozenset({"phi3"})
"""The same for longrope: `rope.RowAngles` finds their rotary embedding, and ``generate`` reads them anew where the set
of frequencies changes. Dynamic rope needs no such care: it changes beyond ``max_position_embeddings``, which is the
longest context here."""


def may_share(text_config: Any) -> bool:
    """Whether sequences of this model may be computed in one pass."""
    model_type = text_config.model_type
    return model_type in SHARING_TYPES and (model_type in _LONGROPE_TYPES or LONGROPE not in _rope_types(text_config))


def is_own_class(model: Any) -> bool:
    """Whether its class comes out of its folder: then it is not the one that was tried, whatever its type is called."""
    return type(model).__module__.startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}.")


def _rope_types(text_config: Any) -> set[str]:
    """What the configuration names, for all layers or for each kind of layer."""
    parameters = getattr(text_config, "rope_parameters", None) or {}
    each = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    return {str(one["rope_type"]) for one in each if "rope_type" in one}
