"""The replica that is measured: an endpoint's only one, or one that is deployed for that and goes with it."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.cli.deployments import ROOT, in_scope
from headrace.cli.endpoint_deploy import OWN
from headrace.cli.endpoints import bindings, find_endpoint, short_id
from headrace.cli.ends import ENDS, every_end_is_an_interrupt
from headrace.cli.exits import WrongUsage
from headrace.cli.paths import segment
from headrace.cli.progress import Steps
from headrace.resources.errors import EndpointNotFound, HeadraceError, NotReady
from headrace.resources.states import DeploymentState

if TYPE_CHECKING:
    from headrace.cli.client import Client

_OFF_S = 60.0
"""How long it is waited for that nothing of it runs any more; it ends without that, too."""


class Target(msgspec.Struct, frozen=True):
    """A replica that can be measured.

    Attributes:
        path: Of its deployed model's completions.
        model: What it is called in requests.
        deployment: Id of its deployment.
        context_tokens: The longest sequence that it takes.
    """

    path: str
    model: str
    deployment: str
    context_tokens: int


class Machine(msgspec.Struct, frozen=True):
    """The machine for a version that is deployed for the measurement."""

    machine_type: str = ""
    accelerator_type: str = ""
    accelerator_count: int = 0


@contextmanager
def target(client: Client, wanted: str, machine: Machine, steps: Steps) -> Iterator[Target]:
    """What is meant: an endpoint, by its id or name; or ``MODEL@VERSION``, which is deployed, and taken off at the end.

    Args:
        client: The server.
        wanted: The argument.
        machine: For a version; one of an endpoint runs already.
        steps: Where to tell how far that is.

    Raises:
        EndpointNotFound: There is no such endpoint.
        NotReady: The endpoint has not one deployed model with one replica.
        WrongUsage: A machine is named, and what runs already is to be measured.
        WorkFailed: The deployment failed.
    """
    try:
        endpoint = find_endpoint(client, wanted)
    except EndpointNotFound:
        if "@" not in wanted:
            raise
        endpoint = None
    if endpoint is None:
        with _deployed(client, wanted, machine, steps) as made:
            yield _single(client, find_endpoint(client, made))
    elif machine != Machine():
        raise WrongUsage(
            "What runs already has its machine.",
            evidence=f"{wanted!r} is an endpoint.",
            fix="Name a version to have it deployed for the measurement: MODEL@VERSION.",
        )
    else:
        yield _single(client, endpoint)


@contextmanager
def _deployed(client: Client, version: str, machine: Machine, steps: Steps) -> Iterator[str]:
    """A version on an endpoint of its own, whose id this gives; both are gone at the end, however that comes."""
    from headrace.cli.phases import watch  # noqa: PLC0415  # brings the HTTP client

    registered = client.get(f"/v1beta1/{client.login.scope}/models/{segment(version)}")
    name = f"profile-{secrets.token_hex(6)}"
    with every_end_is_an_interrupt():
        try:
            made = client.post(
                f"/v1beta1/{client.login.scope}/endpoints?endpointId={name}",
                {"displayName": name, "description": f"While `headrace profile {version}` measures; goes by itself."},
            )
            watch(client, short_id(made["name"]), Steps(steps.output, silent=True), what=f"Making endpoint {name}")
            operation = client.post(
                f"/v1beta1/{client.login.scope}/endpoints/{name}:deployModel", _deploy_body(registered, machine)
            )
            watch(client, short_id(operation["name"]), steps, what=f"Deploying {version} for the measurement")
            yield name
        finally:
            _take_off(client, name, steps)


def _deploy_body(registered: dict[str, Any], machine: Machine) -> dict[str, Any]:
    spec = {
        "machineType": machine.machine_type,
        "acceleratorType": machine.accelerator_type or None,
        "acceleratorCount": machine.accelerator_count,
    }
    deployed = {
        "model": f"{registered['name'].partition('@')[0]}@{registered['versionId']}",
        "dedicatedResources": {"machineSpec": spec, "minReplicaCount": 1, "maxReplicaCount": 1},
        "systemLabels": OWN,
    }
    return {"deployedModel": deployed, "trafficSplit": {"0": 100}}


def _take_off(client: Client, name: str, steps: Steps) -> None:
    """Delete the endpoint with what is on it, and wait until nothing of it runs; an interrupt does not stop that."""
    from headrace.cli.phases import watch  # noqa: PLC0415  # see above

    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)
    try:
        operation = client.delete(f"/v1beta1/{client.login.scope}/endpoints/{name}?force=true")
        watch(client, short_id(operation["name"]), steps, what="Taking it off again", timeout_s=_OFF_S)
    except EndpointNotFound:  # it was not made yet
        return
    except HeadraceError as error:
        steps.say(f"Endpoint {name} is left: {error.message} Remove it: headrace undeploy {name} --yes")


def _single(client: Client, endpoint: dict[str, Any]) -> Target:
    """The endpoint's one deployed model that is READY, of one replica.

    Raises:
        NotReady: There is none, or its deployment has not exactly one replica.
    """
    ready = bindings(endpoint, state=DeploymentState.READY)
    name = short_id(str(endpoint["name"]))
    if len(ready) != 1:
        raise NotReady(
            f"Endpoint {name} has {len(ready)} deployed models that are READY; a profile is of one.",
            fix="Deploy the model on an endpoint of its own: `headrace deploy FOLDER --name NAME`.",
        )
    deployment_id = short_id(str(ready[0]["headrace"]["deployment"]))
    found = client.get(f"{ROOT}/deployments/{segment(deployment_id)}", **in_scope(client))
    serving = [each for each in found["replicas"] if each["state"] == DeploymentState.READY]
    if len(serving) != 1:
        raise NotReady(
            f"Deployment {deployment_id} has {len(serving)} replicas; a profile is of one.",
            fix=f"`headrace deployments update {deployment_id} --replicas 1`, or deploy the model once more.",
        )
    deployed = segment(str(ready[0]["id"]))
    path = f"/v1/{endpoint['name']}/deployedModels/{deployed}/invoke/completions"
    return Target(path, name, deployment_id, int(found["max_model_len"]))
