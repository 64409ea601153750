"""Keeps the gateway on the newest snapshot, whoever of the two was restarted, and knows what it has under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Set

from headrace.control.gateway_client import GatewayAway, GatewayClient
from headrace.control.routing import routed_models, routed_replicas
from headrace.resources.snapshot import GatewayStatus, RoutingSnapshot

_log = logging.getLogger(__name__)

ASK_EVERY_S = 2.0
ASK_IN_HASTE_EVERY_S = 0.25
"""While something drains, which then ends that much later than its last request; while something sleeps, which then
wakes that much later than its first; and while a gateway is away, or routes by another snapshot."""


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
        self._news = asyncio.Event()
        self._draining = False
        self._asleep: Set[str] = frozenset()
        self._sleepy: Mapping[str, float] = {}

    @property
    def routed(self) -> frozenset[str] | None:
        """The replicas that the gateway may still send to; None while that is not known."""
        return None if (known := self._known) is None else routed_replicas(known)

    @property
    def bound(self) -> frozenset[str] | None:
        """The deployed models that the gateway routes to; None while that is not known."""
        return None if (known := self._known) is None else routed_models(known)

    @property
    def _known(self) -> RoutingSnapshot | None:
        """The newest snapshot, if it is what the gateway routes by."""
        snapshot, status = self._snapshot, self._status
        return snapshot if snapshot and status and status.generation == snapshot.generation else None

    @property
    def outstanding(self) -> dict[str, int]:
        """Requests under way by replica, as last heard."""
        return self._status.outstanding if self._status else {}

    @property
    def waiting(self) -> dict[str, int]:
        """Requests in line by deployment, as last heard."""
        return self._status.waiting if self._status else {}

    @property
    def idle_s(self) -> dict[str, float]:
        """For how long nobody has asked, by deployment, as last heard."""
        return self._status.idle_s if self._status else {}

    @property
    def per_minute(self) -> dict[str, int]:
        """Requests that came within a minute by deployment, as last heard."""
        return self._status.per_minute if self._status else {}

    @property
    def work_per_minute(self) -> dict[str, float]:
        """Model units that were admitted within a minute by deployment, as last heard."""
        return self._status.work_per_minute if self._status else {}

    @property
    def work_waiting(self) -> dict[str, float]:
        """Model units in line by deployment, as last heard."""
        return self._status.work_waiting if self._status else {}

    @property
    def hears(self) -> bool:
        """Whether the gateway, or each of them, answered last."""
        return self.generation > 0

    @property
    def generation(self) -> int:
        """What the gateway last said that it routes by; 0 before it said anything."""
        return self._status.generation if self._status else 0

    def offer(self, snapshot: RoutingSnapshot) -> None:
        """Have this one pushed now."""
        self._snapshot = snapshot
        self._news.set()

    def watch(self, *, draining: bool, asleep: Set[str], sleepy: Mapping[str, float]) -> None:
        """Say what waits for the gateway's answers, and so how often it is asked.

        Args:
            draining: Whether something drains.
            asleep: Deployments that sleep until a request comes.
            sleepy: Deployments that go to sleep, with the seconds that nobody must have asked.
        """
        hurried = self._hurries
        self._draining, self._asleep, self._sleepy = draining, asleep, sleepy
        if self._hurries and not hurried:
            self._news.set()  # else the pause that has begun would be a long one

    @property
    def _hurries(self) -> bool:
        return self._draining or bool(self._asleep)

    async def run(self) -> None:
        """Push and ask, until cancelled."""
        while True:
            self._news.clear()
            await self.exchange()
            pause_s = ASK_IN_HASTE_EVERY_S if self._hurries or self.routed is None else ASK_EVERY_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._news.wait()
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
        if self._draining or self.generation != (before.generation if before else 0) or self._sleep_ends_or_begins():
            self._changed()

    def _sleep_ends_or_begins(self) -> bool:
        tired = any(self.idle_s.get(one, 0.0) >= after_s for one, after_s in self._sleepy.items())
        return tired or not self._asleep.isdisjoint(self.waiting)
