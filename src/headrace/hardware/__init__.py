"""Floor 2: what this machine has, and what machines of a name would have."""

from headrace.hardware.calibration import (
    Calibration,
    calibrated,
    doubts,
    forget_calibration,
    identity,
    read_calibration,
    write_calibration,
)
from headrace.hardware.catalogue import Catalogue, read_catalogue
from headrace.hardware.choosing import cheapest_first, find_shape, next_up, require_all_or_none, shape_by_name
from headrace.hardware.cores import find_cores
from headrace.hardware.gpus import Gpu, duty_percent, find_gpus
from headrace.hardware.machine import MachineShape, look
from headrace.hardware.shapes import THIS_MACHINE, Accelerator, Rates, Shape, shape_of

__all__ = [
    "THIS_MACHINE",
    "Accelerator",
    "Calibration",
    "Catalogue",
    "Gpu",
    "MachineShape",
    "Rates",
    "Shape",
    "calibrated",
    "cheapest_first",
    "doubts",
    "duty_percent",
    "find_cores",
    "find_gpus",
    "find_shape",
    "forget_calibration",
    "identity",
    "look",
    "next_up",
    "read_calibration",
    "read_catalogue",
    "require_all_or_none",
    "shape_by_name",
    "shape_of",
    "write_calibration",
]
