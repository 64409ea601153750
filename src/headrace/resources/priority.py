"""How urgent a request is."""

from __future__ import annotations

from enum import StrEnum


class Priority(StrEnum):
    """The class in which a request waits for its turn."""

    INTERACTIVE = "interactive"  # somebody waits for the answer
    BATCH = "batch"  # it may take longer
