"""NVIDIA GPUs, as the driver's own ``nvidia-smi`` reports them."""

from __future__ import annotations

import csv
import logging
import shutil
import subprocess

import msgspec

logger = logging.getLogger(__name__)

_QUERY = ("index", "uuid", "name", "memory.total", "memory.free", "driver_version", "compute_cap")
_TIMEOUT_S = 20.0
"""Long enough for a driver that has to wake its GPUs up; a hung one must not hang the server's start."""

_MIB = 1024 * 1024


class Gpu(msgspec.Struct, frozen=True):
    """One GPU.

    Attributes:
        index: Its number on this machine.
        uuid: Its identity anywhere.
        name: The product, such as ``NVIDIA L4``.
        memory_total_bytes: Its memory.
        memory_free_bytes: What no process holds now.
        driver_version: The driver's.
        compute_capability: Such as ``8.9``.
    """

    index: int
    uuid: str
    name: str
    memory_total_bytes: int
    memory_free_bytes: int
    driver_version: str
    compute_capability: str


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine; none where there is no driver. A driver that fails is logged and counts as none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        return parse_gpus(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        logger.warning("nvidia-smi is here and cannot be used, so no GPU is: %s", error)
        return ()


def parse_gpus(answer: str) -> tuple[Gpu, ...]:
    """Read ``nvidia-smi``'s answer, whose memory sizes are in MiB.

    Raises:
        ValueError: It is not the table that was asked for.
    """
    rows = [row for row in csv.reader(answer.splitlines(), skipinitialspace=True) if row]
    return tuple(_gpu(row) for row in rows)


def _gpu(row: list[str]) -> Gpu:
    index, uuid, name, total, free, driver, capability = row
    return Gpu(int(index), uuid, name, int(total) * _MIB, int(free) * _MIB, driver, capability)
