"""How ``--help`` looks: three panels, and flags without a type."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

SERVE = "Serve"
LOOK = "Look"
MANAGE = "Manage"


class Command(TyperCommand):
    """A command whose flags are shown without ``<bool>``."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options and arguments."""
        return _flags_untyped(super().get_params(ctx))


class Group(TyperGroup):
    """A group whose flags are shown without ``<bool>``."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options."""
        return _flags_untyped(super().get_params(ctx))


def _flags_untyped(parameters: list[Any]) -> list[Any]:
    for each in parameters:
        if getattr(each, "is_flag", False):
            each.metavar = ""
    return parameters
