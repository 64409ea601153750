"""What a version may ask of its engine beside architecture and precision, and which runtime can do it where."""

from __future__ import annotations

from headrace.resources.models import ServingSpec
from headrace.runtimes.vllm.tool_calls import TOOL_PARSERS

_ON_ONE_DEVICE = {"openvino": "it computes on the CPU alone", "transformers": "here it computes on one device"}
"""Why a runtime cannot share a model among devices."""


def unmet(spec: ServingSpec, runtime: str, *, gpus: int) -> dict[str, str]:
    """What of a version's wishes a runtime cannot do: by its option, why, as a part of a sentence.

    Args:
        spec: The wishes.
        runtime: Its name.
        gpus: How many GPUs the machine has.
    """
    obstacles = {
        "--tensor-parallel": _parallel(spec, runtime, gpus),
        "--prefix-caching": _prefix_caching(spec, runtime),
        "--tool-parser": _tool_parser(spec, runtime),
    }
    return {option: why for option, why in obstacles.items() if why}


def _parallel(spec: ServingSpec, runtime: str, gpus: int) -> str:
    if spec.tensor_parallel == 1:
        return ""
    if runtime != "vllm":
        return f"{_ON_ONE_DEVICE[runtime]}, not on {spec.tensor_parallel}"
    if spec.tensor_parallel <= gpus:
        return ""
    there = f"this machine has {gpus}" if gpus else "this machine has none"
    return f"it would share the model among {spec.tensor_parallel} GPUs, and {there}"


def _prefix_caching(spec: ServingSpec, runtime: str) -> str:
    """Both others can do it either way; transformers never does it, so that it need not be told not to."""
    return "it computes every prompt from its beginning" if spec.prefix_caching and runtime == "transformers" else ""


def _tool_parser(spec: ServingSpec, runtime: str) -> str:
    if spec.tool_parser is None:
        return ""
    if runtime != "vllm":
        return "it reads tool calls by the marks in the chat template, with no parser to be named"
    if spec.tool_parser in TOOL_PARSERS:
        return ""
    return f"it has no tool parser {spec.tool_parser!r}; it has {', '.join(TOOL_PARSERS)}"
