"""``headrace deployments``: pools of replicas and how they came where they stand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.exits import failure_in, text_of
from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command, list_command
from headrace.cli.output import age, size
from headrace.cli.paths import segment
from headrace.cli.spec import rows as spec_rows

if TYPE_CHECKING:
    from headrace.cli.client import Client

ROOT = "/headrace/v1"


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Pools of replicas and how they came where they stand.")
    list_command(group)(list_deployments)
    command(group, "get")(get_deployment)
    app.add_typer(group, name="deployments", rich_help_panel=LOOK)


def list_deployments(
    invocation: Invocation, gone: Annotated[bool, typer.Option("--all", help="Those that are gone, too.")] = False
) -> None:
    """The deployments of the project."""
    with invocation.client() as client:
        found = client.get(f"{ROOT}/deployments", **in_scope(client), **({"all": "true"} if gone else {}))
    invocation.output.document(found)
    now = time.time()
    rows = [
        (
            each["id"],
            each["display_name"],
            each["state"],
            f"{each['min_replicas']}",
            each["runtime"],
            size(each["memory_bytes"]) if each["memory_bytes"] else "",
            age(now - each["created_at"]),
            (each.get("failure") or {}).get("code", ""),
        )
        for each in found["deployments"]
    ]
    columns = ("DEPLOYMENT", "MODEL", "STATE", "REPLICAS", "RUNTIME", "MEMORY", "AGE", "ERROR")
    empty = "No deployments. Make one: headrace deploy FOLDER"
    invocation.output.table(columns, rows, empty=empty, spare=("RUNTIME", "REPLICAS"))


def get_deployment(
    invocation: Invocation, deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Its id.")]
) -> None:
    """One deployment: its timeline, its replicas, its error."""
    with invocation.client() as client:
        found = client.get(f"{ROOT}/deployments/{segment(deployment)}", **in_scope(client))
    invocation.output.document(found)
    invocation.output.table(
        ("", ""),
        [
            ("deployment", found["id"]),
            ("model", f"{found['model_id']}@{found['model_version']}  {found['display_name']}"),
            ("state", found["state"]),
            ("runtime", found["runtime"]),
            *_served_with(found),
            *spec_rows(found.get("spec") or {}),
        ],
        empty="",
    )
    show_timeline(invocation, found.get("timeline") or [])
    rows = [(each["id"], each["state"], _resident(each)) for each in found.get("replicas") or []]
    invocation.output.line()
    invocation.output.table(("REPLICA", "STATE", "RESIDENT"), rows, empty="No replicas.")
    if found.get("failure"):
        invocation.output.line(f"\n{text_of(failure_in(found['failure']))}")


def _served_with(deployment: dict[str, Any]) -> list[tuple[str, str]]:
    """What it takes: memory, or somebody else's server."""
    length = deployment["max_model_len"]
    context = ("context", f"{length} tokens" if length else "not told")
    external = deployment.get("external")
    if external:
        return [context, ("server", external["base_url"]), ("its model", external["model"])]
    return [context, ("memory", f"{size(deployment['memory_bytes'])} a replica")]


def _resident(replica: dict[str, Any]) -> str:
    return "external" if replica.get("node_id") == "" else size(replica["resident_bytes"])


def show_timeline(invocation: Invocation, timeline: list[dict[str, Any]]) -> None:
    """Each move with the seconds since the first."""
    rows = [(f"{each['at'] - timeline[0]['at']:.1f} s", each["state"], each.get("detail") or "") for each in timeline]
    invocation.output.line()
    invocation.output.table(("AFTER", "STATE", "DETAIL"), rows, empty="No timeline.")


def in_scope(client: Client) -> dict[str, str]:
    """The query that narrows a list down to the login's project and location."""
    return {"project": client.login.project, "location": client.login.location}
