"""``headrace quickstart``: from nothing to a streamed answer, in one go."""

from __future__ import annotations

import typer

from headrace.cli.help import SERVE
from headrace.cli.invocation import command
from headrace.cli.quickstart.sequence import quickstart

__all__ = ["quickstart", "register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "quickstart", server=False, panel=SERVE)(quickstart)
