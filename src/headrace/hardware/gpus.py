"""NVIDIA GPUs, as the driver's management library (NVML) reports them, through NVIDIA's own binding."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
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
    """The GPUs of this machine; none where there is no driver. A driver that fails is logged and counts as none."""
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
