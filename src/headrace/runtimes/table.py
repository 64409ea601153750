"""Which runtimes there are, and which one serves a model."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.resources.errors import ArchitectureUnsupported, RuntimeUnknown
from headrace.runtimes.runtime import Runtime
from headrace.runtimes.transformers import TransformersRuntime

RUNTIMES: Mapping[str, Runtime] = {runtime.name: runtime for runtime in (TransformersRuntime(),)}
"""Every runtime by name, the preferred one for a model first."""


def find(name: str) -> Runtime:
    """The runtime of this name.

    Raises:
        RuntimeUnknown: There is none.
    """
    if name not in RUNTIMES:
        raise RuntimeUnknown(f"There is no runtime {name!r}.", fix=f"Runtimes are: {', '.join(RUNTIMES)}.")
    return RUNTIMES[name]


def choose(model_type: str, wanted: str = "") -> str:
    """The name of the runtime that will serve a model.

    Args:
        model_type: ``model_type`` of the model's ``config.json``.
        wanted: The runtime that the user asked for, or empty for the first that can.

    Raises:
        ArchitectureUnsupported: None can, or the one asked for cannot.
        RuntimeUnknown: The one asked for does not exist.
    """
    candidates = [find(wanted)] if wanted else list(RUNTIMES.values())
    for runtime in candidates:
        if model_type in runtime.model_types:
            return runtime.name
    others = [runtime.name for runtime in RUNTIMES.values() if model_type in runtime.model_types]
    asked = f"The runtime {wanted}" if wanted else "No runtime"
    raise ArchitectureUnsupported(
        f"{asked} {'does not serve' if wanted else 'serves'} models of type {model_type!r}.",
        evidence=f'config.json says "model_type": "{model_type}".',
        fix=f"Choose the runtime {others[0]}." if others else "Convert the model to an architecture that is supported.",
    )
