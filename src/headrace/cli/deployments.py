"""``headrace deployments``: pools of replicas and how they came where they stand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.autoscaling import autoscaling_body, scale_rows, told_replicas, told_targets
from headrace.cli.exits import failure_in, text_of
from headrace.cli.help import LOOK
from headrace.cli.invocation import Invocation, command, list_command
from headrace.cli.meant import of_deployment
from headrace.cli.names import told_apart
from headrace.cli.output import age, duration, size
from headrace.cli.spec import rows as spec_rows
from headrace.cli.throughput import carried_rows

if TYPE_CHECKING:
    from headrace.cli.client import Client

ROOT = "/headrace/v1"

DeploymentArgument = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Its id, or its model's display name.")]

_FIGURES = {
    "resident_bytes": "memory",
    "load_s": "ready after",
    "time_to_first_token_s": "first token, short prompt",
    "prompt_tokens_per_s": "reading a prompt",
    "tokens_per_s": "writing, one",
}

_CALIBRATED = "measured here"
"""What the rates of a machine begin with that `headrace calibrate` measured."""

_UNCALIBRATED = (
    "So PREDICTED is an estimate from rates that nobody measured on this machine, and MEASURED is what it does: a big "
    "difference is no fault. After `headrace calibrate` new deployments are predicted from measured rates."
)

_AS_PREDICTED = 1.05
"""The ratio below which nobody is told that a figure was off."""


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Pools of replicas and how they came where they stand.")
    list_command(group)(list_deployments)
    command(group, "get")(get_deployment)
    command(group, "update")(update_deployment)
    app.add_typer(group, name="deployments", rich_help_panel=LOOK)


def list_deployments(
    invocation: Invocation, gone: Annotated[bool, typer.Option("--all", help="Those that are gone, too.")] = False
) -> None:
    """The deployments of the project."""
    with invocation.client() as client:
        found = client.get(f"{ROOT}/deployments", **in_scope(client), **({"all": "true"} if gone else {}))
    invocation.output.document(found)
    now = time.time()
    deployments = found["deployments"]
    named = told_apart([(f"{each['display_name']}@{each['model_version']}", each["model_id"]) for each in deployments])
    rows = [
        (
            each["id"],
            name,
            each["state"],
            str(each.get("wanted_replicas", each["min_replicas"])),
            each["runtime"],
            size(each["memory_bytes"]) if each["memory_bytes"] else "",
            age(now - each["created_at"]),
            (each.get("failure") or {}).get("code", ""),
        )
        for each, name in zip(deployments, named, strict=True)
    ]
    columns = ("DEPLOYMENT", "MODEL", "STATE", "REPLICAS", "RUNTIME", "MEMORY", "AGE", "ERROR")
    empty = "No deployments. Make one: headrace deploy FOLDER"
    invocation.output.table(columns, rows, empty=empty, spare=("RUNTIME", "REPLICAS", "AGE"), paths=("MODEL",))


def update_deployment(
    invocation: Invocation,
    deployment: DeploymentArgument,
    *,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="How many engines serve it; those too many end with their last request.")
    ] = None,
    min_replicas: Annotated[int | None, typer.Option(min=1, help="The fewest that serve it while it is awake.")] = None,
    max_replicas: Annotated[
        int | None, typer.Option(min=1, help="The most: between the two it scales by what there is to do.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=VALUE", help="What it scales by, for one replica; may be repeated."),
    ] = None,
    lower_after: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long fewer must have been enough before there are fewer."),
    ] = None,
    scale_to_zero_after: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="SECONDS", help="Stop its engines when nobody asked for as long. 0: never."),
    ] = None,
) -> None:
    """Change how many replicas a deployment has, by what, or when it scales to zero; no request is lost by it."""
    if replicas is not None and (min_replicas is not None or max_replicas is not None):
        raise typer.BadParameter("Give --replicas, or --min-replicas and --max-replicas.")
    bounds = {
        "min_replicas": min_replicas if replicas is None else replicas,
        "max_replicas": max_replicas if replicas is None else replicas,
    }
    body: dict[str, Any] = {name: value for name, value in bounds.items() if value is not None}
    if autoscaling := autoscaling_body(target or [], lower_after):
        body["autoscaling"] = autoscaling
    body |= {} if scale_to_zero_after is None else {"scale_to_zero_after_s": scale_to_zero_after}
    if not body:
        raise typer.BadParameter("Give --replicas, --min-replicas, --max-replicas, --target or --scale-to-zero-after.")
    with invocation.client() as client:
        scope = in_scope(client)
        changed = of_deployment(
            client, deployment, lambda named: client.patch(f"{ROOT}/deployments/{named}", body, **scope)
        )
    invocation.output.document(changed)
    if set(bounds) & set(body):
        invocation.output.line(f"Deployment {changed['id']} has {told_replicas(changed)} from now on.")
    if "autoscaling" in body:
        invocation.output.line(f"Deployment {changed['id']} scales by {told_targets(changed)}.")
    if scale_to_zero_after is not None:
        told = dict(_to_zero(changed)).get("scales to zero", "never")
        invocation.output.line(f"Deployment {changed['id']} scales to zero {told}.")


def get_deployment(invocation: Invocation, deployment: DeploymentArgument) -> None:
    """One deployment: its timeline, its replicas, its error."""
    with invocation.client() as client:
        scope = in_scope(client)
        found = of_deployment(client, deployment, lambda named: client.get(f"{ROOT}/deployments/{named}", **scope))
    invocation.output.document(found)
    invocation.output.table(
        ("", ""),
        [
            ("deployment", found["id"]),
            ("model", f"{found['model_id']}@{found['model_version']}  {found['display_name']}"),
            ("state", found["state"]),
            ("runtime", found["runtime"]),
            *scale_rows(found),
            *carried_rows(found),
            *_to_zero(found),
            *_served_with(found),
            *spec_rows(found.get("spec") or {}),
        ],
        empty="",
    )
    show_timeline(invocation, found.get("timeline") or [])
    rows = [(each["id"], each["state"], _resident(each)) for each in found.get("replicas") or []]
    invocation.output.line()
    invocation.output.table(("REPLICA", "STATE", "RESIDENT"), rows, empty="No replicas.")
    show_measured(invocation, found)
    if found.get("failure"):
        invocation.output.line(f"\n{text_of(failure_in(found['failure']))}")


def _to_zero(deployment: dict[str, Any]) -> list[tuple[str, str]]:
    after_s = deployment.get("scale_to_zero_after_s")
    return [("scales to zero", f"after {after_s:g} s without a request")] if after_s else []


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


def show_measured(invocation: Invocation, deployment: dict[str, Any]) -> None:
    """What the plan said beside what was measured of the first replica that was READY; nothing where none was."""
    compared = next((each["measured"] for each in deployment.get("replicas") or [] if each.get("measured")), None)
    if not compared:
        return
    rows = [
        (
            _FIGURES.get(each["figure"], each["figure"]),
            _figure(each["figure"], each["predicted"]),
            _figure(each["figure"], each["measured"]),
            _off_by(each["figure"], each["predicted"], each["measured"]),
        )
        for each in compared
    ]
    invocation.output.line()
    invocation.output.table(("FIGURE", "PREDICTED", "MEASURED", "OFF BY"), rows, empty="")
    if rates := (deployment.get("predicted") or {}).get("rates"):
        invocation.output.line(f"Rates of the machine: {rates}.")
        if _CALIBRATED not in rates:
            invocation.output.line(_UNCALIBRATED)


def _figure(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return size(int(value))
    return f"{value:.1f} tokens/s" if name.endswith("per_s") else duration(value)


def _off_by(name: str, predicted: float, measured: float) -> str:
    """By how many times the measured figure is better or worse than the plan said."""
    if predicted <= 0 or measured <= 0:
        return ""
    ratio = measured / predicted
    if max(ratio, 1 / ratio) < _AS_PREDICTED:
        return "as predicted"
    more, less = ("more", "less") if name.endswith("_bytes") else ("faster", "slower")
    if name.endswith("_s") and not name.endswith("per_s"):  # of seconds, fewer are faster
        more, less = less, more
    return f"{max(ratio, 1 / ratio):.1f}x {more if ratio > 1 else less} than predicted"


def show_timeline(invocation: Invocation, timeline: list[dict[str, Any]]) -> None:
    """Each move with the seconds since the first."""
    rows = [(f"{each['at'] - timeline[0]['at']:.1f} s", each["state"], each.get("detail") or "") for each in timeline]
    invocation.output.line()
    invocation.output.table(("AFTER", "STATE", "DETAIL"), rows, empty="No timeline.")


def in_scope(client: Client) -> dict[str, str]:
    """The query that narrows a list down to the login's project and location."""
    return {"project": client.login.project, "location": client.login.location}
