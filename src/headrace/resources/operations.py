"""Long-running operations, keys and nodes, as stored."""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.resources.access import Principal, Role
from headrace.resources.errors import Failure
from headrace.resources.limits import KeyLimits
from headrace.resources.names import Scope
from headrace.resources.states import OperationState

OperationKind = Literal["deploy", "undeploy", "delete_endpoint", "delete_model"]


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """Work that outlives the request that asked for it.

    Attributes:
        parent: Name of the resource it nests under: the scope, a model or an endpoint.
        contract: The API it was asked through, e.g. ``vertex/v1beta1``: its answer must speak that version.
        targets: The ids it is about; keys: ``endpoint``, ``model``, ``version``, ``deployment``, ``deployed_model``.
            And ``traffic``, which is ``none``, of a deploy whose model gets no traffic when it is READY;
            ``publisher_model``, the name in Model Garden, of the deploy of a published model.
    """

    scope: Scope
    id: str
    parent: str
    kind: OperationKind
    contract: str
    targets: dict[str, str] = {}
    state: OperationState = OperationState.RUNNING
    failure: Failure | None = None
    created_at: float
    updated_at: float
    resource_version: int = 1

    @property
    def name(self) -> str:
        """Full resource name."""
        return f"{self.parent}/operations/{self.id}"

    @property
    def takes_traffic(self) -> bool:
        """Whether it is a deploy that gives its model all of the endpoint's traffic in the end."""
        return self.kind == "deploy" and self.targets.get("traffic") != "none"


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as stored: never the secret, only its SHA-256.

    Attributes:
        hint: The secret's first characters, so that its owner can tell keys apart.
        project: The project it reaches, or ``*``.
        requests_per_minute: As in `KeyLimits`; so the next one.
    """

    id: str
    name: str
    secret_hash: str
    hint: str
    project: str
    role: Role
    created_at: float
    revoked_at: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    resource_version: int = 1

    @property
    def limits(self) -> KeyLimits:
        """What it may use."""
        return KeyLimits(requests_per_minute=self.requests_per_minute, tokens_per_minute=self.tokens_per_minute)

    @property
    def principal(self) -> Principal:
        """Who uses this key."""
        return Principal(key_id=self.id, name=self.name, project=self.project, role=self.role)
