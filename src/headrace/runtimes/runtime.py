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
        max_model_len: Context length in tokens.
        threads: CPU threads.
    """

    model_dir: Path
    served_name: str
    nonce: str
    socket: Path
    max_model_len: int
    dtype: Dtype
    threads: int


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


class Runtime(Protocol):
    """One kind of engine."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def requirements(self) -> str:
        """The pinned packages of its environment, in pip's format."""

    @property
    def disk_bytes(self) -> int:
        """About what its environment takes, downloads and unpacking included."""

    @property
    def model_types(self) -> frozenset[str]:
        """The architectures that it serves, by ``model_type`` of ``config.json``."""

    def command(self, launch: Launch, environment: Environment) -> EngineCommand:
        """How to start an engine."""

    def classify(self, end: EngineEnd) -> Failure:
        """What an engine's end means to a person."""
