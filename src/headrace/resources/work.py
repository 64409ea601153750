"""What deployed models were sold, as limits in work: counted, shared out and handed over as those of keys are.

A limit's unit is then the millionth of a model unit (`headrace.resources.profiles`): whole numbers add up exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from headrace.resources.limits import KeyLimits
from headrace.resources.snapshot import DeployedRoute, EndpointRoute

MICROS = 1_000_000
"""In a model unit."""

MINUTE_S = 60

NOTHING_SOLD: Mapping[str, KeyLimits] = MappingProxyType({})


def tenant_of(endpoint: EndpointRoute, deployed: DeployedRoute) -> str:
    """The name under which a deployed model's work is counted; no key has an id with slashes."""
    return f"{endpoint.scope}/endpoints/{endpoint.id}/deployedModels/{deployed.id}"


def micros(units: float) -> int:
    """Model units as whole millionths."""
    return round(units * MICROS)


def work_limits(endpoints: Iterable[EndpointRoute]) -> dict[str, KeyLimits]:
    """The most of any minute that each deployed model with a throughput may use, by tenant, as tokens' limits are."""
    return {
        tenant_of(endpoint, deployed): KeyLimits(
            tokens_per_minute=max(micros(deployed.provision.most * MINUTE_S), 1),
        )
        for endpoint in endpoints
        for deployed in endpoint.deployed
        if deployed.provision is not None
    }
