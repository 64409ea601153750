"""What is kept of a serving endpoint beside its rows: what each deployed model was asked for, and an update under way.

It stands in `Endpoint.kept` (`headrace.contracts.databricks.kept`), so that an update goes on after control was killed
at any moment of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.contracts.databricks.kept import kept_of, with_kept
from headrace.contracts.databricks.served import Config, ServedEntity
from headrace.resources.profiles import Provision


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One entity that is served, or about to be.

    Attributes:
        at: When it was asked for, in Unix seconds.
    """

    entity: ServedEntity
    at: float


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A config that does not hold yet.

    Attributes:
        bound: Deployed models by the names of its entities.
        operations: Of those that are sold a throughput anew, or another one in place, the operation that is done once
            replicas carry it.
        before: The throughput of each of those until then, by deployed model.
        later: Throughputs that are no higher than what holds, by deployed model: they hold together with the config.
        started_at: In Unix seconds.
    """

    config: Config
    bound: dict[str, str]
    operations: dict[str, str] = {}
    before: dict[str, Provision] = {}
    later: dict[str, Provision] = {}
    started_at: float


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The last update, where it failed and no newer one was asked for.

    Attributes:
        message: Why, as a text for a person.
    """

    config: Config
    message: str
    at: float


class ServingState(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        creator: Who made it, by the name of the key.
        config_version: How many configs held so far.
        served: By deployed model.
    """

    creator: str = ""
    config_version: int = 0
    served: dict[str, Served] = {}
    pending: Pending | None = None
    failed: Failed | None = None


def state_in(kept: Mapping[str, Any]) -> ServingState:
    """What is kept; the empty state of an endpoint that Databricks' clients did not make, or whose state is none."""
    try:
        return msgspec.convert(kept_of(kept), ServingState)
    except msgspec.ValidationError:
        return ServingState()


def with_state(kept: Mapping[str, Any], state: ServingState) -> dict[str, Any]:
    """All that is to be kept, with this state; what else is kept stays."""
    return with_kept(kept, msgspec.to_builtins(state))
