"""Replicas that ended and are being replaced: who asks meanwhile waits, and loses some seconds instead of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from headrace.resources.snapshot import DeployedRoute


class Replacement:
    """Whether replicas come back to a pool that has none, and those who wait for a change of its replicas.

    Who comes within the first `DeployedRoute.max_wait_s` is let in or kept in line for so long; whoever comes later is
    told at once that there is none: what is away for longer than that may be away for hours.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._empty_at: float | None = None
        self._returns = False
        self._lasts_s = 0.0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def left_s(self) -> float:
        """For how much longer a replica is expected; 0: there are some, or none is to come."""
        if self._empty_at is None or not self._returns:
            return 0.0
        return max(self._empty_at + self._lasts_s - self._clock(), 0.0)

    def follow(self, deployed: DeployedRoute | None, *, there: bool) -> None:
        """Take what a newer snapshot says.

        Args:
            deployed: Of the deployment; None: it is not in it.
            there: Whether it has a replica.
        """
        if there:
            self._empty_at = None
        elif self._empty_at is None:
            self._empty_at = self._clock()
        self._returns = deployed is not None and deployed.returns
        self._lasts_s = 0.0 if deployed is None else deployed.max_wait_s
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def change(self, within_s: float) -> None:
        """Wait until the pool's replicas may be others, at most so long."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await waiter
        finally:
            self._waiters.discard(waiter)
