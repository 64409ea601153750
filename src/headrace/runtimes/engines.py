"""The engines' own code on its way into an environment: copied, never installed, named by its content.

So one environment serves several versions of Headrace, and a running engine keeps the code that it began with.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import headrace

PACKAGE = "headrace_engines"


def read_requirements(engine: str, file: str = "requirements.txt") -> str:
    """The pinned packages of one engine, in pip's format."""
    return (_source() / engine / file).read_text(encoding="utf-8")


def stamp() -> str:
    """Version and content of the engines that this Headrace ships, e.g. ``0.1.0+3f2a9c01b7de``.

    Both packages come in one wheel, so their version is one.
    """
    digest = hashlib.sha256()
    for path in _files():
        content = path.read_bytes()
        digest.update(f"{path.relative_to(_source())}\0{len(content)}\0".encode() + content)
    return f"{headrace.__version__}+{digest.hexdigest()[:12]}"


def place(environment: Path) -> Path:
    """Make sure that the engines of this Headrace are in an environment; returns what goes into ``PYTHONPATH``."""
    target = environment / "engines" / stamp()
    if not target.is_dir():
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        for path in _files():
            copy = temporary / PACKAGE / path.relative_to(_source())
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        with contextlib.suppress(OSError):  # another process placed the same content first
            temporary.rename(target)
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def placed(environment: Path) -> list[str]:
    """The stamps of the engines in an environment, oldest first."""
    folders = [path for path in (environment / "engines").glob("[!.]*") if path.is_dir()]
    return [path.name for path in sorted(folders, key=lambda path: path.stat().st_mtime)]


def _source() -> Path:
    spec = importlib.util.find_spec(PACKAGE)  # found, not imported: neither package ever imports the other
    assert spec is not None, "both packages come in one wheel"
    return Path(next(iter(spec.submodule_search_locations or ())))


def _files() -> Iterator[Path]:
    for path in sorted(_source().rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path
