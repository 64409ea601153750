"""What the choice of a runtime depends on: of a model as it is to be served, and of a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from headrace.resources.models import Dtype, ServingSpec, Task
from headrace.resources.nodes import Node
from headrace.runtimes.device import Device
from headrace.weights import ModelFolder, task_of
from headrace.weights.custom_code import OwnCode
from headrace.weights.quantisation import bits_of, certified_so, published_so

OwnCodeFate = Literal["none", "ignored", "runs"]
"""Of a folder's own code: there is none; nobody allowed it; it runs in the engine."""

_STORED = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
"""Safetensors' names of the number formats that weights usually have."""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a choice depends on of the model.

    Attributes:
        model_type: ``model_type`` of ``config.json``.
        task: What it is for.
        wanted: The number format that the user asked for; ``auto`` is the stored one.
        stored: The number format of most of the weights; empty where it is not known (pickles).
        quantisation: Name of the quantisation method; None without one.
        published_so: It is a listed base model in its publisher's own quantisation.
        certified_so: Its software specification accepts its quantisation.
        bits: Of a quantised weight; None where that is not known.
        own_code: What becomes of the Python code that its folder asks for.
        architectures: The classes that the configuration names: what the checkpoint was made for.
        own_class: That code has the class that does the task, so that no runtime needs to know the architecture.
        own_base: It has one under ``AutoModel``, too: that is the one that vLLM builds.
    """

    model_type: str
    task: Task = "generate"
    wanted: Dtype = "auto"
    stored: str = ""
    quantisation: str | None = None
    published_so: bool = False
    certified_so: bool = False
    bits: int | None = None
    architectures: tuple[str, ...] = ()
    own_code: OwnCodeFate = "none"
    own_class: bool = False
    own_base: bool = False

    @property
    def precision(self) -> str:
        """The number format to compute in; empty where that is the checkpoint's own and not known."""
        return self.stored if self.wanted == "auto" else self.wanted


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a choice depends on of the machine.

    Attributes:
        device: What there is to compute on.
        gpus: How many GPUs it has that are not divided, or if all are, how many those are.
        capability: The least compute capability of its GPUs, such as 8.9; None where it is not known.
        installed: The runtimes whose environments are there.
    """

    device: Device = "cpu"
    gpus: int = 0
    capability: float | None = None
    installed: frozenset[str] = frozenset()


def facts_of(folder: ModelFolder, wished: ServingSpec, code: OwnCode | None = None) -> ModelFacts:
    """A model's facts.

    Args:
        folder: What was read of it.
        wished: How it is to be served.
        code: What its folder asks for of its own; None: nothing, or nobody looked.
    """
    config, task = folder.config, task_of(folder.config, folder.files)
    fate: OwnCodeFate = "runs" if wished.allow_custom_code else "ignored"
    return ModelFacts(
        model_type=config.model_type,
        task=task,
        wanted=wished.dtype,
        stored=stored_in(folder.bytes_by_dtype),
        quantisation=config.quantisation,
        published_so=published_so(config),
        certified_so=certified_so(config, wished.software_specification),
        bits=bits_of(config),
        architectures=tuple(config.architectures),
        own_code=fate if code else "none",
        own_class=code is not None and code.serves(task),
        own_base=code is not None and "AutoModel" in code.classes,
    )


def stored_in(bytes_by_dtype: Mapping[str, int]) -> str:
    """The number format of most of the weights, from what they take by safetensors' element type; empty without any."""
    most = max(bytes_by_dtype, key=bytes_by_dtype.__getitem__, default="")
    return _STORED.get(most, most.lower())


def machine_of(node: Node) -> MachineFacts:
    """A machine's facts, from what its agent reported."""
    gpus: Any = node.hardware.get("gpus")
    return MachineFacts(
        device="cuda" if gpus else "cpu",
        gpus=len([gpu for gpu in gpus or () if not gpu.get("divided")] or gpus or ()),
        capability=_least_capability(gpus or ()),
        installed=frozenset(report.name for report in node.runtimes if report.installed),
    )


def _least_capability(gpus: Sequence[Mapping[str, Any]]) -> float | None:
    try:
        return min((float(gpu["compute_capability"]) for gpu in gpus), default=None)
    except (KeyError, TypeError, ValueError):
        return None
