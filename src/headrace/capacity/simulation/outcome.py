"""What came of a simulation."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.capacity.simulation.load import Arrival, Tenant


class TenantOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant's.

    Attributes:
        asked: Requests.
        answered: Of them to their last token.
        refused: Not let in.
        attainment: Of the offered work, what was answered within the latencies; 1 where nothing was offered.
        first_p50_s: Time to first token; so the two that follow.
        gap_p99_s: Inter-token latency, of requests' means.
        work_per_s: Model units a second that were answered.
    """

    name: str
    asked: int
    answered: int
    refused: int
    attainment: float
    first_p50_s: float
    first_p95_s: float
    first_p99_s: float
    gap_p99_s: float
    work_per_s: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        replica_hours: That replicas were there, from their start on.
        utilisation: Of that time, for how much they computed.
        most_replicas: At once.
        changes: How often their number changed.
        unfinished: Requests that were under way or in line at the end.
    """

    tenants: tuple[TenantOutcome, ...]
    replica_hours: float
    utilisation: float
    most_replicas: int
    changes: int
    unfinished: int


def told(tenant: Tenant, asked: Sequence[Arrival], seconds: float, *, first_s: float, gap_s: float) -> TenantOutcome:
    """One tenant's outcome.

    Args:
        tenant: Who.
        asked: Its requests.
        seconds: For how long it asked.
        first_s: Time to first token that is to be kept.
        gap_s: Inter-token latency that is to be kept.
    """
    answered = [one for one in asked if one.wall_s]
    offered = sum(one.units for one in asked)
    within = sum(one.units for one in answered if one.first_s <= first_s and one.gap_s <= gap_s)
    firsts = sorted(one.first_s for one in answered)
    gaps = sorted(one.gap_s for one in answered)
    return TenantOutcome(
        name=tenant.name,
        asked=len(asked),
        answered=len(answered),
        refused=sum(one.refused for one in asked),
        attainment=within / offered if offered else 1.0,
        first_p50_s=_at(firsts, 0.5),
        first_p95_s=_at(firsts, 0.95),
        first_p99_s=_at(firsts, 0.99),
        gap_p99_s=_at(gaps, 0.99),
        work_per_s=sum(one.units for one in answered) / seconds if seconds else 0.0,
    )


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
