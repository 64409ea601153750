"""``headrace quota``: how much a project may deploy by size."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.deployments import ROOT
from headrace.cli.help import MANAGE
from headrace.cli.invocation import Invocation, command, list_command


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="How much a project may deploy by size (WX-S, WX-M, WX-L).")
    list_command(group, "show")(show)
    command(group, "set")(set_shares)
    app.add_typer(group, name="quota", rich_help_panel=MANAGE)


def show(invocation: Invocation) -> None:
    """The project's shares, those that are taken, and by which deployments."""
    with invocation.client() as client:
        found = client.get(f"{ROOT}/quota", project=client.login.project)
    invocation.output.document(found)
    invocation.output.line(f"Project {found['project']!r} takes {found['used']:g} of {found['shares']:g} shares.")
    rows = [(each["id"], each["size"], f"{each['share']:g}") for each in found["deployments"]]
    invocation.output.table(("DEPLOYMENT", "SIZE", "SHARE"), rows, empty="No deployment takes any.")


def set_shares(
    invocation: Invocation,
    shares: Annotated[float, typer.Argument(help="A large deployment takes 1, a medium one 0.5, a small one 0.25.")],
) -> None:
    """Change what the project may take; what runs goes on. Takes a key that administers every project."""
    with invocation.client() as client:
        quota = client.put(f"{ROOT}/quota", {"project": client.login.project, "shares": shares})
    invocation.output.document(quota)
    invocation.output.line(f"Project {quota['project']!r} may take {quota['shares']:g} shares.")
