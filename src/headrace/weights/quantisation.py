"""Quantised weights: which method it is, who takes it, and the few base models that are published so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.resources.errors import NativeQuantisation, WeightsQuantised
from headrace.weights.base_models import base_model
from headrace.weights.config import CONFIG_FILE, ModelConfig, parse_config, text_part
from headrace.weights.finding import Finding, finding_of
from headrace.weights.header import TensorEntry
from headrace.weights.specifications import specifications_for

METHODS = {
    "gptq": "GPTQ", "awq": "AWQ", "bitsandbytes": "bitsandbytes", "fp8": "FP8", "fbgemm_fp8": "FP8", "mxfp4": "MXFP4",
    "compressed-tensors": "compressed-tensors", "gguf": "GGUF", "aqlm": "AQLM", "marlin": "Marlin",
}  # fmt: skip
"""``quant_method`` of config.json's ``quantization_config`` (transformers' ``QuantizationMethod``), as people say."""

_ENDINGS = (
    (".g_idx", "gptq"), (".qzeros", "awq"), (".weight_packed", "compressed-tensors"), (".absmax", "bitsandbytes"),
    (".SCB", "bitsandbytes"), ("_proj_blocks", "mxfp4"), (".weight_scale_inv", "fp8"),
)  # fmt: skip
"""How the names of tensors end that only one method writes; the first that is found counts (GPTQ has zeros, too)."""

_ALL_ENDINGS = tuple(ending for ending, _ in _ENDINGS)

_FP8 = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})


def method_of(raw: Mapping[str, Any], tensors: Sequence[TensorEntry]) -> tuple[str, str] | None:
    """The quantisation method and what shows it, or None.

    Args:
        raw: The content of ``config.json``.
        tensors: The tensors; none where the files were not read.
    """
    for part in (raw, text_part(raw)):
        if settings := part.get("quantization_config"):
            named = settings.get("quant_method") if isinstance(settings, dict) else None
            method = named[:40] if isinstance(named, str) and named else "unnamed"
            return _named_so(method)
    telling = [entry for entry in tensors if entry.name.endswith(_ALL_ENDINGS)]
    for ending, method in _ENDINGS:
        if found := next((entry for entry in telling if entry.name.endswith(ending)), None):
            return method, f"{found.name[:120]} is {found.dtype} {list(found.shape)}, and config.json does not say so"
    if found := next((entry for entry in tensors if entry.dtype in _FP8 and len(entry.shape) > 1), None):
        return "fp8", f"{found.name[:120]} is {found.dtype}, and config.json does not say so"
    return None


def _named_so(method: str) -> tuple[str, str]:
    return method, f"config.json has a quantization_config with quant_method {method!r}"


def published_so(config: ModelConfig) -> bool:
    """Whether it is a listed base model in the quantisation in which its publisher releases it."""
    known = base_model({"model_type": config.model_type, **config.text}) if config.quantisation else None
    return known is not None and known.native_quantisation == config.quantisation


def certified_so(config: ModelConfig, specification: str) -> bool:
    """Whether this software specification of watsonx.ai accepts the model with its quantisation."""
    if config.quantisation is None:
        return False
    family = config.text.get("model_type") or config.model_type
    return specification in specifications_for({"model_type": family}, config.quantisation)


def bits_of(config: ModelConfig) -> int | None:
    """How many bits a quantised weight has, where the configuration says so by a usual name."""
    settings = config.text.get("quantization_config")
    named = [settings.get(key) for key in ("bits", "w_bit")] if isinstance(settings, dict) else []
    return next((bits for bits in named if isinstance(bits, int)), None)


def refused_quantisation(
    config: ModelConfig, tensors: Sequence[TensorEntry], specification: str = ""
) -> Finding | None:
    """What keeps a model from being deployed because of its quantisation; None where that does not.

    Args:
        config: The model's.
        tensors: Its tensors; none where there is the configuration alone.
        specification: The software specification of watsonx.ai that is asked for, if any.
    """
    raw = {"model_type": config.model_type, **config.text}
    found = _named_so(config.quantisation) if config.quantisation else method_of(raw, tensors)
    finding = quantisation_finding(raw, *found, specification=specification) if found else None
    return finding if finding and finding.severity == "error" else None


def quantisation_finding(
    raw: Mapping[str, Any], method: str, evidence: str, *, strict: bool = False, specification: str = ""
) -> Finding:
    """Name a quantised model: refused, unless it is a listed base model in its publisher's own format.

    "Quantised models are not supported" for import (Vertex AI, custom weights), yet DeepSeek's and gpt-oss's are
    published in no other form; and unless a software specification is asked for that accepts this method for this
    architecture.

    Args:
        raw: The content of ``config.json``.
        method: As `method_of` found it.
        evidence: What shows it.
        strict: Refuse what passes with a warning, too.
        specification: The software specification that was asked for; empty: none.
    """
    known = base_model(raw)
    if known is not None and known.native_quantisation == method:
        native = NativeQuantisation(
            f"{known.name} is published in {METHODS.get(method, method)}, and is planned at its real size.",
            evidence=f"{evidence}.",
            fix="Nothing, on a machine whose runtime has this format; else import a 16-bit conversion.",
        )
        return finding_of(native, CONFIG_FILE, "error" if strict else "warning")
    if certified_so(parse_config(raw), specification):  # that says so itself: engines go by it
        accepted = WeightsQuantised(
            f"The weights are quantised with {METHODS.get(method, method)}, as {specification} accepts it: they are "
            "planned at their real size.",
            evidence=f"{evidence}.",
            fix="Nothing, on a machine whose runtime has this format; else import the 16- or 32-bit checkpoint.",
        )
        return finding_of(accepted, CONFIG_FILE, "error" if strict else "warning")
    takers = specifications_for(raw, method)
    hint = f" (`--specification {takers[-1]}`, of watsonx.ai, takes these)" if takers else ""
    quantised = WeightsQuantised(
        f"The weights are quantised with {METHODS.get(method, method)}.",
        evidence=f"{evidence}{hint}.",
        fix="Import the model's 16- or 32-bit checkpoint."
        + (f" Or ask for a specification that accepts it: --specification {takers[-1]}." if takers else ""),
    )
    return finding_of(quantised, CONFIG_FILE)
