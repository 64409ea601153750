"""Floor 2: what this machine has."""

from headrace.hardware.cores import find_cores
from headrace.hardware.gpus import Gpu, find_gpus
from headrace.hardware.machine import MachineShape, look

__all__ = ["Gpu", "MachineShape", "find_cores", "find_gpus", "look"]
