"""A model's folder written anew in the one form that every engine loads: safetensors, an index, nothing to run.

Importing this package is free; NumPy is imported only by what has to be rounded or laid out anew.
"""

from headrace.weights.conversion.mark import CONVERTER_VERSION, MARK_FILE, Mark, Wanted, read_mark, write_mark
from headrace.weights.conversion.plan import FolderPlan, plan_folder
from headrace.weights.conversion.writing import write_folder

__all__ = [
    "CONVERTER_VERSION",
    "MARK_FILE",
    "FolderPlan",
    "Mark",
    "Wanted",
    "plan_folder",
    "read_mark",
    "write_folder",
    "write_mark",
]
