"""Deployments of which a throughput is sold, in a scripted world: what a replica carries is what a test says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import msgspec
from scripted import GIB, World

from headrace.capacity.units import tokens_per_s
from headrace.control import Checked
from headrace.control.commands import (
    EndpointRequest,
    VersionRequest,
    create_endpoint,
    deploy_version,
    set_provision,
    undeploy,
)
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import DEFAULT_SCOPE as SCOPE
from headrace.resources.operations import Operation
from headrace.resources.profiles import Carried, Cost
from headrace.resources.snapshot import ProvisionRoute
from headrace.resources.states import DeploymentState
from headrace.resources.throughput import Chunks

CHUNK = 100
ENDED = {DeploymentState.FAILED, DeploymentState.DRAINING, DeploymentState.GONE}


def carried(rate: float = 410.0, *, measured: bool = True) -> Carried:
    """A replica that gets so many tokens a second done, a quarter of which are rounded down to a chunk."""
    cost = Cost(prompt=1024 / rate / 768, prompt_squared=0.0, step=0.0, sequence=0.0, context=0.0)
    return Carried(cost=cost, concurrency=8, first_s=1.0, gap_s=0.1, measured=measured)


@contextmanager
def carrying(one: Carried) -> Iterator[None]:
    """What every version carries here: nothing is measured, and nothing predicted."""
    with patch("headrace.control.commands.provision.carried_by", lambda *_, **__: one):
        yield


def prepare(world: World, *endpoints: str, memory_bytes: int = GIB) -> None:
    """Version 1 of a model ``m``, and endpoints with nothing behind them."""
    assert isinstance(world.checker.says, Checked)
    world.checker.says = msgspec.structs.replace(world.checker.says, memory_bytes=memory_bytes)
    for name in endpoints:
        request = EndpointRequest(scope=SCOPE, contract="test", endpoint_id=name, display_name=name)
        world.write(lambda tx, request=request: create_endpoint(tx, request, now=world.clock.now))
    model = Model(scope=SCOPE, id="m", display_name="river", created_at=1.0, updated_at=1.0)
    version = ModelVersion(scope=SCOPE, model_id="m", version="1", artifact_uri="file:///w", created_at=1.0)
    world.write(lambda tx: (tx.insert(model), tx.insert(version)))


def sell(world: World, endpoint: str, least: int, most: int, **fields: object) -> Operation:
    """Deploy the version there with a throughput in chunks, later than anything before."""
    world.clock.now += 0.001
    request = VersionRequest(
        scope=SCOPE, contract="test", endpoint_id=endpoint, model_id="m", version="1", split={"0": 100}
    )
    request = msgspec.structs.replace(request, provision=Chunks(least, most), **fields)
    operation = world.write(lambda tx: deploy_version(tx, request, now=world.clock.now))
    assert isinstance(operation, Operation)
    return operation


def change(world: World, endpoint: str, least: int, most: int, *, timeout_s: float = 3600.0) -> Operation:
    """Sell another throughput of what runs there."""
    world.clock.now += 0.001
    (deployed,) = world.rows(DeployedModel, endpoint_id=endpoint)
    wish, now = Chunks(least, most), world.clock.now
    operation = world.write(lambda tx: set_provision(tx, deployed, wish, contract="test", now=now, timeout_s=timeout_s))
    assert isinstance(operation, Operation)
    return operation


def take_off(world: World, endpoint: str) -> None:
    """Undeploy what is there."""
    (deployed,) = world.rows(DeployedModel, endpoint_id=endpoint)
    world.write(lambda tx: undeploy(tx, SCOPE, endpoint, deployed.id, contract="test", now=world.clock.now))


def route_of(world: World, endpoint: str) -> ProvisionRoute:
    """What the gateway is told to keep there."""
    (found,) = [one for one in world.gateway.snapshot.endpoints if one.id == endpoint]
    (deployed,) = found.deployed
    assert deployed.provision is not None
    return deployed.provision


def oversold(world: World) -> list[str]:
    """The deployments whose guarantees are more than what the replicas carry that should run."""
    found = []
    for one in world.rows(Deployment):
        sold = [each.provision for each in world.rows(DeployedModel, deployment_id=one.id) if each.provision]
        if one.state in ENDED or not sold:
            continue
        running = 0 if one.state is DeploymentState.ASLEEP else one.wanted_replicas
        if sum(each.min_tokens_per_s for each in sold) > running * tokens_per_s(one.carried) * (1 + 1e-9):
            found.append(f"{one.id}: {sold}, {running} replicas of {tokens_per_s(one.carried)} tokens/s")
    return found


def routed_beyond(world: World) -> list[str]:
    """The deployments of which the gateway is to guarantee more than the replicas that it may send to."""
    sums: dict[str, float] = {}
    replicas: dict[str, int] = {}
    for endpoint in world.gateway.snapshot.endpoints:
        for one in endpoint.deployed:
            if one.provision is not None:
                sums[one.deployment_id] = sums.get(one.deployment_id, 0.0) + one.provision.guaranteed
                replicas[one.deployment_id] = len(one.replicas)
    return [f"{name}: {sums[name]} of {replicas[name]}" for name in sums if sums[name] > replicas[name] + 1e-9]
