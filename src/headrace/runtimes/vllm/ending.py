"""What the end of a vLLM server means, read from its log.

vLLM has no last words for programs: its processes log a traceback each, the one that knows first, and the server ends
with "Engine core initialization failed. See root cause above". So `SIGNS` are looked for in all the lines there are.
Each cites the source of vLLM 0.32.0 (or of a library in its environment) that writes it; which of them were really seen
here is told by the fixtures in tests/unit/fixtures_vllm, each labelled recorded or synthetic.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from headrace.resources.errors import (
    EngineBadTensor,
    EngineContextTooLong,
    EngineKvCacheTooSmall,
    EngineOutOfMemory,
    EngineSharedMemory,
    EngineSocketTaken,
    EngineUnsupportedArchitecture,
    Failure,
    HeadraceError,
    TokenizerInvalid,
    WeightsMissing,
    WeightsTruncated,
)
from headrace.runtimes import ending
from headrace.runtimes.runtime import EngineEnd


class Sign(NamedTuple):
    """A line that names the reason of an end.

    Attributes:
        pattern: What is in the line.
        error: The reason.
        message: One sentence; a memory failure's goes on with the stage that it happened in.
        fix: What to do.
        source: Where the line is written.
    """

    pattern: re.Pattern[str]
    error: type[HeadraceError]
    message: str
    fix: str
    source: str


_FIXES = ending.FIXES | {
    "KV": "Deploy with a shorter --max-model-len, or on a machine with more memory.",
    "SHM": "Give the machine or container more shared memory (--shm-size, or --ipc=host).",
    "WEIGHTS": "Copy the files that are missing from the model's source again, and import that.",
}


def _sign(pattern: str, error: type[HeadraceError], message: str, fix: str, source: str) -> Sign:
    return Sign(re.compile(pattern), error, message, _FIXES.get(fix, fix), source)


_OUT_OF_MEMORY = (EngineOutOfMemory, "The engine ran out of memory", "ENGINE_OUT_OF_MEMORY")
_KV = (EngineKvCacheTooSmall, "The memory for the cache does not hold one request of full length.", "KV")
_UNKNOWN = (
    EngineUnsupportedArchitecture,
    "vLLM does not know the model's architecture.",
    "ENGINE_UNSUPPORTED_ARCHITECTURE",
)
_TENSOR = (EngineBadTensor, "The weights do not fit the model's configuration.", "ENGINE_BAD_TENSOR")

SIGNS: tuple[Sign, ...] = (
    _sign(r"To serve at least one request with the model's max seq len", *_KV, "vllm/v1/core/kv_cache_utils.py:1031"),
    _sign(r"No available memory for the cache blocks", *_KV, "vllm/v1/core/kv_cache_utils.py:1011"),
    _sign(
        r"Available memory on node \S+ \(.*\) on kv cache allocation is less than",
        *_OUT_OF_MEMORY,
        "vllm/v1/worker/cpu_worker.py:222, 244",
    ),
    _sign(
        r"Available memory on node \S+ \(.*\) on startup is less", *_OUT_OF_MEMORY, "vllm/v1/worker/cpu_worker.py:86"
    ),
    _sign(r"Free memory on device \S+ \(.*\) on startup is less", *_OUT_OF_MEMORY, "vllm/v1/worker/utils.py:742, 763"),
    _sign(
        r"Insufficient space in /dev/shm",
        EngineSharedMemory,
        "There is too little shared memory for the engine's processes.",
        "SHM",
        "vllm/distributed/device_communicators/shm_broadcast.py:254",
    ),
    _sign(
        r"Model architectures? .* (are not supported for now|is not supported (anymore|in-tree anymore))",
        *_UNKNOWN,
        "vllm/model_executor/models/registry.py:1192, 1200, 1206",
    ),
    _sign(
        r"but Transformers does not recognize this architecture",
        *_UNKNOWN,
        "transformers/models/auto/configuration_auto.py:432 (transformers 5.19.0)",
    ),
    _sign(r"not found in the forward method of <class 'transformers", *_UNKNOWN, "vllm/compilation/decorators.py:237"),
    _sign(r"Sparse Attention is not supported on CPU", *_UNKNOWN, "vllm/platforms/cpu.py:150"),
    _sign(
        r"User-specified max_model_len \(\d+\) is greater than the derived max_model_len",
        EngineContextTooLong,
        "The context asked for is longer than the model's.",
        "Deploy with a --max-model-len that config.json allows (`max_position_embeddings`).",
        "vllm/config/model.py:2646",
    ),
    _sign(r"There is no module or parameter named", *_TENSOR, "vllm/model_executor/models/utils.py:443"),
    _sign(
        r"weights were not initialized from checkpoint",
        *_TENSOR,
        "vllm/model_executor/model_loader/default_loader.py:565",
    ),
    _sign(r"Attempted to load weight \(", *_TENSOR, "vllm/model_executor/model_loader/weight_utils.py:1486"),
    _sign(
        r"start \(\d+\) \+ length \(\d+\) exceeds dimension size",
        *_TENSOR,
        "torch, called where a shard is cut out: vllm/model_executor/layers/linear.py:585, 815, 847, 902",
    ),
    _sign(
        r"Cannot find any model weights with",
        WeightsMissing,
        "The folder has no weights that vLLM can load.",
        "WEIGHTS",
        "vllm/model_executor/model_loader/default_loader.py:260",
    ),
    _sign(
        r"Weight files referenced in index but missing",
        WeightsMissing,
        "A file of the weights that their index names is missing.",
        "WEIGHTS",
        "vllm/model_executor/model_loader/weight_utils.py:607",
    ),
    _sign(
        r"SafetensorError: Error while deserializing header: incomplete metadata",
        WeightsTruncated,
        "A file of the weights is shorter than its header says.",
        "WEIGHTS",
        "the safetensors library (0.8.0)",
    ),
    _sign(
        r"^OSError: \[Errno 98\] Address already in use",
        EngineSocketTaken,
        "Another engine listens on the socket that this one was to use.",
        "End that engine, then deploy again.",
        "socket.bind, called in vllm/entrypoints/launchers/launcher.py:355",
    ),
    _sign(
        r'^\s*File ".*/vllm/tokenizers/\w+\.py", line',
        TokenizerInvalid,
        "The model's tokenizer cannot be read.",
        "TOKENIZER_INVALID",
        "a traceback through vllm/tokenizers/, whatever its exception",
    ),
)
"""Every known reason; the first whose pattern is in any line is the one."""

_STAGES = (
    ("Starting to load model", " while it loaded the weights"),  # gpu_model_runner.py:5040, cpu_model_runner.py:68
    ("Loading weights took", " while it made room for the cache"),  # default_loader.py:502
    ("KV cache size:", " while it allocated the cache"),  # kv_cache_utils.py:2328
    ("Capturing CUDA graphs", " while it captured CUDA graphs"),  # gpu/cudagraph_utils.py:422
    ("Application startup complete", " while it served"),  # uvicorn
)
"""What vLLM says on its way, and what it is doing from then on."""

_PREFIX = re.compile(r"^\(\w+ pid=\d+\) [A-Z]+ \d\d-\d\d [\d:]+ \[[^\]]+\] ")
"""How vLLM's logger begins a line (vllm/logger.py), its process's name before it."""

_EXCEPTION = re.compile(r"^\s*([\w.]+(?:Error|Exception)): (?!Engine core initialization failed|WorkerProc init)")
_EVIDENCE_MAX = 600


def classify(end: EngineEnd) -> Failure:
    """Why a server of vLLM ended though nobody asked it to."""
    lines = [_PREFIX.sub("", line) for line in end.log_tail]
    cause = next((line for line in lines if _EXCEPTION.match(line)), "")
    for sign in SIGNS:
        for number, line in enumerate(lines):
            if sign.pattern.search(line):
                stage = _stage(lines[:number])
                message = f"{sign.message}{stage}." if sign.error is EngineOutOfMemory else sign.message
                said = cause if cause and line.lstrip().startswith("File ") else line
                return sign.error(message, evidence=_says(said), fix=sign.fix).failure
    failure = ending.classify(end)
    if failure.code == EngineOutOfMemory.code:
        return msgspec.structs.replace(failure, message=f"{_OUT_OF_MEMORY[1]}{_stage(lines)}.")
    # The last lines of its log only tell that something above went wrong.
    return msgspec.structs.replace(failure, evidence=_says(cause)) if cause else failure


def _says(line: str) -> str:
    return f"Its log says: {line.strip()[:_EVIDENCE_MAX]}"


def _stage(lines: Sequence[str]) -> str:
    """What the engine was doing after these lines; empty when they do not tell."""
    for line in reversed(lines):
        for mark, doing in _STAGES:
            if mark in line:
                return doing
    return ""
