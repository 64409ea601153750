"""How programs in an engine's environment are started: what they see of the node, and what servers of ours are told."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping

from headrace.runtimes.runtime import EngineCommand, Environment, Launch

TOKEN_VARIABLE = "HEADRACE_ENGINE_TOKEN"  # noqa: S105 - the variable's name, not a token

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
"""Which GPUs CUDA shows a program: numbers, or identities as NVML tells them; vLLM takes both
(vllm/platforms/cuda.py:751)."""

_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH")

_TUNABLES, _HUGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""Hugging Face's libraries stay with the files that they are given."""


def surroundings(environment: Environment, *passed_on: str) -> dict[str, str]:
    """The process environment of a program in `environment`; the node's secrets are not among it.

    Args:
        environment: Whose Python runs it.
        passed_on: The node's variables that it needs besides those that every program does.
    """
    return {name: os.environ[name] for name in (*_PASSED_ON, *passed_on) if name in os.environ} | {
        "PATH": f"{environment.path / 'bin'}:{os.defpath}",
        "TMPDIR": tempfile.gettempdir(),
        "PYTHONPATH": str(environment.engines_path),
        "PYTHONUNBUFFERED": "1",
    }


def huge_pages() -> dict[str, str]:
    """Asks the C library for memory in pages of 2 MiB, for a program that reads all of its weights for every token.

    With pages of 4 KiB a CPU looks up an address for each of them, and no prefetcher of its reads beyond one: OpenVINO
    took a sixth longer for a token (``bench/NOTES.md``). Where ``/sys/kernel/mm/transparent_hugepage/enabled``
    says ``madvise``, the kernel gives huge pages only to who asks. Where there are none, or another C library than
    glibc 2.35 and newer, this changes nothing. What the operator's own ``GLIBC_TUNABLES`` say of it stays.
    """
    own = os.environ.get(_TUNABLES, "")
    if _HUGE_PAGES in own:
        return {_TUNABLES: own}
    return {_TUNABLES: ":".join(filter(None, (own, f"{_HUGE_PAGES}=1")))}


def modules_cache(environment: Environment) -> dict[str, str]:
    """Where transformers copies a model's own code before it imports it: it goes away with the environment."""
    return {"HF_MODULES_CACHE": str(environment.path / "cache" / "modules")}


def own_gpus(launch: Launch) -> dict[str, str]:
    """The node's GPUs that an engine sees: those that are its, else those that the node itself was given."""
    listed = ",".join(launch.gpus) or os.environ.get(GPUS_VARIABLE)
    return {} if listed is None else {GPUS_VARIABLE: listed}


def run_module(environment: Environment, module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module of ours; ``-P``, as the working directory is no place to import from."""
    return (str(environment.python), "-P", "-m", f"headrace_engines.{module}", *arguments)


def engine_command(
    name: str, launch: Launch, environment: Environment, env: Mapping[str, str], *flags: str
) -> EngineCommand:
    """How to start an engine behind our own shell.

    Args:
        name: Its package in ``headrace_engines``.
        launch: What it serves and with what.
        environment: Where it runs.
        env: What else it finds in its environment (see `surroundings`).
        flags: Arguments that only this engine takes.
    """
    options = {
        "--model": str(launch.model_dir),
        "--served-model-name": launch.served_name,
        "--uds": str(launch.socket),
        "--max-model-len": str(launch.max_model_len),
        "--dtype": launch.dtype,
        "--threads": str(launch.threads),
        "--kv-cache-bytes": str(launch.kv_cache_bytes),
    }
    if launch.chat_template is not None:
        options["--chat-template"] = str(launch.chat_template)
    flat = [part for pair in options.items() for part in pair]
    return EngineCommand(run_module(environment, name, *flat, *flags), {**env, TOKEN_VARIABLE: launch.nonce})
