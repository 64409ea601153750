"""From requests that gateways wrote down to the tallies of the rollouts that watch them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.resources.rollouts import Measure, Rollout, RolloutBounds, Tallies, Tally
from headrace.resources.states import OPEN_ROLLOUT
from headrace.resources.usage import Service, UsageRecord
from headrace.store import Transaction


def count_requests(tx: Transaction, records: Sequence[UsageRecord]) -> bool:
    """Add requests to the tallies of the rollouts that are under way; returns whether any was one's.

    In the transaction that takes the requests in, so that each counts once, whoever is killed.
    """
    watched = [record for record in records if record.service is not None]
    counted = False
    for rollout in tx.list(Rollout, state=OPEN_ROLLOUT) if watched else []:
        tallies = rollout.tallies
        for record in watched:
            if _is_of(record, rollout) and record.service is not None:
                canary = record.deployed_model_id == rollout.deployed_model_id
                tallies = tallied(tallies, record.service, rollout.plan.bounds, canary=canary)
        if tallies != rollout.tallies:
            tx.update(msgspec.structs.replace(rollout, tallies=tallies))
            counted = True
    return counted


def tallied(tallies: Tallies, service: Service, bounds: RolloutBounds, *, canary: bool) -> Tallies:
    """The tallies with one request more, of the canary or of what was there before it."""
    return Tallies(
        errors=_with_failure(tallies.errors, failed=service.failed, canary=canary),
        first_token=_with_latency(
            tallies.first_token,
            service.first_token_s,
            bounds.limit_s(Measure.FIRST_TOKEN),
            bounds.times_stable,
            canary=canary,
            at_least=service.abandoned,
        ),
        inter_token=_with_latency(
            tallies.inter_token,
            service.inter_token_s,
            bounds.limit_s(Measure.INTER_TOKEN),
            bounds.times_stable,
            canary=canary,
        ),
    )


def _is_of(record: UsageRecord, rollout: Rollout) -> bool:
    """Whether it is a request of this rollout's stage; what was over before that tells of another share of traffic."""
    where = (rollout.scope.project, rollout.scope.location, rollout.endpoint_id)
    return (record.project, record.location, record.endpoint_id) == where and record.at >= rollout.stage_began_at


def _with_failure(tally: Tally, *, failed: bool, canary: bool) -> Tally:
    if not canary:
        return msgspec.structs.replace(tally, stable=tally.stable.with_one(failed))
    return msgspec.structs.replace(
        tally, trials=tally.trials + 1, bad=tally.bad + failed, canary=tally.canary.with_one(failed)
    )


def _with_latency(
    tally: Tally, latency_s: float | None, limit_s: float | None, times: float, *, canary: bool, at_least: bool = False
) -> Tally:
    """With one latency more, where there is one.

    A latency that is only known to be at least so much is taken for so much: as one of the canary's that makes it out
    of its limit no more often than it is. One of the stable model's would make too strict a limit, and is left out.
    """
    if latency_s is None or (at_least and not canary):
        return tally
    if not canary:
        return msgspec.structs.replace(tally, stable=tally.stable.with_one(latency_s), unpaired_s=latency_s)
    seen = msgspec.structs.replace(tally, canary=tally.canary.with_one(latency_s))
    if limit_s is None:
        if tally.unpaired_s is None:
            return seen
        limit_s, seen = times * tally.unpaired_s, msgspec.structs.replace(seen, unpaired_s=None)
    return msgspec.structs.replace(seen, trials=seen.trials + 1, bad=seen.bad + (latency_s > limit_s))
