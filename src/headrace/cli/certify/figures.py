"""What a certificate says, from what was seen of each request: arithmetic alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.resources.profiles import Carried

PROMISE = 0.99
"""Of the offered work, what has to be answered within the latencies."""

ENOUGH = 100
"""Requests of which one may be late. Of fewer a single one decides."""

MOST_OWN_CPU = 0.3
"""Of a core, what the load itself may take: more, and what was measured is as much the load as the server."""


class Asked(msgspec.Struct, kw_only=True):
    """One request.

    Attributes:
        at_s: When it was sent, since the beginning.
        prompt_tokens: As the server counted them; as they were meant, where it did not come to that.
        output_tokens: Asked for, and so written where it was answered.
        first_s: Until the first piece of the answer; 0 without one.
        gaps_s: Between the pieces.
        wall_s: Until its end.
        code: Why there was no whole answer; empty for one that was.
    """

    at_s: float
    prompt_tokens: int
    output_tokens: int
    first_s: float = 0.0
    gaps_s: list[float] = []
    wall_s: float = 0.0
    code: str = ""

    @property
    def gap_s(self) -> float:
        """Inter-token latency, on average: what lies between its first piece and its end, by token."""
        return (self.wall_s - self.first_s) / max(self.output_tokens - 1, 1)

    def kept(self, first_s: float, gap_s: float) -> bool:
        """Whether it was answered whole and within the latencies."""
        return not self.code and self.first_s <= first_s and self.gap_s <= gap_s


class Quantiles(msgspec.Struct, frozen=True):
    """Of a latency, in seconds."""

    p50: float
    p95: float
    p99: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant's.

    Attributes:
        asked: Requests.
        answered: Of them whole.
        attained_tokens_per_s: Read and written for requests that were answered.
        offered_tokens_per_s: Of all that were sent.
        attainment: Of the offered work, the share that was answered within the latencies; in model units.
        refusals: Requests without a whole answer, by their error's code.
        streamed: Whether the answers were: of others no latency can be told, nor whether one was kept. All of these are
            0 then.
    """

    asked: int
    answered: int
    attained_tokens_per_s: float
    offered_tokens_per_s: float
    attainment: float
    first: Quantiles
    gap: Quantiles
    refusals: dict[str, int]
    streamed: bool = True


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """What was promised, what was seen, and whether it was kept.

    Attributes:
        endpoint: Its name.
        at: When it began, in Unix seconds.
        seconds: For how long requests were sent.
        rate_tokens_per_s: The load.
        guaranteed_tokens_per_s: What was sold; 0: it was not, and the rate is somebody's choice.
        first_s: Time to first token that is promised.
        gap_s: Inter-token latency that is promised.
        tenant: The compliant one.
        flood: The other one; None: nobody flooded.
        work_error: Of the cost model: by how much all answered work is more than the replicas had time for, as a share;
            None where they were not kept busy, so that nothing could be told.
        own_cpu: Cores that the load itself took.
        wake_s: What the first request waited because the deployment slept, for nothing was guaranteed; 0: it did not.
        interrupted: Whether it was ended before its time.
    """

    endpoint: str
    at: float
    seconds: float
    rate_tokens_per_s: float
    guaranteed_tokens_per_s: int
    first_s: float
    gap_s: float
    tenant: Figures
    flood: Figures | None = None
    work_error: float | None = None
    own_cpu: float = 0.0
    wake_s: float = 0.0
    interrupted: bool = False

    @property
    def counts(self) -> bool:
        """Whether it says anything: something was asked, and the load was not in its own way."""
        return self.tenant.asked > 0 and self.own_cpu < MOST_OWN_CPU

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        return self.counts and self.tenant.attainment >= PROMISE

    @property
    def verdict(self) -> str:
        """For a person."""
        if not self.tenant.asked:
            return "Nothing was asked."
        if not self.counts:
            return (
                f"This does not count: the load itself took {self.own_cpu:.0%} of a core, more than {MOST_OWN_CPU:.0%}."
            )
        share = f"{self.tenant.attainment:.1%} of the offered work was answered within the latencies"
        return f"{'Kept' if self.kept else 'Not kept'}: {share}, {PROMISE:.0%} are promised.{self._few}"

    @property
    def _few(self) -> str:
        """How long it would have to be for its share to say much; empty where it was."""
        asked = self.tenant.asked
        if asked >= ENOUGH:
            return ""
        minutes = math.ceil(ENOUGH / asked * self.seconds / 60)
        return f" That is of {asked} asked, few for such a share: at this rate {ENOUGH} take some {minutes:,} minutes."


def figures(
    asked: Sequence[Asked], seconds: float, carried: Carried, *, first_s: float, gap_s: float, streamed: bool = True
) -> Figures:
    """One tenant's figures.

    Args:
        asked: Its requests.
        seconds: For how long they were sent.
        carried: What a replica carries, for what a request weighs.
        first_s: Time to first token that is promised.
        gap_s: Inter-token latency that is promised.
        streamed: Whether the answers were.
    """
    answered = [one for one in asked if not one.code]
    offered = sum(carried.units(one.prompt_tokens, one.output_tokens) for one in asked)
    timed = asked if streamed else ()
    within = sum(carried.units(one.prompt_tokens, one.output_tokens) for one in timed if one.kept(first_s, gap_s))
    return Figures(
        asked=len(asked),
        answered=len(answered),
        attained_tokens_per_s=_tokens(answered) / seconds if seconds else 0.0,
        offered_tokens_per_s=_tokens(asked) / seconds if seconds else 0.0,
        attainment=within / offered if offered else 0.0,
        first=quantiles([one.first_s for one in timed if not one.code]),
        gap=quantiles([gap for one in answered for gap in one.gaps_s]),
        refusals=dict(Counter(one.code for one in asked if one.code)),
        streamed=streamed,
    )


def work_error(asked: Sequence[Asked], carried: Carried, *, seconds: float, replicas: int) -> float:
    """By how much the work of what was answered differs from the time that busy replicas had, as a share of that."""
    done = sum(carried.units(one.prompt_tokens, one.output_tokens) for one in asked if not one.code)
    return done / (seconds * replicas) - 1.0


def quantiles(values: Sequence[float]) -> Quantiles:
    """The nearest ranks; 0 of nothing."""
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0

    return Quantiles(at(0.5), at(0.95), at(0.99))


def document(certificate: Certificate) -> dict[str, Any]:
    """As JSON has it, with the verdict."""
    found: dict[str, Any] = msgspec.to_builtins(certificate)
    return found | {"kept": certificate.kept, "counts": certificate.counts, "verdict": certificate.verdict}


def _tokens(asked: Sequence[Asked]) -> int:
    return sum(one.prompt_tokens + one.output_tokens for one in asked)
