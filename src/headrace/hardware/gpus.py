"""NVIDIA GPUs, as the driver's management library (NVML) reports them, through NVIDIA's own binding."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

logger = logging.getLogger(__name__)

_PER_CLOCK = 2
"""Transfers of a memory clock: GDDR and HBM alike use both edges, as NVML counts clocks."""


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
        bandwidth_bytes_per_s: How fast its memory is read at its highest clock: clock × 2 × bus width. 0 where the
            driver does not say. An L4 (6,251 MHz, 192 bits) comes to the 300 GB/s of its datasheet.
        divided: It is cut into instances (MIG), and cannot be used as a whole.
    """

    index: int
    uuid: str
    name: str
    memory_total_bytes: int
    memory_free_bytes: int
    driver_version: str
    compute_capability: str
    bandwidth_bytes_per_s: float = 0.0
    divided: bool = False


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine that are ours; none where there is no driver, or one that fails, which is logged.

    Where ``CUDA_VISIBLE_DEVICES`` names some of them, the others are somebody else's.
    """
    return visible(_find_all(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(gpus: Sequence[Gpu], listed: str | None) -> tuple[Gpu, ...]:
    """Those that CUDA shows a program that is started with this ``CUDA_VISIBLE_DEVICES``, in their order there.

    As in CUDA's programming guide ("CUDA Environment Variables"): numbers, or beginnings of identities that only one
    has; whatever comes after one that there is not, or that is of the other kind, is not shown, and nothing where one
    comes twice. Numbers are the driver's, as with ``CUDA_DEVICE_ORDER=PCI_BUS_ID``. Where instances (MIG) are named it
    is the GPUs that are divided: of which of them an instance is nothing is known.

    Args:
        gpus: All that there are.
        listed: The variable's value; None where it is not set.
    """
    if listed is None:
        return tuple(gpus)
    if "MIG-" in listed:
        return tuple(gpu for gpu in gpus if gpu.divided)
    shown: list[Gpu] = []
    entries = [entry.strip() for entry in listed.split(",")]
    for entry in entries:
        named = [gpu for gpu in gpus if _names(entry, gpu)]
        if len(named) != 1 or entry.isdecimal() is not entries[0].isdecimal():
            break
        if named[0] in shown:
            return ()
        shown += named
    return tuple(shown)


def _names(entry: str, gpu: Gpu) -> bool:
    return int(entry) == gpu.index if entry.isdecimal() else entry.startswith("GPU-") and gpu.uuid.startswith(entry)


def _find_all() -> tuple[Gpu, ...]:
    import pynvml  # type: ignore[import-untyped]  # noqa: PLC0415  # most who import this do not look

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return ()
    except pynvml.NVMLError as error:
        logger.warning("NVIDIA's driver is here and cannot be used, so no GPU is: %s", error)
        return ()
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        return tuple(_gpu(pynvml, index, driver) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError as error:
        logger.warning("NVIDIA's driver answers for no GPU of this machine, so none is used: %s", error)
        return ()
    finally:
        pynvml.nvmlShutdown()


def duty_percent(pids: Collection[int]) -> float | None:
    """The share of the last moment in which the GPUs that these processes run on computed something, on average.

    Returns:
        None where they run on none, or the driver does not say: it sees no processes of other containers.
    """
    import pynvml  # noqa: PLC0415  # as above

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        used = [
            handle
            for handle in handles
            if any(one.pid in pids for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
        ]
        duties = [float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu) for handle in used]
    except pynvml.NVMLError as error:
        logger.debug("NVIDIA's driver does not tell how busy its GPUs are: %s", error)
        return None
    finally:
        pynvml.nvmlShutdown()
    return sum(duties) / len(duties) if duties else None


def _gpu(nvml: Any, index: int, driver: str) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    clock_mhz = _or_none(nvml, lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM)) or 0
    bus_bits = _or_none(nvml, lambda: nvml.nvmlDeviceGetMemoryBusWidth(handle)) or 0
    mig = _or_none(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle))
    return Gpu(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        memory_total_bytes=memory.total,
        memory_free_bytes=memory.free,
        driver_version=driver,
        compute_capability=f"{major}.{minor}",
        bandwidth_bytes_per_s=clock_mhz * 1e6 * _PER_CLOCK * bus_bits / 8,
        divided=mig is not None and mig[0] == nvml.NVML_DEVICE_MIG_ENABLE,
    )


def _or_none(nvml: Any, ask: Callable[[], Any]) -> Any:
    """What a device answers; None where it does not know such a thing."""
    try:
        return ask()
    except nvml.NVMLError:
        return None
