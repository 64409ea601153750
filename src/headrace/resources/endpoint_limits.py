"""The budgets that limits of endpoints make: one of all keys together, and one for each key.

A budget has a name, as a key's own has the key's id: so gateways share them, and pass them on, all alike. Those of each
key are there from the key's first request on, and not for every pair of a key and an endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headrace.resources.limits import EndpointLimits, KeyLimits
from headrace.resources.snapshot import EndpointRoute

_BETWEEN = "#"
"""No name of a resource and no id of a key has it."""


def budget_of_all(endpoint: EndpointRoute) -> str:
    """The name of the budget that all keys have together at an endpoint: the endpoint's own."""
    return endpoint.scope.name("endpoints", endpoint.id)


def budget_of_each(endpoint: EndpointRoute, key_id: str) -> str:
    """The name of the budget that one key has at an endpoint."""
    return f"{budget_of_all(endpoint)}{_BETWEEN}{key_id}"


def is_of_each(name: str) -> bool:
    """Whether this is the name of a budget that one key has at one endpoint."""
    return _BETWEEN in name


def endpoint_in(name: str) -> str:
    """The endpoint's id in the name of a budget that is of one; empty for others."""
    parent, _, endpoint_id = name.partition(_BETWEEN)[0].rpartition("/")
    return endpoint_id if parent.endswith("/endpoints") else ""


class EndpointLimitTable:
    """The limits of endpoints, by the names of budgets.

    Args:
        endpoints: All that there are.
    """

    def __init__(self, endpoints: Iterable[EndpointRoute] = ()) -> None:
        self._limits: Mapping[str, EndpointLimits] = {
            budget_of_all(endpoint): endpoint.limits for endpoint in endpoints if endpoint.limits is not None
        }

    @property
    def of_all(self) -> dict[str, KeyLimits]:
        """What all keys together may use, by the budget's name."""
        return {name: limits.all_keys for name, limits in self._limits.items() if limits.all_keys.limited}

    def of_each(self, name: str) -> KeyLimits:
        """What the one key may use at the one endpoint that the budget's name says; no limits where it is no such."""
        endpoint, between, key_id = name.partition(_BETWEEN)
        limits = self._limits.get(endpoint)
        return KeyLimits() if limits is None or not between else limits.of_key(key_id)
