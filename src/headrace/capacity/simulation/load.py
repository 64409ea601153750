"""Who asks a simulated deployment, and when."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence

import msgspec


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """One that asks.

    Attributes:
        requests_per_s: On average, at random (Poisson); ignored where `arrivals` says when.
        lengths: Tokens of prompt and answer; each request is like one of these, at random.
        arrivals: Of each request: seconds since the beginning, tokens of prompt and answer.
        guaranteed: Model units a second that are never refused and go first.
        most: Model units a second that are let in at most; 0: no bound.
    """

    name: str
    requests_per_s: float = 0.0
    lengths: tuple[tuple[int, int], ...] = ((768, 256),)
    arrivals: tuple[tuple[float, int, int], ...] = ()
    guaranteed: float = 0.0
    most: float = 0.0


class Arrival:
    """One request, and what became of it.

    Attributes:
        tenant: Its tenant's place in the list.
        units: What it costs, in seconds of a full replica.
        first_s: Until its first token; 0 before.
        wall_s: Until its last.
        refused: Whether it was not let in.
    """

    __slots__ = ("at", "first_s", "output_tokens", "prompt_tokens", "refused", "tenant", "units", "wall_s")

    def __init__(self, at: float, tenant: int, prompt_tokens: int, output_tokens: int) -> None:
        self.at = at
        self.tenant = tenant
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.units = self.first_s = self.wall_s = 0.0
        self.refused = False

    @property
    def gap_s(self) -> float:
        """Inter-token latency, on average."""
        return (self.wall_s - self.first_s) / max(self.output_tokens - 1, 1)


def arrivals_of(tenants: Sequence[Tenant], seconds: float, seed: int) -> Iterator[Arrival]:
    """All requests in the order of their time; the same for the same seed, and of each tenant whoever else asks."""
    return heapq.merge(
        *(_of_one(tenant, place, seconds, seed) for place, tenant in enumerate(tenants)), key=lambda one: one.at
    )


def _of_one(tenant: Tenant, place: int, seconds: float, seed: int) -> Iterator[Arrival]:
    if tenant.arrivals:
        for at, prompt_tokens, output_tokens in tenant.arrivals:
            if at < seconds:
                yield Arrival(at, place, prompt_tokens, output_tokens)
        return
    chance = random.Random(f"{seed}/{tenant.name}")  # noqa: S311 - arrivals, no secret
    at = 0.0
    while tenant.requests_per_s > 0.0:
        at += chance.expovariate(tenant.requests_per_s)
        if at >= seconds:
            return
        prompt_tokens, output_tokens = chance.choice(tenant.lengths)
        yield Arrival(at, place, prompt_tokens, output_tokens)
