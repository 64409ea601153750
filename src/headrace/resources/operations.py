"""Long-running operations, keys and nodes, as stored."""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.resources.access import KeyFormat, Principal, Role
from headrace.resources.errors import Failure
from headrace.resources.limits import KeyLimits
from headrace.resources.names import Scope
from headrace.resources.states import OperationState

KEPT_DAYS = 90.0
"""For how long operations, and what else is over, are kept by default."""

LISTED = "`headrace operations` lists those that are there; what is over goes in time (`serve --keep-history`)."
"""What to do about an operation that is not there."""

OperationKind = Literal[
    "create_endpoint",
    "delete_endpoint",
    "delete_model",
    "deploy",
    "deploy_model",
    "delete_model_version",
    "mutate_deployed_model",
    "undeploy",
    "update_endpoint",
    "upload_model",
]


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """Work that outlives the request that asked for it.

    Attributes:
        parent: Name of the resource it nests under: the scope, a model or an endpoint.
        contract: The API it was asked through, e.g. ``vertex/v1beta1``: its answer must speak that version.
        targets: The ids it is about; keys: ``endpoint``, ``model``, ``version``, ``deployment``, ``deployed_model``.
            ``publisher_model``, the name in Model Garden, of the deploy of a published model.
            ``display_name``: of what it makes. ``traffic``, which is ``none``, of a deploy whose model gets no traffic
            when it is READY; ``split``: see `split`. ``joins``, which is ``serving``, of a deploy to a deployment that
            was READY before. Of what waits for the replicas of a throughput: ``until``, the Unix seconds at which it
            gives up, and of a change of one ``provision``, what is to hold.
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
    def deploys(self) -> bool:
        """Whether it ends when a deployed model is READY."""
        return self.kind in ("deploy", "deploy_model")

    @property
    def split(self) -> dict[str, int]:
        """The endpoint's traffic once the model is READY, by deployed model; empty where it was not asked for."""
        text = self.targets.get("split", "")
        return {name: int(share) for name, _, share in (pair.partition("=") for pair in text.split(",") if pair)}

    @property
    def takes_traffic(self) -> bool:
        """Whether it is a deploy that changes the endpoint's traffic in the end."""
        return bool(self.split) or (self.kind == "deploy" and self.targets.get("traffic") != "none")


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as stored: never the secret, only its SHA-256.

    Attributes:
        hint: The secret's first characters, so that its owner can tell keys apart.
        project: The project it reaches, or ``*``.
        requests_per_minute: As in `KeyLimits`; so the next one.
        public_key: Of a service account (PEM), whose private key was shown once and is stored nowhere. Its
            `secret_hash` is of a secret that nobody was ever given. Empty for other keys.
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
    public_key: str = ""
    resource_version: int = 1

    @property
    def format(self) -> KeyFormat:
        """What its holder has."""
        return KeyFormat.SERVICE_ACCOUNT if self.public_key else KeyFormat.PLAIN

    @property
    def limits(self) -> KeyLimits:
        """What it may use."""
        return KeyLimits(requests_per_minute=self.requests_per_minute, tokens_per_minute=self.tokens_per_minute)

    @property
    def principal(self) -> Principal:
        """Who uses this key."""
        return Principal(key_id=self.id, name=self.name, project=self.project, role=self.role)
