"""Floor 2: whether a model fits into memory, before anything is loaded."""

from headrace.capacity.memory import MemoryNeed, check_fit, estimate

__all__ = ["MemoryNeed", "check_fit", "estimate"]
