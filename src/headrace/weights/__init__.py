"""Floor 2: read and check model folders from their headers and small files; nothing here executes a model's code.

The package is light: NumPy and ``gguf`` are imported only by a conversion, torch never.
"""

from headrace.weights.config import ModelConfig, read_config
from headrace.weights.finding import Finding
from headrace.weights.findings import check, raise_first_error
from headrace.weights.folder import ModelFolder, inspect
from headrace.weights.header import SafetensorsHeader, TensorEntry, read_header
from headrace.weights.reader import FolderReader
from headrace.weights.task import task_of

__all__ = [
    "Finding",
    "FolderReader",
    "ModelConfig",
    "ModelFolder",
    "SafetensorsHeader",
    "TensorEntry",
    "check",
    "inspect",
    "raise_first_error",
    "read_config",
    "read_header",
    "task_of",
]
