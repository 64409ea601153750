"""``headrace endpoints deploy``: a version that is registered already, onto an endpoint that is there."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headrace.cli.endpoints import EndpointArgument, bindings, find_endpoint, short_id, standing_of
from headrace.cli.invocation import Invocation, command
from headrace.cli.meant import of_model
from headrace.cli.progress import Steps
from headrace.cli.throughput import ThroughputOption
from headrace.resources.traffic import WHOLE, share_out

OWN = {"headrace-deployment": "own"}
"""The system label of a deployed model that shares its deployment with no other endpoint."""

THROUGHPUT = "headrace-throughput"
"""The system label with the throughput that is sold of one."""


def register(group: typer.Typer) -> None:
    """Add the command to the group of endpoints."""
    command(group, "deploy")(deploy_model)


def deploy_model(
    invocation: Invocation,
    endpoint: EndpointArgument,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Its id or display name; with @version or @alias that version.")
    ],
    *,
    traffic: Annotated[
        int,
        typer.Option(
            min=0, max=WHOLE, metavar="PERCENT", help="Its share once it is READY; the others keep their proportions."
        ),
    ] = WHOLE,
    name: Annotated[str, typer.Option(help="Display name of the deployed model, else the model's.")] = "",
    replicas: Annotated[int, typer.Option(min=1, help="How many engines serve it.")] = 1,
    machine_type: Annotated[str, typer.Option(help="Machine's type, as Vertex AI names it.")] = "",
    accelerator_type: Annotated[str, typer.Option(help="GPU's type, as Vertex AI names it.")] = "",
    accelerator_count: Annotated[int, typer.Option(min=0, help="GPUs of a machine.")] = 0,
    throughput: ThroughputOption = "",
    own: Annotated[bool, typer.Option("--own", help="Never share engines with another endpoint.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show the phases until it is READY.")] = True,
    timeout: Annotated[float | None, typer.Option(min=1.0, help="Seconds to wait at most; else without limit.")] = None,
) -> None:
    """Deploy a registered model; endpoints that deploy one version alike share its engines, and their memory."""
    from headrace.cli.phases import watch  # noqa: PLC0415  # brings the HTTP client

    machine = {
        "machineType": machine_type,
        "acceleratorType": accelerator_type or None,
        "acceleratorCount": accelerator_count,
    }
    with invocation.client() as client:
        found = find_endpoint(client, endpoint)
        models = f"/v1beta1/{client.login.scope}/models"
        registered = of_model(client, model, lambda named: client.get(f"{models}/{named}"))
        deployed: dict[str, Any] = {
            "model": f"{registered['name'].partition('@')[0]}@{registered['versionId']}",
            "displayName": name,
            "dedicatedResources": {"machineSpec": machine, "minReplicaCount": replicas, "maxReplicaCount": replicas},
        }
        labels = (OWN if own else {}) | ({THROUGHPUT: throughput} if throughput else {})
        body: dict[str, Any] = {"deployedModel": deployed | ({"systemLabels": labels} if labels else {})}
        if split := _split(found, traffic):
            body["trafficSplit"] = split
        operation = client.post(f"/v1beta1/{found['name']}:deployModel", body)
        what = f"Deploying {model} to {short_id(found['name'])}"
        if not wait:
            invocation.output.document(operation)
            invocation.output.line(f"{what}: operation {short_id(operation['name'])}.")
            return
        steps = Steps(invocation.output, silent=invocation.as_json)
        done = watch(client, short_id(operation["name"]), steps, what=what, timeout_s=timeout)
    invocation.output.document(done)


def _split(endpoint: dict[str, Any], percent: int) -> dict[str, int]:
    """The endpoint's traffic with so much for the new one; empty where it stays as it is."""
    told = endpoint.get("trafficSplit") or {}
    others = {
        each["id"]: told.get(each["id"], 0)
        for each in bindings(endpoint)
        if standing_of(each) not in ("DRAINING", "GONE")
    }
    if not percent or not sum(others.values()):
        return {"0": WHOLE, **dict.fromkeys(others, 0)} if percent else {}
    return {"0": percent, **share_out(others, whole=WHOLE - percent)}
