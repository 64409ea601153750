"""What a node asks an engine to be started with, where a test is of something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.runtimes import Launch


def launch_in(folder: Path, **wished: Any) -> Launch:
    """Of the model in a folder, whose socket lies there, too."""
    usual: dict[str, Any] = {
        "model_dir": folder / "model",
        "served_name": "chat",
        "nonce": "nonce-of-7",
        "socket": folder / "7.engine",
        "max_model_len": 2048,
        "dtype": "bfloat16",
        "threads": 2,
    }
    return Launch(**(usual | wished))
