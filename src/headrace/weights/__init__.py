"""Floor 2: read and check model folders from their headers and small files; nothing here executes a model's code.

The package is light: NumPy and ``gguf`` are imported only by a conversion, torch never.
"""

from headrace.weights.base_models import BaseModel, base_model
from headrace.weights.config import ModelConfig, read_config
from headrace.weights.finding import Finding
from headrace.weights.findings import check, raise_first_error
from headrace.weights.folder import ModelFolder, inspect
from headrace.weights.header import SafetensorsHeader, TensorEntry, read_header
from headrace.weights.parameters import Parameters, count_parameters
from headrace.weights.reader import FolderReader
from headrace.weights.specifications import Certified, certified_table, require_specification, specifications_for
from headrace.weights.task import task_of

__all__ = [
    "BaseModel",
    "Certified",
    "Finding",
    "FolderReader",
    "ModelConfig",
    "ModelFolder",
    "Parameters",
    "SafetensorsHeader",
    "TensorEntry",
    "base_model",
    "certified_table",
    "check",
    "count_parameters",
    "inspect",
    "raise_first_error",
    "read_config",
    "read_header",
    "require_specification",
    "specifications_for",
    "task_of",
]
