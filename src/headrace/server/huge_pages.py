"""Whether the kernel gives pages of 2 MiB to engines, which ask for them (`runtimes.surroundings.huge_pages`)."""

from __future__ import annotations

from pathlib import Path

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""The kernel's switch: its three positions, the one that it is in in brackets."""


def sentence(enabled: Path = ENABLED) -> str:
    """What an operator is told at the start; empty where they are given, or where nothing says that they are not.

    Args:
        enabled: The switch.
    """
    try:
        switch = enabled.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
    if "[never]" not in switch:
        return ""
    return (
        "This machine gives no huge pages, with which OpenVINO on its CPU makes a token in five sixths of the time. "
        f"As root, until the machine's next start: echo madvise > {enabled}"
    )
