"""A chat template that engines do not find by themselves, as a file beside its replica, read when they start."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.resources.errors import HeadraceError
from headrace.storage import open_artifacts
from headrace.weights import task_of
from headrace.weights.config import read_config
from headrace.weights.templates import OLDER_FILE, read_template

FILE = "chat_template.jinja"


def hidden_in(folder: Path) -> str | None:
    """The template of a folder that has it in an older processor's file alone; None of every other folder.

    There only vLLM looks, only with such a processor and only for chats without tools.
    """
    if not (folder / OLDER_FILE).is_file():
        return None
    reader = open_artifacts(str(folder))
    try:
        if task_of(read_config(reader), reader.sizes()) == "embed":
            return None
        found = read_template(reader)
    except HeadraceError:  # who checked the folder said so
        return None
    return found.text if found is not None and found.file == OLDER_FILE else None


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
