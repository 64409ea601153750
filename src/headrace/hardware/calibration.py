"""What was measured of this machine, once: kept in the data directory, and worth nothing on another machine."""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path

import msgspec

from headrace.hardware.machine import MachineShape
from headrace.hardware.shapes import Rates, Shape

logger = logging.getLogger(__name__)

CALIBRATION_FILE = "calibration.json"

MOST_SCATTER = 0.25
"""An assumption: repeats on an idle machine differ by some percent."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Rates that were reached.

    Attributes:
        machine: The `identity` of the machine that they are of.
        measured_at: Unix seconds.
        torch: The version that measured.
        processor: All cores together.
        accelerator: One GPU; None where there is none.
        scatter: By how much the median of repeats was longer than the shortest, of the figure where it was most.
        load: How many processes wanted to compute meanwhile, as the system's load average before it began.
    """

    machine: str
    measured_at: float
    torch: str
    processor: Rates
    accelerator: Rates | None = None
    scatter: float = 0.0
    load: float = 0.0

    @property
    def source(self) -> str:
        """Where the numbers come from, for a person."""
        day = time.strftime("%Y-%m-%d", time.gmtime(self.measured_at))
        return f"measured here on {day} by headrace calibrate"


def identity(machine: MachineShape) -> str:
    """Names what rates depend on: the processor, how many cores and which GPUs. Other memory is the same machine."""
    parts = (machine.cpu_model, *machine.cpu_flags, f"{machine.cores:g}", *sorted(gpu.uuid for gpu in machine.gpus))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def read_calibration(data_dir: Path, machine: MachineShape) -> Calibration | None:
    """What was measured of this machine; None where nothing was, or the machine is another since."""
    path = data_dir / CALIBRATION_FILE
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as problem:
        logger.warning("%s cannot be read, so nothing counts as measured: %s", path, problem)
        return None
    return found if found.machine == identity(machine) else None


def write_calibration(data_dir: Path, calibration: Calibration) -> Path:
    """Keep it, whole or not at all."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / CALIBRATION_FILE
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(calibration)))
    return temporary.replace(path)


def forget_calibration(data_dir: Path) -> bool:
    """Remove what was measured; whether there was anything."""
    path = data_dir / CALIBRATION_FILE
    there = path.exists()
    path.unlink(missing_ok=True)
    return there


def doubts(calibration: Calibration, cores: float) -> list[str]:
    """Why the rates may be lower than the machine's, as sentences; none where it was idle."""
    found = []
    if calibration.load > cores / 2:
        found.append(f"The load average was {calibration.load:.1f} on {cores:g} cores: others computed meanwhile.")
    if calibration.scatter > MOST_SCATTER:
        found.append(
            f"Repeats scattered: half of them took {calibration.scatter:.0%} or more longer than the shortest."
        )
    return found


def calibrated(shape: Shape, calibration: Calibration | None) -> Shape:
    """This machine's shape with the rates that were measured; as it is, where they were not."""
    if calibration is None or (shape.accelerator and calibration.accelerator is None):
        return shape
    accelerator = shape.accelerator
    if accelerator and calibration.accelerator:
        accelerator = msgspec.structs.replace(
            accelerator,
            bandwidth_bytes_per_s=calibration.accelerator.bandwidth_bytes_per_s,
            flops_per_s=calibration.accelerator.flops_per_s,
            source=calibration.source,
        )
    return msgspec.structs.replace(
        shape,
        accelerator=accelerator,
        processor=calibration.processor,
        measured=True,
        rates=calibration.source,
    )
