"""The runtime of breadth: Hugging Face transformers on PyTorch, behind Headrace's own serving shell."""

from __future__ import annotations

from pathlib import Path

from headrace.resources.errors import Failure
from headrace.resources.models import Dtype
from headrace.runtimes import ending
from headrace.runtimes.architectures import CAUSAL_LM_TYPES, ENCODER_DECODER_TYPES, VISION_LANGUAGE_TYPES
from headrace.runtimes.device import EitherDevice
from headrace.runtimes.engines import read_requirements
from headrace.runtimes.runtime import EngineCommand, EngineEnd, Environment, Launch
from headrace.runtimes.surroundings import OFFLINE, engine_command, huge_pages, modules_cache, own_gpus, surroundings
from headrace.weights.task import ENCODER_TYPES

KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
"""oneDNN compiles a kernel for each shape of a product and keeps 1,024 of them. Pieces of prompts are of many lengths,
most of which do not come again; a pass over so many tokens takes about six."""


class TransformersRuntime(EitherDevice):
    """Text generation with every language model that transformers knows, and embeddings with its encoders."""

    name = "transformers"
    complete = False
    sleep_mode = None

    @property
    def disk_bytes(self) -> int:
        """With torch for CPUs 1.2 GB installed (measured), the rest pip's downloads; for CUDA an estimate."""
        return 2_500_000_000 if self.device == "cpu" else 12_000_000_000

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
        # Threads that spin while they wait for each other starve whoever holds the core they wait for: with two engines
        # on two cores, spinning made both some ten times slower (bench/NOTES.md).
        threads = {"OMP_NUM_THREADS": str(launch.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        passed_on = surroundings(environment, "OMP_PROC_BIND")
        env = passed_on | OFFLINE | threads | KERNELS | huge_pages() | own_gpus(launch)
        flags = ["--device", self.device]  # said, so that it fails where torch does not see what the driver does
        if launch.allow_custom_code:
            env, flags = env | modules_cache(environment), [*flags, "--allow-custom-code"]
        return engine_command(self.name, launch, environment, env, *flags)

    def classify(self, end: EngineEnd) -> Failure:
        """What an engine's end means."""
        return ending.classify(end)
