"""Everything that follows the newest snapshot, exchanged in one step."""

from __future__ import annotations

from headrace.gateway.budgets import Budgets
from headrace.gateway.fleet import Fleet, total
from headrace.gateway.handover import Handover
from headrace.gateway.returning import Returning
from headrace.gateway.routing_table import RoutingTable
from headrace.gateway.running import RunningRequests
from headrace.gateway.throughputs import Throughputs
from headrace.resources.errors import StaleWrite
from headrace.resources.snapshot import GatewayStatus, RoutingSnapshot


class Routing:
    """The table of names and keys, the fleet behind it and the requests under way: always of the same snapshot.

    Args:
        connect_timeout_s: To reach an engine.
        handover: Tells what gateways that drain still carry.
        budgets: What keys may use, and deployed models that were sold a throughput.
    """

    def __init__(self, *, connect_timeout_s: float, handover: Handover, budgets: Budgets) -> None:
        self._handover = handover
        self._returning = Returning()
        self.budgets = budgets
        self.table = RoutingTable(RoutingSnapshot(generation=0))
        self.fleet = Fleet(connect_timeout_s=connect_timeout_s)
        self.running = RunningRequests()
        self.throughputs = Throughputs(budgets)

    @property
    def generation(self) -> int:
        """Of the snapshot; 0 before the first one."""
        return self.table.snapshot.generation

    @property
    def carried(self) -> GatewayStatus:
        """What this gateway has under way."""
        fleet = self.fleet
        return GatewayStatus(
            generation=self.generation,
            outstanding=fleet.outstanding(),
            waiting=fleet.waiting(),
            work_waiting=self.throughputs.waiting(),
        )

    @property
    def status(self) -> GatewayStatus:
        """What control wants to know: what is under way here, and at gateways that drain."""
        every = [self.carried, *self._handover.others()]
        outstanding, waiting = total(one.outstanding for one in every), total(one.waiting for one in every)
        self.fleet.busy(outstanding, waiting)
        return GatewayStatus(
            generation=self.generation,
            outstanding=outstanding,
            waiting=waiting,
            idle_s=self.fleet.idle_s(),
            per_minute=self.fleet.per_minute(),
            work_per_minute=self.throughputs.per_minute(),
            work_waiting=total(one.work_waiting for one in every),
        )

    def resume(self, kept: RoutingSnapshot) -> None:
        """Begin with what was kept on disk; engines in it that are gone are waited for (`Returning`)."""
        self._returning = Returning(kept)
        self.follow(kept)

    def follow(self, snapshot: RoutingSnapshot) -> None:
        """Route by this snapshot from now on, and end what runs for keys that are not in it.

        Raises:
            StaleWrite: It is older than the one in use.
        """
        if snapshot.generation < self.generation:
            raise StaleWrite(
                "The routing snapshot is older than the one in use.",
                evidence=f"It is generation {snapshot.generation}; the gateway routes by {self.generation}.",
                fix="Push the newest one.",
            )
        snapshot = self._returning.amended(snapshot)
        table = RoutingTable(snapshot, self.table)
        self.fleet.follow(snapshot)
        self.table = table
        self.throughputs.follow(snapshot)
        self.running.keep_only({key.principal.key_id for key in snapshot.keys})
