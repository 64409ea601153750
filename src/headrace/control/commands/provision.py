"""A throughput that is sold: held to what a replica carries and the machine has room for, and changed in place."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.capacity.units import chunk, require_chunks
from headrace.control.carrying import carried_by
from headrace.control.guarantees import carries, follow, grant, take_carried, waiting_on, wish_of
from headrace.control.room import beyond, need_alike
from headrace.resources.deployments import Deployment, MachineSpec
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import BadField, Cancelled, DeploymentNotFound, NotSupported, ThroughputTooHigh
from headrace.resources.models import ModelVersion
from headrace.resources.names import new_id
from headrace.resources.operations import Operation
from headrace.resources.profiles import Carried, Provision
from headrace.resources.states import DeploymentState, OperationState
from headrace.resources.throughput import Chunks, Wish
from headrace.store import Transaction

_ENDING = frozenset({DeploymentState.DRAINING, DeploymentState.FAILED, DeploymentState.GONE})


def check_scale(wish: Wish | None, least: int, most: int) -> None:
    """Hold that numbers of replicas are not asked for together with a throughput.

    Raises:
        BadField: They are.
    """
    if wish is not None and (least, most) != (1, 1):
        raise BadField(
            "How many replicas run follows from the throughput.",
            evidence=f"{least} to {most} replicas were asked for besides.",
            fix="Leave the numbers of replicas out, or the throughput.",
        )


def sell_if(
    tx: Transaction, version: ModelVersion, machine: MachineSpec, wish: Wish | None, *, data_dir: Path | None
) -> tuple[Carried | None, Provision | None]:
    """As `sell`; nothing where nothing was asked for."""
    return (None, None) if wish is None else sell(tx, version, machine, wish, data_dir=data_dir)


def sell(
    tx: Transaction, version: ModelVersion, machine: MachineSpec, wish: Wish, *, data_dir: Path | None
) -> tuple[Carried, Provision]:
    """What a replica of a version carries, and of it what was asked for, as it is sold.

    Raises:
        NotOptimizable: No throughput of it can be stated.
        BadField: It is no whole number of chunks, its least is more than its most, or its most is nothing.
        ThroughputTooHigh: It is more than the machine could carry, where that is known already.
    """
    carried = carried_by(tx, version, machine, data_dir=data_dir)
    provision = read_wish(carried, wish)
    need = need_alike(tx, version.scope, version.model_id, version.version, machine)
    too_high = beyond(tx, carried, provision, need)
    if too_high is not None:
        raise ThroughputTooHigh(too_high.message, evidence=too_high.evidence, fix=too_high.fix)
    return carried, provision


def follow_newest(tx: Transaction, deployment: Deployment, carried: Carried) -> Deployment:
    """Have a deployment that sells more now have the replicas for it, by what is known now of what one carries."""
    return follow(tx, take_carried(tx, deployment, carried))


def read_wish(carried: Carried, wish: Wish) -> Provision:
    """What was asked for in tokens a second, by the chunk of now.

    Raises:
        BadField: It is no whole number of chunks, its least is more than its most, or its most is nothing.
    """
    of_chunk = chunk(carried)
    if isinstance(wish, Chunks):
        wish = Provision(min_tokens_per_s=wish.least * of_chunk, max_tokens_per_s=wish.most * of_chunk, chunk=of_chunk)
    if wish.max_tokens_per_s <= 0 or not 0 <= wish.min_tokens_per_s <= wish.max_tokens_per_s:
        raise BadField(
            "A throughput has a most above zero, and a least from zero to that.",
            evidence=f"From {wish.min_tokens_per_s:,} to {wish.max_tokens_per_s:,} tokens a second were asked for.",
            fix=f"A chunk is {of_chunk:,} tokens a second here: ask for {of_chunk:,}:{of_chunk:,}, or 0:{of_chunk:,} "
            "for what may scale to zero.",
        )
    require_chunks(wish.min_tokens_per_s, of_chunk)
    require_chunks(wish.max_tokens_per_s, of_chunk)
    return msgspec.structs.replace(wish, chunk=of_chunk)


def set_provision(
    tx: Transaction,
    deployed: DeployedModel,
    wish: Wish,
    *,
    contract: str,
    now: float,
    timeout_s: float = 3600.0,
    data_dir: Path | None = None,
) -> Operation:
    """Sell a running deployed model another throughput from now on; nothing of it is restarted.

    Less of it is so at once. More of it is so once enough replicas are READY: until then the operation runs, the old
    throughput holds, and so it does for good where they do not come in time. A newer wish takes an older one's place.

    Args:
        tx: An open transaction.
        deployed: The deployed model.
        wish: Its throughput.
        contract: The API it was asked through.
        now: Unix seconds.
        timeout_s: How long replicas may take to come.
        data_dir: As in `deploy_version`.

    Raises:
        DeploymentNotFound: Its deployment ends, or failed.
        NotOptimizable: No throughput of it can be stated.
        BadField: As `read_wish`.
        NotSupported: It was deployed without one: then its replicas were not counted by what was sold.
        ThroughputTooHigh: The machine could never carry so much.
    """
    deployment = tx.get(Deployment, scope=deployed.scope, id=deployed.deployment_id)
    if deployment is None or deployment.state in _ENDING:
        raise DeploymentNotFound(f"Deployed model {deployed.id!r} has no deployment that goes on.")
    if deployed.provision is None:
        raise NotSupported(
            f"Deployed model {deployed.id!r} was deployed without a throughput.",
            evidence=f"Its replicas were asked for: {deployment.min_replicas} to {deployment.max_replicas}.",
            fix="Deploy the version once more with a throughput, and undeploy this one.",
        )
    version = tx.get(
        ModelVersion, scope=deployment.scope, model_id=deployment.model_id, version=deployment.model_version
    )
    assert version is not None, "a model in use is not deleted"
    carried, provision = sell(tx, version, deployment.machine, wish, data_dir=data_dir)
    _supersede(tx, deployment, deployed)
    deployment = take_carried(tx, deployment, carried)
    operation = _operation(deployment, deployed, provision, contract=contract, now=now, until=now + timeout_s)
    tx.insert(operation)
    deployment = follow(tx, deployment)
    less = provision.min_tokens_per_s <= deployed.provision.min_tokens_per_s
    if less or carries(tx, deployment, deployed, provision):
        return grant(tx, operation, deployment)
    return operation


def _supersede(tx: Transaction, deployment: Deployment, deployed: DeployedModel) -> None:
    """End the change of its throughput that still waits."""
    for operation in waiting_on(tx, deployment):
        if operation.targets["deployed_model"] == deployed.id and wish_of(operation) is not None:
            newer = Cancelled("Another throughput was asked for before this one was there.")
            tx.move(operation, OperationState.FAILED, failure=newer.failure)


def _operation(
    deployment: Deployment, deployed: DeployedModel, wish: Provision, *, contract: str, now: float, until: float
) -> Operation:
    return Operation(
        scope=deployed.scope,
        id=new_id(),
        parent=deployed.scope.name("endpoints", deployed.endpoint_id),
        kind="mutate_deployed_model",
        contract=contract,
        targets={
            "endpoint": deployed.endpoint_id,
            "model": deployment.model_id,
            "version": deployment.model_version,
            "deployment": deployment.id,
            "deployed_model": deployed.id,
            "display_name": deployed.display_name,
            "provision": msgspec.json.encode(wish).decode(),
            "until": repr(until),
        },
        created_at=now,
        updated_at=now,
    )
