"""Keeps the gateway on the newest snapshot, whoever of the two was restarted, and knows what it has under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from headrace.control.gateway_client import GatewayAway, GatewayClient
from headrace.control.routing import routed_replicas
from headrace.resources.snapshot import GatewayStatus, RoutingSnapshot

_log = logging.getLogger(__name__)

ASK_EVERY_S = 2.0
ASK_IN_HASTE_EVERY_S = 0.25
"""While something drains, which then ends that much later than its last request, and while the gateway is away."""


class GatewayLink:
    """The newest snapshot, and the way it gets to the gateway.

    Args:
        client: The gateway.
        changed: Is called when the gateway's answer says something that a decision may hang on.
    """

    def __init__(self, client: GatewayClient, changed: Callable[[], None]) -> None:
        self._client = client
        self._changed = changed
        self._snapshot: RoutingSnapshot | None = None
        self._status: GatewayStatus | None = None
        self._offered = asyncio.Event()
        self.draining = False

    @property
    def routed(self) -> frozenset[str] | None:
        """The replicas that the gateway may still send to; None while that is not known."""
        if self._snapshot is None or self._status is None or self._status.generation != self._snapshot.generation:
            return None
        return routed_replicas(self._snapshot)

    @property
    def outstanding(self) -> dict[str, int]:
        """Requests under way by replica, as last heard."""
        return self._status.outstanding if self._status else {}

    @property
    def generation(self) -> int:
        """What the gateway last said that it routes by; 0 before it said anything."""
        return self._status.generation if self._status else 0

    def offer(self, snapshot: RoutingSnapshot) -> None:
        """Have this one pushed now."""
        self._snapshot = snapshot
        self._offered.set()

    async def run(self) -> None:
        """Push and ask, until cancelled."""
        while True:
            self._offered.clear()
            await self.exchange()
            pause_s = ASK_IN_HASTE_EVERY_S if self.draining or self._status is None else ASK_EVERY_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._offered.wait()
            except TimeoutError:
                continue

    async def exchange(self) -> None:
        """Push the snapshot if the gateway has another; else ask how it is doing."""
        snapshot, before = self._snapshot, self._status
        if snapshot is None:
            return
        try:
            known = before is not None and before.generation == snapshot.generation
            self._status = await (self._client.status() if known else self._client.push(snapshot))
            if known and self._status.generation != snapshot.generation:
                self._status = await self._client.push(snapshot)  # it was restarted
        except GatewayAway as error:
            if before is not None:
                _log.warning("The gateway is away: %s", error)
            self._status = None
        if self.draining or self.generation != (before.generation if before else 0):
            self._changed()
