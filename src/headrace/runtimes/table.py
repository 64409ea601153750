"""Which runtimes there are."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.resources.errors import RuntimeUnknown
from headrace.runtimes.device import EitherDevice
from headrace.runtimes.facts import MachineFacts
from headrace.runtimes.openvino import OpenVinoRuntime
from headrace.runtimes.runtime import Runtime, SleepMode
from headrace.runtimes.transformers import TransformersRuntime
from headrace.runtimes.vllm import VllmRuntime

_ALL: tuple[Runtime, ...] = (OpenVinoRuntime(), TransformersRuntime(), VllmRuntime())

RUNTIMES: Mapping[str, Runtime] = {runtime.name: runtime for runtime in _ALL}
"""Every runtime by name. Which one serves a model is `headrace.runtimes.choice`'s table to say."""


def find(name: str, runtimes: Mapping[str, Runtime] = RUNTIMES) -> Runtime:
    """The runtime of this name.

    Raises:
        RuntimeUnknown: There is none.
    """
    if name not in runtimes:
        raise RuntimeUnknown(f"There is no runtime {name!r}.", fix=f"Runtimes are: {', '.join(runtimes)}.")
    return runtimes[name]


def computes_on_gpus(name: str, machine: MachineFacts) -> bool:
    """Whether the runtime of this name computes on a machine's GPUs; False of one that there is not."""
    return machine.device == "cuda" and isinstance(RUNTIMES.get(name), EitherDevice)


def sleep_mode_of(name: str, machine: MachineFacts) -> SleepMode | None:
    """How engines of the runtime of this name sleep on a machine; None where they do not, or there is no such."""
    runtime: Runtime | None = RUNTIMES.get(name)
    if isinstance(runtime, EitherDevice):
        runtime = type(runtime)(machine.device)
    return runtime.sleep_mode if runtime is not None else None
