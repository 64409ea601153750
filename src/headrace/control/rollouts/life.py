"""The life of a rollout, a step at a time: each is one transaction, and what was done already is seen in the rows."""

from __future__ import annotations

from headrace.control.rollouts.judging import Decision, Step, decide
from headrace.control.rollouts.split import stage_split
from headrace.control.traffic import WHOLE, set_split
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel
from headrace.resources.errors import CanaryLost, Failure, RolloutRunning
from headrace.resources.names import Scope
from headrace.resources.rollouts import Rollout, Tallies
from headrace.resources.states import ANSWERING, OPEN_ROLLOUT, RolloutState
from headrace.store import Transaction


def open_rollout(tx: Transaction, scope: Scope, endpoint_id: str) -> Rollout | None:
    """The one that decides on an endpoint's traffic now."""
    found = tx.list(Rollout, scope=scope, endpoint_id=endpoint_id, state=OPEN_ROLLOUT, limit=1)
    return found[0] if found else None


def require_no_rollout(tx: Transaction, scope: Scope, endpoint_id: str) -> None:
    """Hold that an endpoint's traffic is anybody's to change.

    Raises:
        RolloutRunning: A rollout decides on it.
    """
    rollout = open_rollout(tx, scope, endpoint_id)
    if rollout is not None:
        raise RolloutRunning(
            f"A rollout decides on the traffic of endpoint {endpoint_id!r}.",
            evidence=f"Rollout {rollout.id} is {rollout.state}, with {rollout.percent} % for deployed model "
            f"{rollout.deployed_model_id}.",
            fix=f"End it first: `headrace rollouts abort {endpoint_id}`, or `promote`.",
        )


def begin(tx: Transaction, rollout: Rollout) -> None:
    """Store a rollout that begins, and give the canary what it gets in the first stage."""
    tx.insert(rollout)
    _share(tx, rollout, rollout.percent)
    plan = rollout.plan
    stages = ", ".join(f"{stage} %" for stage in plan.stages)
    least = f"{plan.min_requests} requests and {plan.min_seconds:g} s"
    tx.move(rollout, RolloutState.RUNNING, detail=f"{rollout.percent} % from now on. Stages: {stages}; each {least}.")


def advance_rollout(tx: Transaction, key: tuple[Scope, str], now: float) -> float | None:
    """Do what follows from what it has seen; returns when to look again even if no request comes."""
    rollout = tx.get(Rollout, scope=key[0], id=key[1])
    if rollout is None or rollout.state not in OPEN_ROLLOUT:
        return None
    lost = _lost(tx, rollout)
    if lost is not None:
        roll_back(tx, rollout, "Rolled back: the traffic is as it was before.", failure=lost)
        return None
    decision = decide(rollout, now)
    if decision.step is Step.GO_BACK:
        roll_back(tx, rollout, decision.why, failure=decision.failure)
    elif decision.step is Step.GO_ON:
        return _go_on(tx, rollout, decision, now)
    elif decision.held:
        _tell_once(tx, rollout, decision)
    return decision.due_at


def _go_on(tx: Transaction, rollout: Rollout, decision: Decision, now: float) -> float | None:
    told = f"{rollout.percent} % passed: {decision.why}"
    if rollout.stage + 1 == len(rollout.plan.stages):
        promote(tx, rollout, f"{told} All traffic is the canary's.")
        return None
    stage = rollout.stage + 1
    percent = rollout.plan.stages[stage]
    _share(tx, rollout, percent)
    tx.move(
        rollout,
        rollout.state,
        detail=f"{told} {percent} % from now on.",
        stage=stage,
        stage_began_at=now,
        tallies=Tallies(),
    )
    return now + rollout.plan.min_seconds


def promote(tx: Transaction, rollout: Rollout, detail: str) -> Rollout:
    """End it: all traffic to the canary."""
    _share(tx, rollout, WHOLE)
    return tx.move(rollout, RolloutState.PROMOTED, detail=detail)


def roll_back(tx: Transaction, rollout: Rollout, detail: str, *, failure: Failure | None = None) -> Rollout:
    """End it: the traffic as it was before."""
    set_split(tx, rollout.scope, rollout.endpoint_id, rollout.traffic_before)
    return tx.move(rollout, RolloutState.ROLLED_BACK, detail=detail, failure=failure)


def _share(tx: Transaction, rollout: Rollout, percent: int) -> None:
    split = stage_split(rollout.traffic_before, rollout.deployed_model_id, percent)
    set_split(tx, rollout.scope, rollout.endpoint_id, split)


def _lost(tx: Transaction, rollout: Rollout) -> Failure | None:
    """Why the canary answers nobody, if it is the canary alone: where nothing answers, the canary is not at fault."""
    canary = _deployment(tx, rollout.scope, rollout.deployed_model_id)
    if canary is not None and canary.state in ANSWERING:
        return None
    others = [_deployment(tx, rollout.scope, one) for one in rollout.traffic_before if one != rollout.deployed_model_id]
    if not any(other is not None and other.state in ANSWERING for other in others):
        return None
    evidence = "It is not deployed any more."
    if canary is not None:
        evidence = f"Deployment {canary.id} is {canary.state}."
        evidence += f" {canary.failure.code}: {canary.failure.message}" if canary.failure else ""
    return CanaryLost(
        f"At {rollout.percent} % of the traffic the canary had no engine left that answers.",
        evidence=evidence,
        fix="`headrace deployments` shows what became of it; mend that, and start another rollout.",
    ).failure


def _deployment(tx: Transaction, scope: Scope, deployed_model_id: str) -> Deployment | None:
    deployed = tx.get(DeployedModel, scope=scope, id=deployed_model_id)
    return None if deployed is None else tx.get(Deployment, scope=scope, id=deployed.deployment_id)


def _tell_once(tx: Transaction, rollout: Rollout, decision: Decision) -> None:
    """That it is held, once in a stage: the numbers change with each request."""
    last = tx.timelines.newest("rollout", rollout.id).detail
    if not last.startswith(f"Held at {rollout.percent} %"):
        tx.move(rollout, rollout.state, detail=decision.why)
