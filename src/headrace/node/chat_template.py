"""A version's own chat template, as a file beside its replica: engines read it when they start."""

from __future__ import annotations

import os
from pathlib import Path

FILE = "chat_template.jinja"


def write(directory: Path, template: str | None) -> Path | None:
    """Write it, for this user's eyes only: a template may hold a company's prompts. None where there is none."""
    if template is None:
        return None
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / FILE
    path.unlink(missing_ok=True)  # an earlier one keeps its own mode
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(template)
    return path


def remove(directory: Path) -> None:
    """Remove it, if it is there."""
    (directory / FILE).unlink(missing_ok=True)
