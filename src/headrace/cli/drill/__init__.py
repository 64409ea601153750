"""``headrace drill``: whether anything is lost while a server is looked after, and when parts of it die."""

from __future__ import annotations

import typer

from headrace.cli.drill.command_line import drill
from headrace.cli.help import MANAGE
from headrace.cli.invocation import command

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "drill", panel=MANAGE)(drill)
