"""What lists call things."""

from __future__ import annotations

from collections.abc import Sequence


def told_apart(named: Sequence[tuple[str, str]]) -> list[str]:
    """What to call each of several models: by its name, and with its id where another model has the same one.

    Args:
        named: Each one's name, its version included, and the id of the model.
    """
    models_of: dict[str, set[str]] = {}
    for name, model in named:
        models_of.setdefault(name, set()).add(model)
    return [f"{name} ({model})" if len(models_of[name]) > 1 else name for name, model in named]
