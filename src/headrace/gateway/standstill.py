"""Replicas that make nothing though they were asked to, seen by what their engines count.

A stream that does not begin shows it by its first-byte deadline. A unary answer has its first byte when all of it is
made, which may take minutes; so where a replica owes nothing but such answers, its engine is asked how many tokens it
has made. An engine that is busy counts on; one that computes nothing does not, though it may say that it is healthy.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from headrace.gateway.engine_metrics import text_of
from headrace.gateway.fleet import Fleet, Replica

LOOKS = 8
"""So many times within the deadline each replica is looked at, and in all but the first it has to have made nothing."""

_MADE = re.compile(rb"^vllm:generation_tokens_total(?:\{[^}\n]*\})? (\S+)$", re.MULTILINE)
_SILENT = -1.0


class _Stand(NamedTuple):
    """What a replica had made, and since when nothing came to it."""

    tokens: float
    since: float


class Standstills:
    """Looks for replicas that stand still, and ejects them; nobody tries them while they do.

    Only where there is another one to go to, and not at external servers, whose metrics are not ours to read. Requests
    that such a replica has wait on: it may still answer them.

    Args:
        fleet: Whose replicas.
        timeout_s: How long a stream's first byte may take; that long after a request came it is noticed.
        clock: The fleet's.
    """

    def __init__(self, fleet: Fleet, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._fleet = fleet
        self._timeout_s = timeout_s
        self._clock = clock
        self._stands: dict[Replica, _Stand] = {}

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._timeout_s / LOOKS)
            await self.look()

    async def look(self) -> None:
        """Look once at each replica that owes an answer."""
        owing = [replica for replica in self._replicas() if replica.outstanding > replica.answering]
        told = await asyncio.gather(*(text_of(replica) for replica in owing))
        now, before, self._stands = self._clock(), self._stands, {}
        for replica, text in zip(owing, told, strict=True):
            tokens = _made(text)
            if tokens is None:
                continue
            stand = before.get(replica)
            if stand is None or stand.tokens != tokens or replica.health.heard_at > stand.since:
                stand = _Stand(tokens, now)
            self._stands[replica] = stand
            if now - stand.since >= self._timeout_s * (1 - 1 / LOOKS):
                replica.health.stood_still(now)
        for replica, stand in before.items():
            if self._stands.get(replica) != stand:
                replica.health.stands_still = False

    def _replicas(self) -> list[Replica]:
        pools = [pool for pool in self._fleet.pools.values() if len(pool.replicas) > 1]
        return [replica for pool in pools for replica in pool.replicas if replica.route.external is None]


def _made(text: bytes | None) -> float | None:
    r"""How many tokens an engine says that it has made; one that says nothing has made no more. None: it counts none.

    >>> _made(b'vllm:generation_tokens_total{model_name="m"} 7.0\n')
    7.0
    """
    if text is None:
        return _SILENT
    counts = _MADE.findall(text)
    return sum(map(float, counts)) if counts else None
