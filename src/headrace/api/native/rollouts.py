"""Rollouts: begin, list, watch, pause, end."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from fastapi import Request, Response

from headrace.api.managing import require_manager
from headrace.api.native.bodies import read_body
from headrace.api.native.deployments import timeline_json
from headrace.api.native.nouns import noun_json, reach
from headrace.api.requests import answer, context_of, principal_of
from headrace.api.viewing import hidden_from, require_viewer
from headrace.control import commands
from headrace.control.rollouts.judging import Verdict, decide, verdicts
from headrace.resources.access import Permission
from headrace.resources.errors import RolloutNotFound
from headrace.resources.names import DEFAULT_LOCATION, DEFAULT_PROJECT, Scope
from headrace.resources.rollouts import Rollout, RolloutBounds, RolloutPlan
from headrace.resources.states import OPEN_ROLLOUT, RolloutState
from headrace.store import Transaction

_USUAL = RolloutPlan()


class BoundsBody(RolloutBounds, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As `RolloutBounds`."""


class RolloutBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be rolled out, and how.

    Attributes:
        deployed_model_id: The canary; empty: the newest on the endpoint that has no traffic.
        stages: As in `RolloutPlan`; so what follows.
    """

    endpoint_id: str
    deployed_model_id: str = ""
    project: str = DEFAULT_PROJECT
    location: str = DEFAULT_LOCATION
    stages: tuple[int, ...] = _USUAL.stages
    min_requests: int = _USUAL.min_requests
    min_seconds: float = _USUAL.min_seconds
    bounds: BoundsBody = BoundsBody()
    false_alarms: float = _USUAL.false_alarms


class RolloutChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to become of a rollout.

    Attributes:
        state: ``PAUSED``; ``RUNNING``: it goes on; ``PROMOTED`` or ``ROLLED_BACK``: it ends now.
    """

    state: RolloutState


async def create_rollout(request: Request) -> Response:
    """Begin; the answer is the rollout."""
    context = context_of(request)
    body = await read_body(request, RolloutBody)
    principal_of(request).require(Permission.DEPLOY, body.project)
    plan = RolloutPlan(
        stages=body.stages,
        min_requests=body.min_requests,
        min_seconds=body.min_seconds,
        bounds=body.bounds,
        false_alarms=body.false_alarms,
    )
    scope = Scope(body.project, body.location)

    def start(tx: Transaction) -> Rollout:
        require_manager(tx, request, scope, body.endpoint_id)
        return commands.start_rollout(tx, scope, body.endpoint_id, body.deployed_model_id, plan, now=context.clock())

    return answer(_rollout_json(await context.write(start), context.clock()))


async def list_rollouts(request: Request) -> Response:
    """All that the key reaches, the oldest first; of one endpoint with ``endpoint=``."""
    context, conditions = context_of(request), reach(request)
    if endpoint_id := request.query_params.get("endpoint"):
        conditions["endpoint_id"] = endpoint_id
    within = reach(request)

    def read(tx: Transaction) -> list[Rollout]:
        hidden = hidden_from(tx, request, **within).endpoints
        return [one for one in tx.list(Rollout, **conditions) if (one.scope, one.endpoint_id) not in hidden]

    found = await context.read(read)
    return answer({"rollouts": [_rollout_json(one, context.clock()) for one in found]})


async def get_rollout(request: Request) -> Response:
    """One with its timeline."""
    context = context_of(request)

    def read(tx: Transaction) -> dict[str, Any]:
        rollout = _rollout(tx, request)
        require_viewer(tx, request, rollout.scope, rollout.endpoint_id)
        return {
            **_rollout_json(rollout, context.clock()),
            "timeline": timeline_json(tx.timelines.shown("rollout", rollout.id)),
        }

    return answer(await context.read(read))


async def change_rollout(request: Request) -> Response:
    """Pause it, have it go on, or end it; the answer is the rollout."""
    context, body = context_of(request), await read_body(request, RolloutChange)

    def change(tx: Transaction) -> Rollout:
        rollout = _rollout(tx, request)
        require_manager(tx, request, rollout.scope, rollout.endpoint_id)
        return commands.change_rollout(tx, rollout.scope, rollout.id, body.state)

    return answer(_rollout_json(await context.write(change), context.clock()))


def _rollout(tx: Transaction, request: Request) -> Rollout:
    """The rollout in the path; those of other projects are not there."""
    wanted = request.path_params["rollout"]
    found = tx.list(Rollout, id=wanted, **reach(request))
    if not found:
        raise RolloutNotFound(f"There is no rollout {wanted!r}.", fix="`headrace rollouts` lists them.")
    return found[0]


def _rollout_json(rollout: Rollout, now: float) -> dict[str, Any]:
    """A rollout with what its measures say, and while it is under way with what it waits for."""
    fields = noun_json(rollout)
    del fields["tallies"]  # the measures say it
    return {
        **fields,
        "percent": rollout.percent,
        "waits_for": decide(rollout, now).why if rollout.state in OPEN_ROLLOUT else "",
        "measures": [_measure_json(rollout, verdict) for verdict in verdicts(rollout)],
    }


def _measure_json(rollout: Rollout, verdict: Verdict) -> dict[str, Any]:
    tally = rollout.tallies.of(verdict.measure)
    return {
        "measure": verdict.measure,
        "limit": verdict.limit,
        "trials": verdict.trials,
        "bad": verdict.bad,
        "bound": verdict.bound,
        "evidence": _exponential(verdict.log_evidence),
        "threshold": _exponential(verdict.log_threshold),
        "canary": {"count": tally.canary.count, "mean": tally.canary.mean},
        "stable": {"count": tally.stable.count, "mean": tally.stable.mean},
    }


def _exponential(logarithm: float) -> float:
    """A number of evidence; what no float holds is as good as the largest that one does."""
    return math.exp(min(logarithm, 700.0))
