"""What the deployed models of one deployment were sold together: how many replicas that takes, and whether they run.

Endpoints whose throughput was sold of one version share a deployment, so a guarantee may be a fraction of a replica.
The fewest replicas that run carry the sum of the guarantees, the most the sum of what is admitted, both counted in
tokens a second by what a replica carries now: a profile that takes a prediction's place changes the numbers of
replicas, and never what was sold. Whatever writes a promise writes the bounds in the same transaction.

What is sold and not carried yet (a deploy that waits for its replicas, a higher throughput that was asked for) counts
for the bounds at once, and for the gateway once enough replicas are READY: until then it would be others' guarantees.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from headrace.capacity.units import share, tokens_per_s
from headrace.control.bounds import MOST_REPLICAS, set_bounds
from headrace.control.room import need_alike, need_here, room_for
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.endpoints import DeployedModel
from headrace.resources.operations import Operation
from headrace.resources.profiles import Carried, Provision
from headrace.resources.states import DeploymentState, OperationState, ReplicaState
from headrace.store import Transaction

IDLE_S = 1800.0
"""After which a deployment scales to zero of which nothing is guaranteed, where nobody said: Databricks' half hour."""

_ENDING = frozenset({DeploymentState.DRAINING, DeploymentState.FAILED, DeploymentState.GONE})

_ROUNDING = 1e-9
"""What sums of shares may be off by."""


def replicas_for(carried: Carried, of_tokens_per_s: float) -> int:
    """How many replicas carry so many tokens a second; by tokens, for the chunk they were sold by may be another."""
    return math.ceil(share(carried, of_tokens_per_s) - _ROUNDING)


def bounds_for(carried: Carried, provisions: Iterable[Provision], room: int | None = None) -> tuple[int, int]:
    """The fewest and the most replicas of a deployment that was sold so.

    Args:
        carried: What one of them carries, which is not nothing.
        provisions: Of its deployed models.
        room: How many have room on the machine, were it empty; None: nobody knows. More than that are only asked for
            where they are guaranteed.
    """
    sold = list(provisions)
    least = max(replicas_for(carried, sum(one.min_tokens_per_s for one in sold)), 1)
    most = replicas_for(carried, sum(one.max_tokens_per_s for one in sold))
    return least, max(least, most if room is None else min(most, room))


def provisions_of(tx: Transaction, deployment: Deployment) -> list[Provision]:
    """What each deployed model of it was sold, or is about to be where that is more."""
    asked = {
        operation.targets["deployed_model"]: wish for operation, wish in _changes(tx, deployment)
    }  # of two the newer, though one replaces the other
    bound = tx.list(DeployedModel, scope=deployment.scope, deployment_id=deployment.id)
    both = [[one for one in (binding.provision, asked.get(binding.id)) if one is not None] for binding in bound]
    return [_larger(*each) for each in both if each]


def guarantees_fit(tx: Transaction, deployment: Deployment, another: Provision) -> bool:
    """Whether one more guarantee fits beside those of a deployment, were nothing else on the machine.

    While no check has told what a replica takes, it does where it takes no replica more.
    """
    carried = deployment.carried
    if carried is None or not tokens_per_s(carried):
        return False
    sold = sum(one.min_tokens_per_s for one in provisions_of(tx, deployment))
    replicas = replicas_for(carried, sold + another.min_tokens_per_s)
    need = need_here(tx, deployment) or need_alike(
        tx, deployment.scope, deployment.model_id, deployment.model_version, deployment.machine
    )
    room = room_for(tx, need, carried)
    if room is None:
        room = max(1, replicas_for(carried, max(sold, another.min_tokens_per_s)))
    return replicas <= min(room, MOST_REPLICAS)


def follow(tx: Transaction, deployment: Deployment, *, why: str = "") -> Deployment:
    """Bring its bounds, and whether it scales to zero, to what its deployed models were sold; else it is left alone."""
    carried = deployment.carried
    if deployment.state in _ENDING or carried is None or not tokens_per_s(carried):
        return deployment
    sold = provisions_of(tx, deployment)
    if not sold:
        return deployment
    room = room_for(tx, need_here(tx, deployment), carried)
    deployment = set_bounds(tx, deployment, *bounds_for(carried, sold, room), why=why)
    idle_s = 0.0 if any(one.min_tokens_per_s for one in sold) else deployment.scale_to_zero_after_s or IDLE_S
    if idle_s == deployment.scale_to_zero_after_s:
        return deployment
    state = deployment.state
    if not idle_s and state is DeploymentState.ASLEEP:
        state = DeploymentState.PLACING
    told = f"Nothing of it is guaranteed: it scales to zero after {idle_s:g} s without a request."
    told = told if idle_s else "A throughput of it is guaranteed: it scales to zero no more."
    return tx.move(deployment, state, detail=told, scale_to_zero_after_s=idle_s)


def take_carried(tx: Transaction, deployment: Deployment, carried: Carried) -> Deployment:
    """Have a deployment count with this from now on; its replicas follow, and what was sold stays.

    A prediction takes no measurement's place, and nothing does that carries nothing.
    """
    before = deployment.carried
    if carried == before or not tokens_per_s(carried) or (before and before.measured and not carried.measured):
        return deployment
    how = "measured" if carried.measured else "predicted"
    why = f"A replica carries {tokens_per_s(carried):.0f} tokens/s, as was {how}."
    return follow(tx, tx.update(msgspec.structs.replace(deployment, carried=carried)), why=why)


def carries(tx: Transaction, deployment: Deployment, deployed: DeployedModel, wish: Provision) -> bool:
    """Whether the replicas that take requests carry this guarantee besides those that hold already.

    Of a deployment that sleeps only one of nothing: a request wakes it.
    """
    if deployment.carried is None or not tokens_per_s(deployment.carried):
        return False
    promised = wish.min_tokens_per_s + sum(
        one.provision.min_tokens_per_s
        for one in _holding(tx, deployment)
        if one.id != deployed.id and one.provision is not None
    )
    return replicas_for(deployment.carried, promised) <= ready_replicas(tx, deployment)


def holds(tx: Transaction, deployment: Deployment, deployed: DeployedModel) -> bool:
    """Whether what a deployed model was sold is guaranteed now: once it was, it stays so."""
    if deployed.provision is None or deployment.state is DeploymentState.FAILED:
        return False
    waiting = deployed.id in _deploying(tx, deployment)
    return not waiting or carries(tx, deployment, deployed, deployed.provision)


def grant(tx: Transaction, operation: Operation, deployment: Deployment) -> Operation:
    """Have the throughput hold that an operation asked for, and end that."""
    deployed = tx.get(DeployedModel, scope=operation.scope, id=operation.targets["deployed_model"])
    wish = wish_of(operation)
    assert deployed is not None, "who grants has looked"
    assert wish is not None, "and read it"
    tx.update(msgspec.structs.replace(deployed, provision=wish))
    operation = tx.move(operation, OperationState.SUCCEEDED)
    follow(tx, deployment)
    return operation


def ready_replicas(tx: Transaction, deployment: Deployment) -> int:
    """How many of its replicas take requests and stay."""
    if deployment.state is not DeploymentState.READY:
        return 0
    ready = tx.list(Replica, scope=deployment.scope, deployment_id=deployment.id, state=ReplicaState.READY)
    return min(sum(one.failure is None for one in ready), deployment.wanted_replicas)


def wish_of(operation: Operation) -> Provision | None:
    """The throughput that an operation changes a deployed model's to; None: it does not."""
    text = operation.targets.get("provision", "")
    return msgspec.json.decode(text, type=Provision) if text else None


def until_of(operation: Operation) -> float | None:
    """When an operation gives up that waits for replicas; None: it does not."""
    text = operation.targets.get("until", "")
    return float(text) if text else None


def waiting_on(tx: Transaction, deployment: Deployment) -> list[Operation]:
    """What waits for replicas of a deployment: deploys of what was sold, and changes of that; the oldest first."""
    running = tx.list(Operation, scope=deployment.scope, state=OperationState.RUNNING)
    return [one for one in running if one.targets.get("deployment") == deployment.id and "until" in one.targets]


def _changes(tx: Transaction, deployment: Deployment) -> Iterable[tuple[Operation, Provision]]:
    for operation in waiting_on(tx, deployment):
        if (wish := wish_of(operation)) is not None:
            yield operation, wish


def _deploying(tx: Transaction, deployment: Deployment) -> set[str]:
    return {one.targets["deployed_model"] for one in waiting_on(tx, deployment) if one.deploys}


def _holding(tx: Transaction, deployment: Deployment) -> Sequence[DeployedModel]:
    """Those whose guarantees hold."""
    waiting = _deploying(tx, deployment)
    bound = tx.list(DeployedModel, scope=deployment.scope, deployment_id=deployment.id)
    return [one for one in bound if one.id not in waiting]


def _larger(sold: Provision, *asked: Provision) -> Provision:
    return msgspec.structs.replace(
        sold,
        min_tokens_per_s=max(one.min_tokens_per_s for one in (sold, *asked)),
        max_tokens_per_s=max(one.max_tokens_per_s for one in (sold, *asked)),
    )
