"""``headrace certify``: whether a throughput that was sold is kept while another tenant floods."""

from __future__ import annotations

import typer

from headrace.cli.certify.command_line import certify
from headrace.cli.help import LOOK
from headrace.cli.invocation import command


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "certify", panel=LOOK)(certify)
