"""How a model's folder becomes what the OpenVINO engine loads: two ways, each a program of `headrace_engines`."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec

from headrace.resources.models import Dtype
from headrace.runtimes.engines import read_requirements
from headrace.runtimes.runtime import Conversion, EngineCommand, Environment, Installable
from headrace.runtimes.surroundings import run_module, surroundings

DIRECT_TYPES = frozenset({"granite", "llama", "mistral", "qwen2", "qwen3", "smollm3"})
"""By ``model_type``: those that ``convert.direct`` builds (``convert.decoder.MODEL_TYPES``)."""

GENERAL_TYPES = frozenset(
    {
        "arcee", "bloom", "codegen", "cohere", "cohere2", "falcon", "gemma", "gemma2", "gemma3_text", "glm", "glm4",
        "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe", "llama", "mistral",
        "mixtral", "olmo", "olmo2", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
        "smollm3", "stablelm", "starcoder2",
    }
)  # fmt: skip
"""Those that optimum-intel 2.2.0 exports as ``text-generation-with-past`` (``TasksManager`` with its
``exporters/openvino/model_configs.py``) and that were held against transformers here, 2026-11-21: of a random model of
two layers the logits of 40 tokens, windows of 16 where there are any, came within 0.007 in float32 (of 3 to 6; the
weights are rounded to float16), and the next 12 greedy tokens through paged attention were the same. Left out: ``mpt``
(other tokens through paged attention), ``qwen3_next``, and ``deepseek_v3``, ``exaone4`` and ``llama4_text``, whose
export wants transformers 4."""

CONVERTIBLE_TYPES = DIRECT_TYPES | GENERAL_TYPES
"""Every architecture that the OpenVINO engine can be given."""

DIRECT_VERSION = 1
"""Raised whenever ``convert.direct`` makes something else of the same folder."""

GENERAL_VERSION = 1
"""The same of ``convert.general``."""

_SHORT = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
_DIRECT_PINS = ("openvino", "openvino-tokenizers", "numpy")
_GENERAL_PINS = (*_DIRECT_PINS, "optimum", "optimum-intel", "torch", "transformers")


class Converter(msgspec.Struct, frozen=True):
    """The environment of the general way: torch, transformers as optimum-intel wants it, and OpenVINO."""

    name: str = "openvino-converter"
    complete: bool = True
    disk_bytes: int = 3_500_000_000  # 1.5 GB installed, the rest pip's downloads and unpacking (measured)

    @property
    def requirements(self) -> str:
        """Every package, pinned."""
        return read_requirements("convert")


CONVERTERS: tuple[Installable, ...] = (Converter(),)
"""Environments that are nobody's runtime."""


class ProgramConversion(msgspec.Struct, frozen=True, kw_only=True):
    """A way, for one model.

    Attributes:
        way: The module below ``headrace_engines.convert``.
        stored: How matrices are kept: ``own`` (as they lie in the checkpoint), ``bf16`` or ``f16``.
    """

    way: str
    stored: str
    key: str
    reason: str
    converter: Installable
    otherwise: Conversion | None = None

    def command(self, source: Path, target: Path, environment: Environment) -> EngineCommand:
        """How to run it, as a child of this process: it ends when this process does."""
        arguments = (str(source), str(target), "--parent", str(os.getpid()), "--weights", self.stored)
        return EngineCommand(
            argv=run_module(environment, f"convert.{self.way}", *arguments),
            env=surroundings(environment)
            | {
                "HF_HUB_OFFLINE": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "CI": "true",  # or importing openvino tells Google Analytics of it (openvino_telemetry)
            },
        )


def openvino_conversion(model_dir: Path, dtype: Dtype, engine: Installable) -> Conversion:
    """What has to be made of a model's folder for the OpenVINO engine.

    Args:
        model_dir: The folder; its ``config.json`` and its listing are read.
        dtype: What the weights are to be served in.
        engine: The engine's own environment, which has all that the direct way needs.
    """
    config = json.loads((model_dir / "config.json").read_bytes())
    size = _size(sum(file.stat().st_size for file in model_dir.glob("*.safetensors")))
    general = ProgramConversion(
        way="general",
        stored="f16",
        key=_key("f16", GENERAL_VERSION, Converter().requirements, _GENERAL_PINS),
        reason=f"OpenVINO IR (f16) from safetensors, {size}, by optimum-intel",
        converter=Converter(),
    )
    if config.get("model_type") not in DIRECT_TYPES or not (model_dir / "tokenizer.json").exists():
        return general
    stored = _stored(config, dtype)
    form = _SHORT.get(_declared(config), "own numbers") if stored == "own" else stored
    return ProgramConversion(
        way="direct",
        stored=stored,
        key=_key(stored, DIRECT_VERSION, engine.requirements, _DIRECT_PINS),
        reason=f"OpenVINO IR ({form}) from safetensors, {size}",
        converter=engine,
        otherwise=general,
    )


def _stored(config: dict[str, Any], dtype: Dtype) -> str:
    """Numbers of 16 bits stay what they are, whatever is computed in; those of 32 are rounded where that is asked."""
    if dtype in {"auto", "float32"} or _declared(config) in {"bfloat16", "float16"}:
        return "own"
    return _SHORT[dtype]


def _declared(config: dict[str, Any]) -> str:
    return str(config.get("dtype") or config.get("torch_dtype") or "")


def _key(stored: str, version: int, requirements: str, pins: tuple[str, ...]) -> str:
    """Another version of a library may write something else, and old files may be nothing to a new one."""
    lines = re.findall(rf"^(?:{'|'.join(pins)})==\S+", requirements, re.MULTILINE)
    return f"openvino-{stored}-{version}-{hashlib.sha256(' '.join(sorted(lines)).encode()).hexdigest()[:8]}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
