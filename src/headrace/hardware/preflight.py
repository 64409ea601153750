"""What a machine must have before Headrace can run on it; names all gaps at once, each with its fix.

Standard library only, and imports nothing of ours: ``make quickstart`` runs this file by its path, before any
environment exists.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

PYTHON_MIN = (3, 11)
DISK_MIN_BYTES = 4 * 10**9
"""A text runtime unpacks to 1.2 GB (measured: torch's CPU build, transformers), pip needs it twice while installing;
the demo model and its staged copy take 0.6 GB."""
MEMORY_MIN_BYTES = 2 * 10**9
"""The demo model's engine was measured at 0.9 GB resident; the three processes need 0.2 GB."""
OPEN_FILES_MIN = 1024
"""Each streamed request holds two descriptors."""


class Gap(NamedTuple):
    """Something that is missing: what, what was found, and what to do."""

    what: str
    found: str
    fix: str


def find_gaps(directory: Path) -> list[Gap]:
    """Everything that this machine lacks, at once.

    Args:
        directory: Where Headrace will write; need not exist yet.
    """
    checks = (_python_gap(), _venv_gap(), _disk_gap(directory), _memory_gap(), _open_files_gap(), _platform_gap())
    return [gap for gap in checks if gap]


def report(gaps: list[Gap]) -> str:
    """All gaps as text for a terminal."""
    lines = [f"error MACHINE_GAPS: this machine lacks {len(gaps)} thing{'s' if len(gaps) > 1 else ''}:"]
    for gap in gaps:
        lines += [f"  ✗ {gap.what}: {gap.found}", f"    fix: {gap.fix}"]
    return "\n".join(lines)


def _python_gap() -> Gap | None:
    if sys.version_info >= PYTHON_MIN:
        return None
    found = f"this is Python {sys.version_info[0]}.{sys.version_info[1]}"
    return Gap("Python 3.11 or newer", found, "install python3.11 and name it: make PYTHON=python3.11 quickstart")


def _venv_gap() -> Gap | None:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    package = f"python3.{sys.version_info[1]}-venv"
    return Gap("virtual environments", f"no module {' or '.join(missing)}", f"apt-get install {package}")


def _disk_gap(directory: Path) -> Gap | None:
    existing = directory
    while not existing.exists():
        existing = existing.parent
    free_bytes = shutil.disk_usage(existing).free
    if not os.access(existing, os.W_OK):
        return Gap("a writable folder", f"{existing} cannot be written", "set HEADRACE_CACHE_DIR and HEADRACE_DATA_DIR")
    if free_bytes >= DISK_MIN_BYTES:
        return None
    fix = "free some, or set HEADRACE_CACHE_DIR and HEADRACE_DATA_DIR to a larger disk"
    return Gap(f"{DISK_MIN_BYTES / 1e9:.0f} GB of disk", f"{free_bytes / 1e9:.1f} GB free at {existing}", fix)


def _memory_gap() -> Gap | None:
    total_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if total_bytes >= MEMORY_MIN_BYTES:
        return None
    return Gap(
        f"{MEMORY_MIN_BYTES / 1e9:.0f} GB of memory", f"{total_bytes / 1e9:.1f} GB in all", "use a larger machine"
    )


def _open_files_gap() -> Gap | None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= OPEN_FILES_MIN:
        return None
    return Gap(f"{OPEN_FILES_MIN} open files", f"the hard limit is {hard}", f"ulimit -Hn {OPEN_FILES_MIN} (as root)")


def _platform_gap() -> Gap | None:
    if sys.platform == "linux":
        return None
    return Gap("Linux", f"this is {sys.platform}", "run it in a Linux machine, virtual machine or container")
