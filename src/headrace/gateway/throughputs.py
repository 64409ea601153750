"""The throughputs of all deployed models that were sold one, kept while snapshots come and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from headrace.gateway.budget import Budget
from headrace.gateway.budgets import Budgets
from headrace.gateway.fleet import total
from headrace.gateway.throughput import Throughput
from headrace.resources.snapshot import DeployedRoute, EndpointRoute, RoutingSnapshot
from headrace.resources.work import MICROS, tenant_of, work_limits


class Throughputs:
    """By tenant. Their limits are counted, shared among gateways and handed over with those of keys.

    Args:
        budgets: Which count them.
        clock: Seconds that never go back.
    """

    def __init__(self, budgets: Budgets, clock: Callable[[], float] = time.monotonic) -> None:
        self._budgets = budgets
        self._clock = clock
        self._throughputs: dict[str, Throughput] = {}

    def __len__(self) -> int:
        return len(self._throughputs)

    def __iter__(self) -> Iterator[Throughput]:
        return iter(self._throughputs.values())

    def follow(self, snapshot: RoutingSnapshot) -> None:
        """Become what a newer snapshot says; what was used counts on."""
        before, self._throughputs = self._throughputs, {}
        for endpoint in snapshot.endpoints:
            for deployed in endpoint.deployed:
                if deployed.provision is not None:
                    tenant = tenant_of(endpoint, deployed)
                    self._throughputs[tenant] = self._followed(before.get(tenant), tenant, endpoint, deployed)
        self._budgets.follow(snapshot.keys, work_limits(snapshot.endpoints), endpoints=snapshot.endpoints)

    def of(self, endpoint: EndpointRoute, deployed: DeployedRoute) -> tuple[Throughput, Budget] | None:
        """A deployed model's throughput, and where it is counted; None if the newest snapshot has sold it none."""
        if deployed.provision is None:
            return None
        tenant = tenant_of(endpoint, deployed)
        throughput, budget = self._throughputs.get(tenant), self._budgets.of(tenant)
        return None if throughput is None or budget is None else (throughput, budget)

    def budget_of(self, throughput: Throughput) -> Budget | None:
        """Where a throughput is counted."""
        return self._budgets.of(throughput.tenant)

    def per_minute(self) -> dict[str, float]:
        """Model units that came within the last minute, as far as they were sold, by deployment id."""
        return total({each.deployment_id: each.per_minute() / MICROS} for each in self)

    def waiting(self) -> dict[str, float]:
        """Model units of what waits for a turn, by deployment id; deployments without any are left out."""
        return total({each.deployment_id: each.waiting / MICROS} for each in self if each.waiting)

    def _followed(
        self, throughput: Throughput | None, tenant: str, endpoint: EndpointRoute, deployed: DeployedRoute
    ) -> Throughput:
        assert deployed.provision is not None
        if throughput is None:
            name = endpoint.display_name or deployed.model_display_name or endpoint.id
            throughput = Throughput(tenant, deployed.provision, self._clock, name=name)
        throughput.follow(deployed.provision)
        throughput.deployment_id = deployed.deployment_id
        throughput.endpoint_id, throughput.deployed_id = endpoint.id, deployed.id
        return throughput
