"""Places at a deployment's replicas that are kept for tenants with a guarantee, so that theirs begin at once.

What decides the latencies of an engine that batches continuously is how many sequences are in a step. A deployment with
guarantees runs as many as its replicas carry within their latencies (`Carried.concurrency`), not as many as their
engines take. Of these, by Little's law, a tenant that uses all of its guarantee has ``guaranteed × concurrency`` on
average; and where requests come at random, nearly never more than three square roots of that above it, or five while
others run too, for then its own take longer.

* A guaranteed request begins at once while its tenant runs no more than that, whoever else runs: for the time that
  others need to end there may be a few sequences more than the replicas carry.
* While tenants are there, the next one of the others begins once the prompts before it are read, as far as the cost
  tells: an engine that gets many prompts at once would keep a guaranteed one waiting for all of them.
* Others fill what is left beside the places that tenants have used lately, at most their average. A tenant that is
  away keeps nobody out. While it is there, a place that is free for a moment costs the others little: the fewer
  sequences are in a step, the sooner it is over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping

from headrace.resources.snapshot import MOST_RUNNING, ProvisionRoute

SPREAD = 5.0
"""Square roots of the average above it: of Poisson's distribution 99.7 % lie below three. By simulation of a flood,
with three a fiftieth of a tenant's work waited for its own to end, with five none; beyond that nothing changes."""

REMEMBERED_S = 5.0
"""For how long a tenant's places are kept after it had them, at least; at most for twice as long."""

_ROUNDING = 1e-9
"""What sums of fractions are off: four quarters of a replica are one."""


def places_of(max_running: int, sold: Collection[ProvisionRoute]) -> int:
    """Requests that one replica gets at a time.

    Args:
        max_running: As its engine has it: of `MOST_RUNNING`, this gateway's share.
        sold: What the deployment's deployed models were sold.
    """
    if not sold:
        return max_running
    carried = min(each.carried.concurrency for each in sold)
    return max(1, min(max_running, round(carried * max_running / MOST_RUNNING)))


class _Tenant:
    __slots__ = ("before", "lately", "mean", "running")

    def __init__(self) -> None:
        self.mean = 0.0
        self.running = self.lately = self.before = 0


class KeptPlaces:
    """Who runs of each tenant, and how many places are kept for it.

    Args:
        clock: Seconds that never go back.

    Attributes:
        running: Guaranteed requests that run, of all tenants.
        sold: Whether anybody has a guarantee.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}
        self._turned_at = clock()
        self._kept = 0.0
        self._reading_s: Callable[[int], float] = _at_once
        self._read_at = 0.0
        self.running = 0
        self.sold = False

    def __len__(self) -> int:
        return len(self._tenants)

    def follow(self, means: Mapping[str, float], most: int, reading_s: Callable[[int], float] | None = None) -> None:
        """Keep places for these tenants from now on.

        Args:
            means: How many each runs on average if it uses all of its guarantee.
            most: Places that there are. If replicas are missing, each tenant has as many fewer.
            reading_s: How long all replicas together take to read a prompt of so many tokens; None: no time.
        """
        self.sold = bool(means)
        self._reading_s = reading_s or _at_once
        there = min(1.0, most / total) if (total := sum(means.values())) else 0.0
        for name in means.keys() - self._tenants.keys():
            self._tenants[name] = _Tenant()
        for name, tenant in list(self._tenants.items()):
            tenant.mean = means.get(name, 0.0) * there
            self._forget(name, tenant, gone=name not in means)
        self._kept = sum(map(_kept_for, self._tenants.values()))

    def is_free(self, name: str) -> bool:
        """Whether one more request of a tenant may begin although no place is free."""
        tenant = self._tenants.get(name)
        return tenant is not None and tenant.running < own_places(tenant.mean)

    def read(self, prompt_tokens: int) -> None:
        """A request begins, of whomever: its prompt is read after those before it."""
        self._read_at = max(self._read_at, self._clock()) + self._reading_s(prompt_tokens)

    def reading_s(self) -> float:
        """How long others have to wait before prompts are read; 0 while nobody is there whom that would hold up."""
        return max(self._read_at - self._clock(), 0.0) if self.kept() else 0.0

    def enter(self, name: str) -> None:
        """A guaranteed request begins."""
        self._turn()
        tenant = self._tenants.setdefault(name, _Tenant())
        tenant.running += 1
        self.running += 1
        if tenant.running > tenant.lately:
            before, tenant.lately = _kept_for(tenant), tenant.running
            self._kept += _kept_for(tenant) - before

    def leave(self, name: str) -> None:
        """It is over."""
        self._turn()
        tenant = self._tenants[name]
        tenant.running -= 1
        self.running -= 1
        self._forget(name, tenant, gone=not tenant.mean)

    def kept(self) -> int:
        """Places that others may not have now, taken or not."""
        self._turn()
        return math.ceil(self._kept - _ROUNDING)

    def _turn(self) -> None:
        """Forget how many ran long ago."""
        now = self._clock()
        passed = now - self._turned_at
        if passed < REMEMBERED_S:
            return
        for tenant in self._tenants.values():
            tenant.before = tenant.lately if passed < 2 * REMEMBERED_S else tenant.running
            tenant.lately = tenant.running
        self._kept = sum(map(_kept_for, self._tenants.values()))
        self._turned_at = now

    def _forget(self, name: str, tenant: _Tenant, *, gone: bool) -> None:
        if gone and not tenant.running:
            del self._tenants[name]


def _at_once(_: int) -> float:
    return 0.0


def own_places(mean: float) -> int:
    """How many requests of a tenant begin at once, whoever else runs."""
    return math.ceil(mean + SPREAD * math.sqrt(mean)) if mean else 0


def _kept_for(tenant: _Tenant) -> float:
    """One place more than it had lately, so that it finds one."""
    most = max(tenant.lately, tenant.before)
    return min(tenant.mean, most + 1.0) if most else 0.0
