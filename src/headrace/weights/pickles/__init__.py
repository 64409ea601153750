"""PyTorch's files (``*.bin``, ``*.pt``): which tensors are in them, read without running what they say."""

from headrace.weights.pickles.checkpoint import PickledFile, read_pickle
from headrace.weights.pickles.findings import check_loaded, check_unloaded

__all__ = ["PickledFile", "check_loaded", "check_unloaded", "read_pickle"]
