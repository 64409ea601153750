"""``headrace operations``: work that outlives the request that asked for it."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from headrace.cli.deployments import ROOT, in_scope, show_timeline
from headrace.cli.exits import failure_in, text_of
from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command, list_command
from headrace.cli.output import age
from headrace.cli.paths import segment
from headrace.cli.progress import Steps


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Work that outlives the request that asked for it.")
    list_command(group)(list_operations)
    command(group, "get")(get_operation)
    app.add_typer(group, name="operations", rich_help_panel=LOOK)


def list_operations(
    invocation: Invocation,
    running: Annotated[bool, typer.Option("--running", help="Only those that are not done.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most, newest first.")] = 20,
) -> None:
    """The operations of the project, newest first."""
    with invocation.client() as client:
        narrowed = {"state": "RUNNING"} if running else {}
        found = client.get(f"{ROOT}/operations", limit=limit, **in_scope(client), **narrowed)
    invocation.output.document(found)
    now = time.time()
    rows = [
        (
            each["id"],
            each["kind"],
            each["state"],
            age(now - each["created_at"]),
            each["targets"].get("endpoint") or each["targets"].get("model", ""),
            (each.get("failure") or {}).get("code", ""),
        )
        for each in found["operations"]
    ]
    columns = ("OPERATION", "KIND", "STATE", "AGE", "ABOUT", "ERROR")
    invocation.output.table(columns, rows, empty="No operations.", spare=("AGE",))


def get_operation(
    invocation: Invocation,
    operation: Annotated[str, typer.Argument(metavar="OPERATION", help="Its id.")],
    wait: Annotated[bool, typer.Option("--wait", help="Show the phases until it is done.")] = False,
    timeout: Annotated[float | None, typer.Option(min=1.0, help="Seconds to wait at most.")] = None,
) -> None:
    """One operation with the timeline of what it works on; with --wait it must succeed for exit code 0."""
    with invocation.client() as client:
        if wait:
            from headrace.cli.phases import watch  # noqa: PLC0415  # brings the HTTP client

            steps = Steps(invocation.output, silent=invocation.as_json)
            invocation.output.document(watch(client, operation, steps, what=operation, timeout_s=timeout))
            return
        found = client.get(f"{ROOT}/operations/{segment(operation)}", **in_scope(client))
    invocation.output.document(found)
    invocation.output.line(f"{found['kind']} {found['id']}: {found['state']}")
    if found.get("timeline"):
        show_timeline(invocation, found["timeline"])
    if found.get("failure"):
        invocation.output.line(f"\n{text_of(failure_in(found['failure']))}")
