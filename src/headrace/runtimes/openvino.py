"""The runtime for CPUs: OpenVINO GenAI's continuous batching, behind Headrace's own serving shell."""

from __future__ import annotations

from pathlib import Path

from headrace.resources.errors import Failure
from headrace.resources.models import Dtype
from headrace.runtimes import ending
from headrace.runtimes.conversions import CONVERTIBLE_TYPES, openvino_conversion
from headrace.runtimes.engines import read_requirements
from headrace.runtimes.runtime import Conversion, EngineCommand, EngineEnd, Environment, Launch
from headrace.runtimes.surroundings import engine_command, huge_pages, surroundings


class OpenVinoRuntime:
    """Text generation on CPUs, of models that were converted for it."""

    name = "openvino"
    complete = True
    sleep_mode = None
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
        prefix_caching = {True: ("--prefix-caching",), False: ("--no-prefix-caching",), None: ()}
        flags = prefix_caching[launch.prefix_caching]
        env = surroundings(environment) | huge_pages()
        return engine_command(self.name, launch, environment, env, *flags)

    def classify(self, end: EngineEnd) -> Failure:
        """What an engine's end means."""
        return ending.classify(end)
