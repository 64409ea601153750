"""Quantised weights: which method it is, who takes it, and the few base models that are published so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.resources.errors import NativeQuantisation, WeightsQuantised
from headrace.weights.base_models import base_model
from headrace.weights.config import CONFIG_FILE, text_part
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
            return method, f"config.json has a quantization_config with quant_method {method!r}"
    telling = [entry for entry in tensors if entry.name.endswith(_ALL_ENDINGS)]
    for ending, method in _ENDINGS:
        if found := next((entry for entry in telling if entry.name.endswith(ending)), None):
            return method, f"{found.name[:120]} is {found.dtype} {list(found.shape)}, and config.json does not say so"
    if found := next((entry for entry in tensors if entry.dtype in _FP8 and len(entry.shape) > 1), None):
        return "fp8", f"{found.name[:120]} is {found.dtype}, and config.json does not say so"
    return None


def quantisation_finding(raw: Mapping[str, Any], method: str, evidence: str, *, strict: bool = False) -> Finding:
    """Name a quantised model: refused, unless it is a listed base model in its publisher's own format.

    "Quantised models are not supported" for import (Vertex AI, custom weights), yet DeepSeek's and gpt-oss's are
    published in no other form.

    Args:
        raw: The content of ``config.json``.
        method: As `method_of` found it.
        evidence: What shows it.
        strict: Refuse the publishers' own formats, too.
    """
    known = base_model(raw)
    if known is not None and known.native_quantisation == method:
        native = NativeQuantisation(
            f"{known.name} is published in {METHODS.get(method, method)}, and is planned at its real size.",
            evidence=f"{evidence}.",
            fix="Nothing, on a machine whose runtime has this format; else import a 16-bit conversion.",
        )
        return finding_of(native, CONFIG_FILE, "error" if strict else "warning")
    takers = specifications_for(raw, method)
    hint = f" (watsonx: {', '.join(takers)} accepts it)" if takers else ""
    quantised = WeightsQuantised(
        f"The weights are quantised with {METHODS.get(method, method)}.",
        evidence=f"{evidence}{hint}.",
        fix="Import the model's 16- or 32-bit checkpoint.",
    )
    return finding_of(quantised, CONFIG_FILE)
