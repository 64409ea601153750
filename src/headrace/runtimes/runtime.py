"""The seam: what a runtime knows. Its environment, its command, the models it can serve, the meaning of its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from headrace.resources.errors import Failure
from headrace.resources.models import Dtype


class Environment(msgspec.Struct, frozen=True):
    """An environment that is complete.

    Attributes:
        path: The virtual environment.
        engines_path: What goes into ``PYTHONPATH``: the folder that holds this version's ``headrace_engines``.
    """

    path: Path
    engines_path: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine is to serve, and where.

    Attributes:
        nonce: The bearer token that it demands of its callers.
        socket: The unix socket that it creates.
        model_dir: The folder as it was converted, where the runtime asks for a conversion; else the model's own.
        max_model_len: Context length in tokens.
        threads: CPU threads.
        cores: The cores that are this replica's, by number; empty: any.
        kv_cache_bytes: Memory for the key-value cache on each device, as the plan set it aside; 0: the engine's own
            choice.
        tensor_parallel: Devices that share the weights.
        prefix_caching: Whether prompts share what was computed of a common beginning; None: the engine's own choice.
        chat_template: A file that takes the place of the folder's own template; None: that one.
        tool_parser: How the model writes tool calls; None: told by the chat template.
        allow_custom_code: Whether the engine may run Python code out of the model's folder.
        may_sleep: Whether it may be put to sleep, where the runtime offers that.
        gpus: The GPUs that are this replica's, by NVML's identity; empty: whichever the engine finds.
        gpu_share: Of the memory of each of those, what was set aside for it; 0: that is not known.
    """

    model_dir: Path
    served_name: str
    nonce: str
    socket: Path
    max_model_len: int
    dtype: Dtype
    threads: int
    cores: tuple[int, ...] = ()
    kv_cache_bytes: int = 0
    tensor_parallel: int = 1
    prefix_caching: bool | None = None
    chat_template: Path | None = None
    tool_parser: str | None = None
    allow_custom_code: bool = False
    may_sleep: bool = False
    gpus: tuple[str, ...] = ()
    gpu_share: float = 0.0


class SleepMode(msgspec.Struct, frozen=True):
    """How an engine gives its devices' memory back and gets it again while its process lives: paths of its HTTP.

    Both orders are answered once they are carried out, and may be repeated.

    Attributes:
        sleep: POST. Requests that it has are answered before, and those that come are kept until it is awake.
        wake: POST.
        state: GET. Answers ``{"is_sleeping": true}`` or ``false``.
    """

    sleep: str
    wake: str
    state: str


class EngineCommand(msgspec.Struct, frozen=True):
    """How to start an engine: the command and its whole environment."""

    argv: tuple[str, ...]
    env: dict[str, str]


class EngineEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about an engine that ended though nobody asked it to.

    Attributes:
        exit_status: Negative for a signal; None when nobody was there to see it.
        log_tail: The last lines of its output.
        peak_resident_bytes: The most memory it had resident; 0 when unknown.
        memory_limit_bytes: The limit it ran under, or None.
        machine_memory_bytes: Memory of the machine or of its control group.
        oom_kills: Processes that the kernel killed for want of memory, machine-wide, while it ran.
    """

    exit_status: int | None
    log_tail: Sequence[str]
    peak_resident_bytes: int = 0
    memory_limit_bytes: int | None = None
    machine_memory_bytes: int = 0
    oom_kills: int = 0


class Installable(Protocol):
    """What an environment is made for: a runtime, or a converter."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def requirements(self) -> str:
        """The pinned packages of its environment, in pip's format."""

    @property
    def complete(self) -> bool:
        """Whether the requirements name every package there will be, so that pip resolves nothing (``--no-deps``)."""

    @property
    def disk_bytes(self) -> int:
        """About what its environment takes, downloads and unpacking included."""


class Conversion(Protocol):
    """A program that turns a model's folder into one that a runtime can load, once for each content and key."""

    @property
    def key(self) -> str:
        """Names the result's form within a model's fingerprint, e.g. ``openvino-f16-2``; fit for a folder's name.

        It changes whenever the same files would be converted into something else.
        """

    @property
    def converter(self) -> Installable:
        """Whose environment the program runs in."""

    @property
    def reason(self) -> str:
        """For the timeline, as a part of a sentence: what is made, and from what."""

    @property
    def otherwise(self) -> Conversion | None:
        """The next to try when this one's program refuses the model with ``CONVERSION_FAILED``."""

    def command(self, source: Path, target: Path, environment: Environment) -> EngineCommand:
        """How to run it. `target` is an empty folder; the program ends with status 0 when that is whole."""


class Runtime(Installable, Protocol):
    """One kind of engine."""

    @property
    def model_types(self) -> frozenset[str]:
        """The architectures that it serves, by ``model_type`` of ``config.json``."""

    @property
    def sleep_mode(self) -> SleepMode | None:
        """How engines that were launched with `Launch.may_sleep` are put to sleep here; None: they can only end."""

    def conversion(self, model_dir: Path, dtype: Dtype) -> Conversion | None:
        """What has to be made of the model's folder before an engine can load it; None: it loads the folder itself.

        Reads ``config.json`` only.
        """

    def command(self, launch: Launch, environment: Environment) -> EngineCommand:
        """How to start an engine."""

    def classify(self, end: EngineEnd) -> Failure:
        """What an engine's end means to a person."""
