"""Decides how many replicas each deployment should run, by the law in `headrace.capacity.autoscaling`.

What was decided is in the deployment's row, written in the transaction that decides, so nothing is scaled twice. What
was needed lately is kept here alone: an autoscaler that starts anew has to see it again before it changes anything.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from headrace.capacity.autoscaling import Decision, History, Law, Standing, decide
from headrace.capacity.trend import Rate, with_rate
from headrace.control.autoscaling.readings import readings_of
from headrace.control.guarantees import provisions_of
from headrace.control.sight import Sight
from headrace.resources.autoscaling import Autoscaling, Scaling
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.names import Scope
from headrace.resources.states import DeploymentState, ReplicaState
from headrace.store import Transaction

LOOK_EVERY_S = 5.0
"""Nodes measure their replicas as often."""

TELL_EVERY_S = 30.0
"""How often the row is brought to what the metrics are while nothing is decided: for whoever looks at it."""

Key = tuple[Scope, str]


class Memory(msgspec.Struct, frozen=True):
    """What is remembered of one deployment from look to look.

    Attributes:
        history: What it needed.
        rates: What work came, where its throughput was sold.
    """

    history: History = History()
    rates: tuple[Rate, ...] = ()


class Autoscaler:
    """One for all deployments.

    Args:
        law: How fast it goes; how long fewer replicas must have been enough is the deployment's own.
    """

    def __init__(self, law: Law | None = None) -> None:
        self._law = law or Law()
        self._memories: dict[Key, Memory] = {}

    def keep_only(self, keys: Collection[Key]) -> None:
        """Forget all others."""
        self._memories = {key: memory for key, memory in self._memories.items() if key in keys}

    def due_at(self, key: Key, now: float) -> float:
        """When a deployment is to be looked at again; at once if it was not yet, or the clock went back."""
        memory = self._memories.get(key)
        last_at = memory.history.looks[-1].at if memory else now
        return now if memory is None or last_at > now else last_at + LOOK_EVERY_S

    def look(self, tx: Transaction, key: Key, sight: Sight) -> Memory | None:
        """Decide, and write that down; returns what `remember` is to be told once that is committed.

        While it is not READY nothing is decided: what it needs is not known then, and what was needed before it slept,
        or lost its replicas, is forgotten.
        """
        deployment = tx.get(Deployment, scope=key[0], id=key[1])
        if deployment is None or not deployment.autoscaled or deployment.state is not DeploymentState.READY:
            return None
        ready = tx.list(Replica, scope=key[0], deployment_id=key[1], state=ReplicaState.READY)
        before = deployment.scaling or Scaling(replicas=deployment.wanted_replicas)
        memory = self._memories.get(key, Memory())
        rates = None
        if provisions_of(tx, deployment):
            rates = with_rate(memory.rates, Rate(sight.now, sight.work_per_minute.get(deployment.id, 0.0)))
        decision = decide(
            msgspec.structs.replace(self._law, lower_after_s=_lower_after_s(deployment)),
            Standing(deployment.wanted_replicas, before.raised_at, before.lowered_at),
            memory.history,
            readings_of(deployment, ready, sight, rates),
            bounds=(deployment.min_replicas, deployment.max_replicas),
            now=sight.now,
        )
        _write(tx, deployment, _scaling(deployment, decision, len(ready), sight.now))
        return Memory(decision.history, rates or ())

    def remember(self, key: Key, memory: Memory | None) -> None:
        """What `look` returned."""
        if memory is None:
            self._memories.pop(key, None)
        else:
            self._memories[key] = memory


def _lower_after_s(deployment: Deployment) -> float:
    return (deployment.autoscaling or Autoscaling()).lower_after_s


def _scaling(deployment: Deployment, decision: Decision, ready: int, now: float) -> Scaling:
    standing, by = decision.standing, decision.by
    metric, value, target = ("", 0.0, 0) if by is None else (str(by.metric), by.total / max(ready, 1), by.target)
    why = "No metric is known." if by is None else f"{metric} is {value:.4g} a replica; its target is {target}."
    if by is not None and not by.whole:
        why = f"{metric} is not known of every replica, so none is taken away for it."
    if standing.replicas < deployment.wanted_replicas:
        why = f"For {_lower_after_s(deployment):g} s no more were needed; {why}"
    return Scaling(
        replicas=standing.replicas,
        at=now,
        metric=metric,
        value=round(value, 3),
        target=target,
        why=why,
        raised_at=standing.raised_at,
        lowered_at=standing.lowered_at,
        pending=deployment.scaling.pending if deployment.scaling else "",
    )


def _write(tx: Transaction, deployment: Deployment, scaling: Scaling) -> None:
    before = deployment.scaling
    wanted = deployment.wanted_replicas
    if scaling.replicas != wanted:
        told = f"Replicas from now on: {scaling.replicas}; until now {wanted}. {scaling.why}"
        tx.move(deployment, deployment.state, detail=told, scaling=scaling)
    elif before is None or scaling.at - before.at >= TELL_EVERY_S or scaling.at < before.at:
        tx.update(msgspec.structs.replace(deployment, scaling=scaling))
