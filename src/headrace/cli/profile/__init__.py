"""``headrace profile``: what a replica carries, measured on a deployment that runs."""

from __future__ import annotations

import typer

from headrace.cli.help import LOOK
from headrace.cli.invocation import command
from headrace.cli.profile.command_line import profile


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "profile", panel=LOOK)(profile)
