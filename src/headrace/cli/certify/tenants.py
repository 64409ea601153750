"""Who asks: the deployed model whose throughput is looked at, and another one that floods what it runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from headrace.cli.deployments import ROOT, in_scope
from headrace.cli.endpoints import bindings, find_endpoint, short_id
from headrace.cli.paths import segment
from headrace.resources.errors import NotReady, RoleMissing
from headrace.resources.profiles import Carried
from headrace.resources.states import ANSWERING

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.cli.progress import Steps


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The deployed model that is looked at.

    Attributes:
        name: Its endpoint's, as people see it.
        path: Where its completions are.
        model: Full name of its model, with the version.
        deployment_id: What it runs on.
        replicas: Of that, how many are READY.
        max_model_len: Its context, in tokens.
        carried: What a replica carries; None where nobody knows.
        guaranteed_tokens_per_s: What it was sold at least; 0: nothing.
        guaranteed_beside_tokens_per_s: What others on the same deployment were sold at least.
        slept: Whether it has no replica now, so that the first request waits for one.
    """

    name: str
    path: str
    model: str
    deployment_id: str
    replicas: int
    max_model_len: int
    carried: Carried | None
    guaranteed_tokens_per_s: int
    guaranteed_beside_tokens_per_s: int
    slept: bool


def look_up(client: Client, endpoint: str) -> Target:
    """The one deployed model of an endpoint.

    Raises:
        EndpointNotFound: There is no such endpoint.
        NotReady: It has not exactly one deployed model that answers.
    """
    found = find_endpoint(client, endpoint)
    name = str(found.get("displayName") or short_id(str(found["name"])))
    answering = [one for one in bindings(found) if (one.get("headrace") or {}).get("state") in ANSWERING]
    if len(answering) != 1:
        raise NotReady(
            f"Endpoint {name} has {len(answering)} deployed models that answer; a certificate is of one.",
            fix="Deploy the model on an endpoint of its own: `headrace deploy FOLDER --throughput 1x:2x`.",
        )
    bound = answering[0]
    deployment_id = short_id(str(bound["headrace"]["deployment"]))
    pool = client.get(f"{ROOT}/deployments/{segment(deployment_id)}", **in_scope(client))
    sold = _sold(client, deployment_id)
    ready = sum(each["state"] == "READY" for each in pool["replicas"])
    return Target(
        name=name,
        path=_completions(str(found["name"]), str(bound["id"])),
        model=f"{str(bound['model']).partition('@')[0]}@{bound['modelVersionId']}",
        deployment_id=deployment_id,
        replicas=ready,
        max_model_len=int(pool["max_model_len"]),
        carried=msgspec.convert(pool["carried"], Carried) if pool.get("carried") else None,
        guaranteed_tokens_per_s=sold.get(str(bound["id"]), 0),
        guaranteed_beside_tokens_per_s=sum(least for one, least in sold.items() if one != str(bound["id"])),
        slept=ready == 0,
    )


@contextmanager
def flooding(
    client: Client, target: Target, steps: Steps, *, endpoint: str, throughput: str, name: str
) -> Iterator[str]:
    """The path of a deployed model on the same engines, with nothing guaranteed to it; taken off again where made.

    Args:
        client: The server.
        target: Who must not notice.
        steps: Told of what is made.
        endpoint: One that is there; empty: one is made.
        throughput: What the one that is made is sold, as ``0x:4x``.
        name: Of the one that is made.

    Raises:
        NotReady: The endpoint that was named runs on something else.
    """
    if endpoint:
        other = look_up(client, endpoint)
        if other.deployment_id != target.deployment_id:
            raise NotReady(
                f"Endpoint {other.name} runs on deployment {other.deployment_id}, not on {target.deployment_id}.",
                fix="Leave --flood out: an endpoint on the same engines is made for that time.",
            )
        yield other.path
        return
    from headrace.cli.phases import watch  # noqa: PLC0415  # brings the HTTP client

    parent = f"/v1beta1/{client.login.scope}/endpoints"
    made = client.post(f"{parent}?endpointId={name}", {"displayName": name})
    try:
        watch(client, short_id(made["name"]), steps, what=f"Making endpoint {name}, which floods")
        deployed = {
            "model": target.model,
            "dedicatedResources": {"machineSpec": {}, "minReplicaCount": 1, "maxReplicaCount": 1},
            "systemLabels": {"headrace-throughput": throughput},
        }
        body = {"deployedModel": deployed, "trafficSplit": {"0": 100}}
        bound = client.post(f"{parent}/{name}:deployModel", body)
        watch(client, short_id(bound["name"]), steps, what="Deploying the same model to it")
        other = look_up(client, name)
        if other.deployment_id != target.deployment_id:
            raise NotReady(
                "The endpoint that was to flood got engines of its own.",
                evidence=f"It runs on deployment {other.deployment_id}, {target.name} on {target.deployment_id}.",
                fix="Only deployed models with a throughput share engines: sell one to it, or give --no-flood.",
            )
        yield other.path
    finally:
        client.delete(f"{parent}/{name}?force=true")


@contextmanager
def other_key(client: Client, project: str, name: str) -> Iterator[str]:
    """A key for another tenant, revoked at the end; the command's own where it may make none."""
    try:
        made = client.post(f"{ROOT}/keys", {"name": name, "project": project})
    except RoleMissing:
        yield client.login.key
        return
    try:
        yield str(made["secret"])
    finally:
        client.delete(f"{ROOT}/keys/{segment(str(made['id']))}")


def _completions(endpoint: str, deployed_model: str) -> str:
    return f"/v1/{endpoint}/deployedModels/{segment(deployed_model)}/invoke/completions"


def _sold(client: Client, deployment_id: str) -> dict[str, int]:
    """What is guaranteed on a deployment, by deployed model, in tokens a second."""
    listed = client.get(f"{ROOT}/endpoints", **in_scope(client))["endpoints"]
    return {
        str(each["id"]): int((each.get("provision") or {}).get("min_tokens_per_s", 0))
        for endpoint in listed
        for each in endpoint["deployed_models"]
        if each["deployment_id"] == deployment_id
    }
