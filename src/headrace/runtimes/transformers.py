"""The runtime of breadth: Hugging Face transformers on PyTorch, behind Headrace's own serving shell."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from headrace.resources.errors import Failure
from headrace.resources.models import Dtype
from headrace.runtimes import ending
from headrace.runtimes.architectures import CAUSAL_LM_TYPES, ENCODER_DECODER_TYPES, VISION_LANGUAGE_TYPES
from headrace.runtimes.engines import read_requirements
from headrace.runtimes.runtime import EngineCommand, EngineEnd, Environment, Launch
from headrace.weights.task import ENCODER_TYPES

TOKEN_VARIABLE = "HEADRACE_ENGINE_TOKEN"  # noqa: S105 - the variable's name, not a token

_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_PROC_BIND")
"""What an engine needs to know of its surroundings; the node's secrets are not among it."""


class TransformersRuntime:
    """Text generation with every language model that transformers knows, and embeddings with its encoders."""

    name = "transformers"
    complete = False
    disk_bytes = 2_500_000_000  # 1.2 GB installed, the rest pip's downloads and unpacking (measured)

    @property
    def requirements(self) -> str:
        """What the engine's own folder pins."""
        return read_requirements("transformers")

    @property
    def model_types(self) -> frozenset[str]:
        """Those of transformers 5.23, for text and for embeddings."""
        return CAUSAL_LM_TYPES | ENCODER_DECODER_TYPES | VISION_LANGUAGE_TYPES | ENCODER_TYPES

    def conversion(self, model_dir: Path, dtype: Dtype) -> None:
        """None: transformers loads the folder itself."""

    def command(self, launch: Launch, environment: Environment) -> EngineCommand:
        """How to start an engine."""
        arguments = {
            "--model": str(launch.model_dir),
            "--served-model-name": launch.served_name,
            "--uds": str(launch.socket),
            "--max-model-len": str(launch.max_model_len),
            "--dtype": launch.dtype,
            "--threads": str(launch.threads),
            "--kv-cache-bytes": str(launch.kv_cache_bytes),
        }
        flat = [part for pair in arguments.items() for part in pair]
        return EngineCommand(
            # -P: the working directory is no place to import from
            argv=(str(environment.python), "-P", "-m", "headrace_engines.transformers", *flat),
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ}
            | {
                "PATH": f"{environment.path / 'bin'}:{os.defpath}",
                "TMPDIR": tempfile.gettempdir(),
                "PYTHONPATH": str(environment.engines_path),
                "PYTHONUNBUFFERED": "1",
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_OFFLINE": "1",
                "OMP_NUM_THREADS": str(launch.threads),
                # Threads that spin while they wait for each other starve whoever holds the core they wait for: with
                # two engines on two cores, spinning made both some ten times slower (bench/NOTES.md).
                "OMP_WAIT_POLICY": "PASSIVE",
                TOKEN_VARIABLE: launch.nonce,
            },
        )

    def classify(self, end: EngineEnd) -> Failure:
        """What an engine's end means."""
        return ending.classify(end)
