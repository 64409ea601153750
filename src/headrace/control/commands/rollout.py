"""A canary's rollout: begun, paused, ended by a person."""

from __future__ import annotations

import math
from itertools import pairwise

from headrace.control.commands.found import find_living_endpoint
from headrace.control.rollouts.life import begin, promote, require_no_rollout, roll_back
from headrace.control.traffic import WHOLE
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import BadField, RolloutNotFound, RolloutRefused
from headrace.resources.names import Scope, new_id
from headrace.resources.operations import Operation
from headrace.resources.rollouts import Rollout, RolloutPlan
from headrace.resources.states import ANSWERING, OperationState, RolloutState, check_move
from headrace.store import Transaction

MOST_STAGES = 20
MOST_REQUESTS = 1_000_000
LONGEST_STAGE_S = 30 * 86_400.0


def start_rollout(
    tx: Transaction, scope: Scope, endpoint_id: str, deployed_model_id: str, plan: RolloutPlan, *, now: float
) -> Rollout:
    """Have a deployed model take its endpoint's traffic in stages, or none of it in the end.

    Args:
        tx: An open transaction.
        scope: Where.
        endpoint_id: The endpoint.
        deployed_model_id: The canary; empty: the newest on the endpoint that has no traffic.
        plan: The stages, and what the canary is held against.
        now: Unix seconds.

    Raises:
        EndpointNotFound: There is no such endpoint, or it is being deleted.
        BadField: The plan is none.
        RolloutRunning: There is one on the endpoint already.
        RolloutRefused: There is no such canary or it does not answer, nothing else has the traffic, or a deployment is
            about to take it.
    """
    check_plan(plan)
    find_living_endpoint(tx, scope, endpoint_id)
    require_no_rollout(tx, scope, endpoint_id)
    _require_nobody_takes_it(tx, scope, endpoint_id)
    deployed = tx.list(DeployedModel, scope=scope, endpoint_id=endpoint_id)
    canary = _canary(tx, deployed, deployed_model_id)
    before = {one.id: one.traffic for one in deployed if one.traffic}
    _require_somebody_else(canary, before, plan)
    rollout = Rollout(
        scope=scope,
        id=new_id(),
        endpoint_id=endpoint_id,
        deployed_model_id=canary.id,
        plan=plan,
        stage_began_at=now,
        traffic_before=before,
        created_at=now,
        updated_at=now,
    )
    begin(tx, rollout)
    return _as_stored(tx, rollout)


def change_rollout(tx: Transaction, scope: Scope, rollout_id: str, state: RolloutState) -> Rollout:
    """Have a rollout paused, go on, or end one way or the other. What it is already, it stays.

    Raises:
        RolloutNotFound: There is no such rollout.
        IllegalMove: It has ended.
    """
    rollout = tx.get(Rollout, scope=scope, id=rollout_id)
    if rollout is None:
        raise RolloutNotFound(f"There is no rollout {rollout_id!r}.", fix="`headrace rollouts` lists them.")
    if state is rollout.state:
        return rollout
    check_move(f"rollout {rollout.id}", rollout.state, state)  # before its endpoint's traffic is touched
    at = f"at {rollout.percent} %"
    if state is RolloutState.PROMOTED:
        return promote(tx, rollout, f"Promoted by hand {at}: all traffic is the canary's.")
    if state is RolloutState.ROLLED_BACK:
        return roll_back(tx, rollout, f"Aborted by hand {at}: the traffic is as it was before.")
    return tx.move(rollout, state, detail=f"{'Paused' if state is RolloutState.PAUSED else 'Resumed'} by hand {at}.")


def check_plan(plan: RolloutPlan) -> None:
    """Hold that a plan can be gone by.

    Raises:
        BadField: It cannot; with the field.
    """
    stages, bounds = plan.stages, plan.bounds
    growing = all(low < high for low, high in pairwise(stages))
    in_range = all(1 <= stage <= WHOLE for stage in stages)
    if not stages or len(stages) > MOST_STAGES or not growing or not in_range:
        raise BadField(
            f"stages are 1 to {MOST_STAGES} growing percents from 1 to 100.",
            evidence=f"They are {list(stages[: MOST_STAGES + 1])}.",
            fix="For example [5, 25, 50, 100].",
        )
    _require("min_requests", plan.min_requests, 1, MOST_REQUESTS)
    _require("min_seconds", plan.min_seconds, 0.0, LONGEST_STAGE_S)
    _require("false_alarms", plan.false_alarms, 1e-9, 0.5)
    _require("bounds.error_rate", bounds.error_rate, 1e-6, 0.9)
    _require("bounds.slow_share", bounds.slow_share, 1e-6, 0.9)
    _require("bounds.times_stable", bounds.times_stable, 1.0, 1000.0)
    for name, limit_s in {"first_token_s": bounds.first_token_s, "inter_token_s": bounds.inter_token_s}.items():
        if limit_s is not None:
            _require(f"bounds.{name}", limit_s, 1e-6, 86_400.0)


def _require(name: str, value: float, least: float, most: float) -> None:
    if not math.isfinite(value) or not least <= value <= most:
        raise BadField(f"{name} must be from {least:g} to {most:g}.", evidence=f"It is {value:g}.")


def _require_nobody_takes_it(tx: Transaction, scope: Scope, endpoint_id: str) -> None:
    for operation in tx.list(Operation, scope=scope, state=OperationState.RUNNING):
        if operation.takes_traffic and operation.targets.get("endpoint") == endpoint_id:
            raise RolloutRefused(
                "A deployment on the endpoint takes all of its traffic once it is READY.",
                evidence=f"Operation {operation.id} is under way.",
                fix="Wait for it, or undeploy it; deploy a canary with `headrace deploy --no-traffic`.",
            )


def _canary(tx: Transaction, deployed: list[DeployedModel], wanted: str) -> DeployedModel:
    if wanted:
        found = [one for one in deployed if one.id == wanted]
    else:
        found = [one for one in deployed if not one.traffic and _state_of(tx, one) in ANSWERING][-1:]
    if not found:
        raise RolloutRefused(
            f"The endpoint has no deployed model {wanted!r}." if wanted else "The endpoint has no canary.",
            evidence=f"It has {', '.join(f'{one.id} ({one.traffic} %)' for one in deployed) or 'none'}.",
            fix="Deploy one beside what is there, and wait until it is READY: `headrace deploy --no-traffic`.",
        )
    (canary,) = found
    state = _state_of(tx, canary)
    if state not in ANSWERING:
        raise RolloutRefused(
            "The canary does not answer yet, or no more.",
            evidence=f"Deployed model {canary.id} is {state}.",
            fix="Start the rollout once it is READY: `headrace deployments` shows how far it is.",
        )
    return canary


def _state_of(tx: Transaction, deployed: DeployedModel) -> str:
    deployment = tx.get(Deployment, scope=deployed.scope, id=deployed.deployment_id)
    return deployment.state if deployment is not None else "GONE"


def _require_somebody_else(canary: DeployedModel, before: dict[str, int], plan: RolloutPlan) -> None:
    if not any(name != canary.id for name in before):
        raise RolloutRefused(
            "Nothing else on the endpoint has traffic that the canary could take.",
            evidence=f"Deployed model {canary.id} has {canary.traffic} %.",
            fix="A rollout takes two: deploy the new model with `headrace deploy --no-traffic`.",
        )
    if canary.traffic >= plan.stages[0]:
        raise RolloutRefused(
            "The canary has as much traffic already as the first stage would give it.",
            evidence=f"Deployed model {canary.id} has {canary.traffic} %, the first stage {plan.stages[0]} %.",
            fix="Begin with a larger stage, or take traffic from it first.",
        )


def _as_stored(tx: Transaction, rollout: Rollout) -> Rollout:
    stored = tx.get(Rollout, scope=rollout.scope, id=rollout.id)
    assert stored is not None, "it was inserted in this transaction"
    return stored
