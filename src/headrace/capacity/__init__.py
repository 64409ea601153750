"""Floor 2: whether a model fits into memory, before anything is loaded."""

from headrace.capacity.memory import PLANNED_SEQUENCES, MemoryNeed, check_fit, estimate

__all__ = ["PLANNED_SEQUENCES", "MemoryNeed", "check_fit", "estimate"]
