"""Several gateways, spoken to as one: what is decided by their answers takes account of all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from headrace.control.gateway_client import GatewayAway, GatewayClient
from headrace.resources.snapshot import GatewayStatus, RoutingSnapshot

Count = TypeVar("Count", int, float)

_log = logging.getLogger(__name__)

AWAY_TIMEOUT_S = 0.5
"""For one that did not answer the last time, and may hang without having died: the others' news do not wait for it."""


class EveryGateway:
    """A `GatewayClient` of all that serve one port.

    While one of them does not answer, the others' answer has generation 0: nobody knows what that one routes by, so
    nothing is stopped; who waits at the others is known, and woken for.

    Args:
        gateways: Each of them, in the order of their numbers.
    """

    def __init__(self, gateways: Sequence[GatewayClient]) -> None:
        self._gateways = gateways
        self._newest = 0
        self._away: Mapping[int, GatewayAway] = {}

    async def push(self, snapshot: RoutingSnapshot) -> GatewayStatus:
        """As `GatewayClient.push`, to those that route by another one."""
        self._newest = snapshot.generation
        return await self._ask(lambda gateway: _bring(gateway, snapshot))

    async def status(self) -> GatewayStatus:
        """As `GatewayClient.status`."""
        return await self._ask(lambda gateway: gateway.status())

    async def _ask(self, question: Callable[[GatewayClient], Awaitable[GatewayStatus]]) -> GatewayStatus:
        told = await asyncio.gather(
            *(
                _answer(question(gateway), AWAY_TIMEOUT_S if number in self._away else None)
                for number, gateway in enumerate(self._gateways)
            )
        )
        away = {number: answer for number, answer in enumerate(told) if isinstance(answer, GatewayAway)}
        for number in away.keys() - self._away.keys():
            _log.warning("Gateway %d is away: %s", number, away[number])
        self._away = away
        heard = [answer for answer in told if isinstance(answer, GatewayStatus)]
        if not heard:
            raise away[0]
        return self._merged(heard)

    def _merged(self, heard: Sequence[GatewayStatus]) -> GatewayStatus:
        generations = [one.generation for one in heard]
        generation = 0 if self._away else min(generations)
        if max(generations) > self._newest:  # it knows a store that was set back
            generation = max(generations)
        idle = [one.idle_s for one in heard]
        return GatewayStatus(
            generation=generation,
            outstanding=_total(one.outstanding for one in heard),
            waiting=_total(one.waiting for one in heard),
            per_minute=_total(one.per_minute for one in heard),
            work_per_minute=_total(one.work_per_minute for one in heard),
            work_waiting=_total(one.work_waiting for one in heard),
            idle_s={key: min(each[key] for each in idle) for key in idle[0] if all(key in each for each in idle)},
        )


async def _answer(answering: Awaitable[GatewayStatus], timeout_s: float | None) -> GatewayStatus | GatewayAway:
    try:
        async with asyncio.timeout(timeout_s):
            return await answering
    except GatewayAway as away:
        return away
    except TimeoutError:
        return GatewayAway(f"It did not answer within {timeout_s} s.")


async def _bring(gateway: GatewayClient, snapshot: RoutingSnapshot) -> GatewayStatus:
    """Push, if it routes by another one: a push is written to disk."""
    status = await gateway.status()
    return status if status.generation == snapshot.generation else await gateway.push(snapshot)


def _total(counts: Iterable[Mapping[str, Count]]) -> dict[str, Count]:
    sums: dict[str, Count] = {}
    for each in counts:
        for key, count in each.items():
            sums[key] = sums[key] + count if key in sums else count
    return sums
