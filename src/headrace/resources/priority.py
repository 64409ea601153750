"""How urgent a request is."""

from __future__ import annotations

from enum import StrEnum


class Priority(StrEnum):
    """The class in which a request waits for its turn; earlier ones go before later ones."""

    GUARANTEED = "guaranteed"  # within the throughput that its deployed model was sold
    INTERACTIVE = "interactive"  # somebody waits for the answer
    BATCH = "batch"  # it may take longer
