"""PyTorch's files (``*.bin``, ``*.pt``): which tensors are in them, read without running what they say."""

from headrace.weights.pickles.checkpoint import PickledFile, read_pickle
from headrace.weights.pickles.findings import check_loaded, check_unloaded
from headrace.weights.pickles.places import PlacedTensor, read_places, require_placeable

__all__ = [
    "PickledFile",
    "PlacedTensor",
    "check_loaded",
    "check_unloaded",
    "read_pickle",
    "read_places",
    "require_placeable",
]
