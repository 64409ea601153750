"""This machine as a value: what a replica could be given here, limits of containers respected."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from pathlib import Path

import msgspec

from headrace.hardware.cgroups import read_limits
from headrace.hardware.gpus import Gpu, find_gpus
from headrace.hardware.numa import NumaNode, find_numa_nodes

CPU_FLAGS_OF_INTEREST = frozenset(
    {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"}
    | {"asimd", "asimddp", "bf16", "i8mm", "sve", "sve2"}
)
"""The instruction sets that decide how fast a model runs on a CPU, as Linux names them on x86-64 and arm64."""


class MachineShape(msgspec.Struct, frozen=True):
    """What there is to run models with.

    Attributes:
        memory_total_bytes: Memory of the machine, or of the control group where that is less.
        memory_available_bytes: What can be used now without swapping.
        cores: Processors that this process may use at once; a fraction under a CPU quota.
        cpu_model: The processor's name.
        cpu_flags: Those of `CPU_FLAGS_OF_INTEREST` that it has, sorted.
        disk_total_bytes: The disk under the data directory.
        disk_free_bytes: What an ordinary user can still write there.
        open_files_soft: How many files a process may have open now.
        open_files_hard: How far it may raise that itself; -1 for no limit.
        gpus: NVIDIA GPUs.
        numa_nodes: Its memory nodes; empty where Linux does not tell.
    """

    memory_total_bytes: int
    memory_available_bytes: int
    cores: float
    cpu_model: str
    cpu_flags: tuple[str, ...]
    disk_total_bytes: int
    disk_free_bytes: int
    open_files_soft: int
    open_files_hard: int
    gpus: tuple[Gpu, ...]
    numa_nodes: tuple[NumaNode, ...] = ()


def look(data_dir: Path) -> MachineShape:
    """Look at this machine now.

    Args:
        data_dir: Where weights and environments go; it need not exist yet.
    """
    import psutil  # noqa: PLC0415  # it takes 30 ms to import, and most who import this room do not look

    memory = psutil.virtual_memory()
    limits = read_limits()
    disk = shutil.disk_usage(_nearest_existing(data_dir))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    cpu_model, cpu_flags = read_cpu(Path("/proc/cpuinfo"))
    cores = float(len(os.sched_getaffinity(0)))
    return MachineShape(
        memory_total_bytes=min(memory.total, limits.memory_bytes or memory.total),
        memory_available_bytes=min(
            memory.available, memory.available if limits.memory_left_bytes is None else limits.memory_left_bytes
        ),
        cores=min(cores, limits.cores or cores),
        cpu_model=cpu_model,
        cpu_flags=cpu_flags,
        disk_total_bytes=disk.total,
        disk_free_bytes=disk.free,
        open_files_soft=soft,
        open_files_hard=hard,
        gpus=find_gpus(),
        numa_nodes=find_numa_nodes(),
    )


def read_cpu(cpuinfo: Path) -> tuple[str, tuple[str, ...]]:
    """The first processor's name and the flags of interest that it has, from a ``/proc/cpuinfo``."""
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    model = fields.get("model name") or platform.processor() or platform.machine()
    return model, tuple(sorted(flags & CPU_FLAGS_OF_INTEREST))


def _nearest_existing(path: Path) -> Path:
    absolute = path.absolute()
    return next(parent for parent in (absolute, *absolute.parents) if parent.exists())
