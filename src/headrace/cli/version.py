"""``headrace version``."""

from __future__ import annotations

import platform

import typer

from headrace import __version__
from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "version", server=False, panel=LOOK)(version)


def version(invocation: Invocation) -> None:
    """Versions of Headrace and of the Python that runs it."""
    invocation.output.document(
        {"headrace": __version__, "python": platform.python_version(), "platform": platform.platform()}
    )
    invocation.output.line(f"headrace {__version__} (Python {platform.python_version()})")


def show_and_leave(asked: bool) -> None:
    """``headrace --version``."""
    if asked:
        print(f"headrace {__version__}")
        raise typer.Exit
