"""``headrace endpoints throughput``: what is sold of an endpoint's models, and how it is changed while they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.deployments import ROOT, in_scope
from headrace.cli.endpoints import EndpointArgument, find_deployed_model, find_endpoint, short_id
from headrace.cli.invocation import Invocation, command
from headrace.cli.paths import segment
from headrace.cli.throughput import current

if TYPE_CHECKING:
    from headrace.cli.client import Client


def register(group: typer.Typer) -> None:
    """Add the command to the group of endpoints."""
    command(group, "throughput")(throughput)


def throughput(
    invocation: Invocation,
    endpoint: EndpointArgument,
    wishes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL=MIN:MAX]…",
            help="A deployed model's id, or its model's name or id, and its tokens a second, or chunks (1x:2x).",
        ),
    ] = None,
) -> None:
    """Sell other throughputs of an endpoint's models, without a restart, or show what is sold and what runs for it."""
    asked = [_wish(each) for each in wishes or []]
    with invocation.client() as client:
        found = find_endpoint(client, endpoint)
        name, operations = short_id(found["name"]), []
        if asked:
            body = {find_deployed_model(found, model)["id"]: wanted for model, wanted in asked}
            if len(body) < len(asked):
                raise typer.BadParameter("A deployed model is named twice.")
            path = f"{ROOT}/endpoints/{segment(name)}"
            operations = client.patch(path, {"throughput": body}, **in_scope(client))["operations"]
        bound = _bound(client, name)
    invocation.output.document({"deployed_models": bound, "operations": operations})
    rows = [
        (
            each["id"],
            (each.get("deployment") or {}).get("state", "GONE"),
            f"{each['provision']['min_tokens_per_s']:,}" if each.get("provision") else "",
            f"{each['provision']['max_tokens_per_s']:,}" if each.get("provision") else "",
            current(each.get("deployment") or {}),
        )
        for each in bound
    ]
    columns = ("DEPLOYED MODEL", "STATE", "GUARANTEED/S", "MOST/S", "REPLICAS")
    invocation.output.table(columns, rows, empty=f"Nothing is deployed on {name}.")
    for each in bound:
        if pending := (each.get("deployment") or {}).get("pending"):
            invocation.output.line(f"{each['id']} waits: {pending}")
        if doubt := (each.get("deployment") or {}).get("doubt"):
            invocation.output.line(f"{each['id']}: {doubt}")
    for each in operations:
        if each["state"] == "RUNNING":
            invocation.output.line(f"It holds once replicas are there: headrace operations get {each['id']} --wait")


def _bound(client: Client, name: str) -> list[dict[str, Any]]:
    """The endpoint's deployed models, with their deployments and replicas."""
    endpoints = client.get(f"{ROOT}/status", **in_scope(client))["endpoints"]
    return next((each["deployed_models"] for each in endpoints if each["id"] == name), [])


def _wish(text: str) -> tuple[str, str]:
    """``MODEL=MIN:MAX``; the name may have an ``=`` of its own.

    Raises:
        typer.BadParameter: It is something else.
    """
    model, equals, wanted = text.rpartition("=")
    if not equals or not model or not wanted:
        raise typer.BadParameter(f"{text!r} is not MODEL=MIN:MAX.")
    return model, wanted
