"""The runtime for CPUs: OpenVINO GenAI's continuous batching, behind Headrace's own serving shell."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from headrace.resources.errors import Failure
from headrace.resources.models import Dtype
from headrace.runtimes import ending
from headrace.runtimes.conversions import CONVERTIBLE_TYPES, openvino_conversion
from headrace.runtimes.engines import read_requirements
from headrace.runtimes.runtime import Conversion, EngineCommand, EngineEnd, Environment, Launch

TOKEN_VARIABLE = "HEADRACE_ENGINE_TOKEN"  # noqa: S105 - the variable's name, not a token

_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
"""What an engine needs to know of its surroundings; the node's secrets are not among it."""


class OpenVinoRuntime:
    """Text generation on CPUs, of models that were converted for it."""

    name = "openvino"
    complete = True
    disk_bytes = 500_000_000  # 0.32 GB installed, the rest pip's downloads (measured)

    @property
    def requirements(self) -> str:
        """What the engine's own folder pins."""
        return read_requirements("openvino")

    @property
    def model_types(self) -> frozenset[str]:
        """Those that can be converted."""
        return CONVERTIBLE_TYPES

    def conversion(self, model_dir: Path, dtype: Dtype) -> Conversion:
        """The model as OpenVINO's graph, from its checkpoint."""
        return openvino_conversion(model_dir, dtype, self)

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
            argv=(str(environment.python), "-P", "-m", "headrace_engines.openvino", *flat),
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ}
            | {
                "PATH": f"{environment.path / 'bin'}:{os.defpath}",
                "TMPDIR": tempfile.gettempdir(),
                "PYTHONPATH": str(environment.engines_path),
                "PYTHONUNBUFFERED": "1",
                TOKEN_VARIABLE: launch.nonce,
            },
        )

    def classify(self, end: EngineEnd) -> Failure:
        """What an engine's end means."""
        return ending.classify(end)
