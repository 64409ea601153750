"""Several gateways, heard as one."""

from __future__ import annotations

import asyncio

from headrace.control.every_gateway import EveryGateway
from headrace.resources.snapshot import GatewayStatus, RoutingSnapshot


class Gateway:
    """One that says this."""

    def __init__(self, status: GatewayStatus) -> None:
        self._status = status

    async def push(self, snapshot: RoutingSnapshot) -> GatewayStatus:
        """What it says."""
        return self._status

    async def status(self) -> GatewayStatus:
        """What it says."""
        return self._status


def test_work_is_added_up() -> None:
    """What was admitted and what stands in line, of all of them, by deployment."""
    first = GatewayStatus(generation=1, work_per_minute={"a": 1.5, "b": 2.0}, work_waiting={"a": 0.25})
    second = GatewayStatus(generation=1, work_per_minute={"a": 0.5}, work_waiting={"b": 4.0})
    both = asyncio.run(EveryGateway([Gateway(first), Gateway(second)]).status())
    assert both.work_per_minute == {"a": 2.0, "b": 2.0}
    assert both.work_waiting == {"a": 0.25, "b": 4.0}
