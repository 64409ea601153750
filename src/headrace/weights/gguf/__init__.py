"""GGUF files (llama.cpp's format) become Hugging Face folders of bfloat16 safetensors, without torch.

Importing this package is free; NumPy, ``gguf`` and ``safetensors`` are imported by the conversion itself.
"""

from headrace.weights.gguf.convert import CONVERTER_VERSION, convert_gguf, needed_bytes, write_gguf
from headrace.weights.gguf.llama import require_convertible
from headrace.weights.gguf.source import open_gguf

__all__ = ["CONVERTER_VERSION", "convert_gguf", "needed_bytes", "open_gguf", "require_convertible", "write_gguf"]
