"""From one config to the next, a step at a time: each is one transaction, and what was done is seen in the rows.

The old entities have the traffic until every new one answers; then it moves in one transaction, and the old ones are
undeployed, which lets their requests finish. Where a new one cannot be, the new ones go, and the old config holds on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec

from headrace.contracts.databricks.state import Failed, Pending, Served, ServingState, state_in, with_state
from headrace.control.commands.remove import undeploy
from headrace.control.rollouts.life import open_rollout
from headrace.control.serving.rescale import CONTRACT, rescale
from headrace.control.serving.scale import Scale, scale_of_replicas
from headrace.control.traffic import set_split
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import HeadraceError
from headrace.resources.names import Scope
from headrace.resources.operations import Operation
from headrace.resources.states import ANSWERING, DeploymentState, OperationState
from headrace.store import Transaction

_log = logging.getLogger(__name__)

_LOST = frozenset({DeploymentState.DRAINING, DeploymentState.GONE})


def updating(tx: Transaction) -> list[tuple[Scope, str]]:
    """The endpoints that are on their way to another config."""
    return [(one.scope, one.id) for one in tx.list(Endpoint, deleting=False) if state_in(one.kept).pending is not None]


def advance_config(tx: Transaction, key: tuple[Scope, str], now: float, data_dir: Path | None = None) -> bool:
    """Bring one endpoint's update to its end, if that has come; returns whether it has.

    Args:
        tx: An open transaction.
        key: The endpoint.
        now: Unix seconds.
        data_dir: Where a node of this machine staged what replicas carry, by which a throughput is told; None: nowhere.
    """
    endpoint = tx.get(Endpoint, scope=key[0], id=key[1])
    if endpoint is None or endpoint.deleting:
        return False
    state = state_in(endpoint.kept)
    if state.pending is None:
        return False
    lost = _lost(tx, endpoint, state.pending)
    if lost:
        _give_up(tx, endpoint, state, state.pending, lost, now=now, data_dir=data_dir)
    elif _answers(tx, endpoint, state.pending) and open_rollout(tx, endpoint.scope, endpoint.id) is None:
        _switch(tx, endpoint, state, state.pending, now=now, data_dir=data_dir)
    else:
        return False
    return True


def _lost(tx: Transaction, endpoint: Endpoint, pending: Pending) -> str:
    """Why this config will not come to hold; empty: it may."""
    found = {name: _deployment(tx, endpoint.scope, one) for name, one in pending.bound.items()}
    for name, deployment in found.items():
        if deployment is not None and deployment.state is DeploymentState.FAILED:
            failure = deployment.failure
            told = f"{failure.code}: {failure.message} {failure.evidence} {failure.fix}" if failure else ""
            return f"Served entity {name} failed. {told}".strip()
    for name, operation_id in pending.operations.items():
        operation = tx.get(Operation, scope=endpoint.scope, id=operation_id)
        if operation is not None and operation.state is OperationState.FAILED:
            failure = operation.failure
            told = f"{failure.code}: {failure.message} {failure.evidence}" if failure else ""
            return f"Served entity {name} could not be brought to its throughput. {told}".strip()
    for name, deployment in found.items():
        if deployment is None or deployment.state in _LOST:
            return f"Served entity {name} was undeployed before it answered."
    return ""


def _answers(tx: Transaction, endpoint: Endpoint, pending: Pending) -> bool:
    """Whether every entity of it gets requests answered now, or once it is awake."""
    found = [_deployment(tx, endpoint.scope, one) for one in pending.bound.values()]
    changes = [tx.get(Operation, scope=endpoint.scope, id=one) for one in pending.operations.values()]
    changed = all(one is None or one.state is OperationState.SUCCEEDED for one in changes)
    return changed and all(one is not None and one.state in ANSWERING for one in found)


def _switch(
    tx: Transaction, endpoint: Endpoint, state: ServingState, pending: Pending, *, now: float, data_dir: Path | None
) -> None:
    split = {pending.bound[name]: share for name, share in pending.config.routes.items()}
    set_split(tx, endpoint.scope, endpoint.id, split)
    _rescale(tx, endpoint, _wanted(state, pending), now=now, data_dir=data_dir)
    there = {one.id for one in tx.list(DeployedModel, scope=endpoint.scope, endpoint_id=endpoint.id)}
    _undeploy(tx, endpoint, there - set(pending.bound.values()), now=now)
    _write(
        tx,
        endpoint,
        msgspec.structs.replace(
            state, config_version=state.config_version + 1, served=_served(state, pending), pending=None, failed=None
        ),
    )


def _give_up(
    tx: Transaction,
    endpoint: Endpoint,
    state: ServingState,
    pending: Pending,
    why: str,
    *,
    now: float,
    data_dir: Path | None,
) -> None:
    """Leave what served as it was. Of an endpoint that never served, what failed stays to be seen."""
    failed = Failed(config=pending.config, message=why, at=now)
    new = set(pending.bound.values())
    there = {one.id for one in tx.list(DeployedModel, scope=endpoint.scope, endpoint_id=endpoint.id)}
    served = state.served
    if there - new or new & set(served):
        before = {deployed_id: Scale(provision=one) for deployed_id, one in pending.before.items()}
        _rescale(tx, endpoint, before, now=now, data_dir=data_dir)
        _undeploy(tx, endpoint, new - set(served), now=now)
    else:
        served = _served(state, pending)
    _write(tx, endpoint, msgspec.structs.replace(state, served=served, pending=None, failed=failed))


def _wanted(state: ServingState, pending: Pending) -> dict[str, Scale]:
    """What those that stay are to have together with the config, by deployed model."""
    scales = {deployed_id: Scale(provision=one) for deployed_id, one in pending.later.items()}
    for entity in pending.config.entities:
        deployed_id = pending.bound[entity.name]
        if deployed_id in state.served and not entity.provisioned:
            scales[deployed_id] = scale_of_replicas(entity)
    return scales


def _rescale(
    tx: Transaction, endpoint: Endpoint, scales: Mapping[str, Scale], *, now: float, data_dir: Path | None
) -> None:
    """Bring deployed models that go on to these scales."""
    for deployed_id, scale in scales.items():
        deployed = tx.get(DeployedModel, scope=endpoint.scope, id=deployed_id)
        deployment = _deployment(tx, endpoint.scope, deployed_id)
        if deployed is None or deployment is None or deployment.state in (*_LOST, DeploymentState.FAILED):
            continue
        try:
            rescale(tx, deployed, scale, now=now, data_dir=data_dir)
        except HeadraceError as error:  # by now a chunk may be another: then what it has stays
            _log.warning("Deployed model %s keeps its scale: %s: %s", deployed_id, error.code, error.evidence)


def _served(state: ServingState, pending: Pending) -> dict[str, Served]:
    entities = {one.name: one for one in pending.config.entities}
    return {
        deployed_id: Served(
            entity=entities[name],
            at=state.served[deployed_id].at if deployed_id in state.served else pending.started_at,
        )
        for name, deployed_id in pending.bound.items()
    }


def _undeploy(tx: Transaction, endpoint: Endpoint, those: set[str], *, now: float) -> None:
    for one in tx.list(DeployedModel, scope=endpoint.scope, endpoint_id=endpoint.id):
        deployment = _deployment(tx, endpoint.scope, one.id)
        if one.id in those and deployment is not None and deployment.state not in _LOST:
            undeploy(tx, endpoint.scope, endpoint.id, one.id, contract=CONTRACT, now=now)


def _write(tx: Transaction, endpoint: Endpoint, state: ServingState) -> None:
    current = tx.get(Endpoint, scope=endpoint.scope, id=endpoint.id)
    assert current is not None, "nothing here deletes it"
    tx.update(msgspec.structs.replace(current, kept=with_state(current.kept, state)))


def _deployment(tx: Transaction, scope: Scope, deployed_id: str) -> Deployment | None:
    deployed = tx.get(DeployedModel, scope=scope, id=deployed_id)
    return None if deployed is None else tx.get(Deployment, scope=scope, id=deployed.deployment_id)
