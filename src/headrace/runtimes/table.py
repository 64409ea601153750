"""Which runtimes there are."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.resources.errors import RuntimeUnknown
from headrace.runtimes.openvino import OpenVinoRuntime
from headrace.runtimes.runtime import Runtime
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
