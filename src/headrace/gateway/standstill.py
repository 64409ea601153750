"""Whether replicas work or stand still while they say nothing to us, seen by what their engines count.

A stream that does not begin shows it by its first-byte deadline. A unary answer has its first byte when all of it is
made, which may take minutes; so where a replica owes nothing but such answers, its engine is asked how many tokens it
has made and read (one that embeds makes none). An engine that is busy counts on; one that computes nothing does not,
though it may say that it is healthy. And a stream that waits behind unary answers, or behind what other gateways asked,
waits in a line that moves.
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

_MADE = re.compile(rb"^vllm:(?:generation|prompt)_tokens_total(?:\{[^}\n]*\})? (\S+)$", re.MULTILINE)
_SILENT = -1.0


class _Stand(NamedTuple):
    """What a replica had made, and since when nothing came to it."""

    tokens: float
    since: float


class Standstills:
    """Looks at replicas: notes that they work, and ejects those that stand still; nobody tries them while they do.

    Ejects only where there is another one to go to. Requests that such a replica has wait on: it may still answer them.
    External servers are not looked at, for their metrics are not ours to read.

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
        owing = {
            replica: len(pool.replicas) > 1
            for pool in self._fleet.pools.values()
            for replica in pool.replicas
            if replica.route.external is None and replica.outstanding > replica.answering
        }
        told = await asyncio.gather(*(text_of(replica) for replica in owing))
        now, before, self._stands = self._clock(), self._stands, {}
        for (replica, has_others), text in zip(owing.items(), told, strict=True):
            stand = _stand(replica, text, before.get(replica), now)
            if stand is not None:
                self._stands[replica] = stand
                if has_others and now - stand.since >= self._timeout_s * (1 - 1 / LOOKS):
                    replica.health.stood_still(now)
        for replica, stand in before.items():
            if self._stands.get(replica) != stand:
                replica.health.stands_still = False


def _stand(replica: Replica, text: bytes | None, before: _Stand | None, now: float) -> _Stand | None:
    """Where it stands by what it told, and note if it has made something since; None: it counts nothing.

    Args:
        replica: Which.
        text: What it told; None: nothing, so it has made no more.
        before: Where it stood at the last look; None: nobody looked.
        now: The time.
    """
    tokens = _made(text) if text is not None or before is None else before.tokens
    if tokens is None:
        return None
    if before is not None and _SILENT < before.tokens < tokens:
        replica.health.made_tokens(now)
    if before is None or before.tokens != tokens or replica.health.heard_at > before.since:
        return _Stand(tokens, now)
    return before


def _made(text: bytes | None) -> float | None:
    r"""How many tokens an engine says that it has made and read; silent, it has made no more. None: it counts none.

    >>> _made(b'vllm:generation_tokens_total{model_name="m"} 7.0\n')
    7.0
    """
    if text is None:
        return _SILENT
    counts = _MADE.findall(text)
    return sum(map(float, counts)) if counts else None
