"""Machine shapes as values: what a machine of a name would have, and how fast that is."""

from __future__ import annotations

import os
from typing import Literal

import msgspec

from headrace.hardware.machine import MachineShape

Kind = Literal["vertex", "watsonx", "timeseries", "operator", "machine"]

THIS_MACHINE = "this-machine"
"""The name of the shape that is the machine on which the command runs."""

CORE_BANDWIDTH_BYTES_PER_S = 13e9
"""What decoding reads a second and core on a CPU: SmolLM2-135M's 269 MB at 99 tokens/s on two cores of an AMD EPYC with
avx512_bf16, OpenVINO GenAI 2026.4.1, 2026-11-21 (`headrace.runtimes.choice`), rounded down. It is a rate reached."""

CPU_MEMORY_BYTES_PER_S = 200e9
"""Where more cores no longer read faster: about eight channels of DDR5-3200, rounded. An assumption, not measured."""

CORE_FLOPS_PER_S = 100e9
"""What a core computes a second in 16 bits: 2 × 135 million parameters × 800 tokens/s at 32 at once, of the same
measurement, on two cores, rounded down. It is a rate reached, and less than prefill would reach."""


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """One device.

    Attributes:
        name: As Vertex names it, such as ``NVIDIA_L4``; an operator's own may have any.
        memory_bytes: Its memory by the datasheet.
        bandwidth_bytes_per_s: How fast that is read.
        flops_per_s: Dense rates by number format; a format that it does not have is not in it.
        source: Where the numbers stand.
    """

    name: str
    memory_bytes: int
    bandwidth_bytes_per_s: float
    flops_per_s: dict[str, float]
    source: str


class Rates(msgspec.Struct, frozen=True):
    """How fast something was measured to be.

    Attributes:
        bandwidth_bytes_per_s: How fast it reads its memory.
        flops_per_s: How fast it multiplies matrices, by number format.
    """

    bandwidth_bytes_per_s: float
    flops_per_s: dict[str, float]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that a model could be given.

    Attributes:
        name: Its machine type, or what an operator calls it.
        kind: Whose it is.
        source: Where its numbers stand.
        cores: Processors (vCPUs).
        memory_bytes: Main memory; 0 where it is not published.
        accelerator: Its devices; None for a machine without, and where they are not published.
        accelerator_count: How many.
        usd_per_h: A price to order shapes by; None where there is none.
        max_parameters: For a size that is given in parameters of two bytes: the most.
        quota_share: The share of a project's quota that one deployment takes.
        users: For time series: concurrent users by univariate points, series and targets of their requests.
        processor: What its processors were measured to do; None where that is assumed.
        measured: Its rates are rates reached, not a datasheet's.
        rates: Where they come from, for a person.
    """

    name: str
    kind: Kind
    source: str
    cores: float = 0
    memory_bytes: int = 0
    accelerator: Accelerator | None = None
    accelerator_count: int = 0
    usd_per_h: float | None = None
    max_parameters: int | None = None
    quota_share: float | None = None
    users: tuple[tuple[int, int, int, int], ...] = ()
    processor: Rates | None = None
    measured: bool = False
    rates: str = "datasheets"

    @property
    def label(self) -> str:
        """Its name, with its devices where one machine type can have several numbers of them."""
        if self.accelerator is None:
            return self.name
        return f"{self.name} ({self.accelerator_count} × {self.accelerator.name})"

    @property
    def device_bytes(self) -> int:
        """Memory of each place that weights can lie in: a device, or the machine itself."""
        return self.accelerator.memory_bytes if self.accelerator else self.memory_bytes

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """How fast one such place reads its memory."""
        if self.accelerator:
            return self.accelerator.bandwidth_bytes_per_s
        if self.processor:
            return self.processor.bandwidth_bytes_per_s
        return min(self.cores * CORE_BANDWIDTH_BYTES_PER_S, CPU_MEMORY_BYTES_PER_S)

    def flops_per_s(self, number_format: str) -> float:
        """How fast one such place computes; 0 where it cannot in this format."""
        if self.accelerator:
            return self.accelerator.flops_per_s.get(number_format, 0.0)
        if self.processor:  # torch computes float16 on a CPU in float32
            rates = self.processor.flops_per_s
            return rates.get(number_format) or rates.get("float32", 0.0)
        return self.cores * CORE_FLOPS_PER_S / (2 if number_format == "float32" else 1)


def shape_of(machine: MachineShape, known: dict[str, Accelerator]) -> Shape:
    """This machine as a shape: its GPUs if it has any, else its processors.

    A GPU has its own memory and, where its driver tells, its own bandwidth; how fast it computes is known of those in
    the catalogue.

    Args:
        machine: The machine as found.
        known: Accelerators by name.
    """
    accelerator = None
    if machine.gpus:
        gpu = min(machine.gpus, key=lambda each: each.memory_total_bytes)
        alike = _alike(gpu.name, gpu.memory_total_bytes, known)
        accelerator = Accelerator(
            name=gpu.name,
            memory_bytes=gpu.memory_total_bytes,
            bandwidth_bytes_per_s=gpu.bandwidth_bytes_per_s or (alike.bandwidth_bytes_per_s if alike else 0.0),
            flops_per_s=alike.flops_per_s if alike else {},
            source=f"NVML; rates: {alike.source if alike else 'not known'}",
        )
    return Shape(
        name=THIS_MACHINE,
        kind="machine",
        source=f"{machine.cpu_model}, as found; {os.uname().machine}",
        cores=machine.cores,
        memory_bytes=machine.memory_total_bytes,
        accelerator=accelerator,
        accelerator_count=len(machine.gpus),
        measured=not machine.gpus,
        rates=("datasheets" if machine.gpus else "assumed for each core")
        + "; `headrace calibrate` measures this machine",
    )


def _alike(name: str, memory_bytes: int, known: dict[str, Accelerator]) -> Accelerator | None:
    """The known accelerator whose model is a word of the driver's name, the nearest in memory of several."""
    words = set(name.upper().replace("-", " ").split())
    fitting = [
        each for each in known.values() if words & set(each.name.upper().removeprefix("NVIDIA_").split("_")) - {"TESLA"}
    ]
    return min(fitting, key=lambda each: abs(each.memory_bytes - memory_bytes), default=None)
