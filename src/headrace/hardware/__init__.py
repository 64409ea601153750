"""Floor 2: what this machine has."""

from headrace.hardware.gpus import Gpu, find_gpus
from headrace.hardware.machine import MachineShape, look

__all__ = ["Gpu", "MachineShape", "find_gpus", "look"]
