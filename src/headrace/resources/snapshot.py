"""What the gateway needs to know to route: the one message that control pushes to it, and its answer.

The gateway keeps the newest snapshot on disk (mode 0600), so it goes on answering, and can restart, while control is
down. It talks only to replicas of its newest snapshot; a lower generation than the one it has is refused.
"""

from __future__ import annotations

import msgspec

from headrace.resources.access import Principal
from headrace.resources.errors import Failure
from headrace.resources.limits import EndpointLimits, KeyLimits
from headrace.resources.names import Scope
from headrace.resources.profiles import Carried
from headrace.resources.request_log import RequestLog

MOST_RUNNING = 256
"""Requests that one replica gets at a time. Every engine takes this many: it is how many sequences vLLM and OpenVINO
GenAI compute at once, and how many ours let wait."""

MOST_WAITING = 256
"""Requests that wait for one deployment."""


class ExternalRoute(msgspec.Struct, frozen=True, kw_only=True):
    """What is different about a server that is not ours.

    Attributes:
        base_path: What takes the place of ``/v1`` in the paths of requests.
        networks: Where it may be besides the public internet (`headrace.resources.egress`).
        ca_file: Certificate authorities that are trusted besides the system's; empty for none.
    """

    base_path: str = ""
    networks: tuple[str, ...] = ()
    ca_file: str = ""


class ReplicaRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One engine that takes requests.

    Attributes:
        address: ``unix:/path``, ``http://host:port`` or ``https://host:port``.
        nonce: What goes into ``Authorization: Bearer`` towards the engine; an external server's key, empty without one.
        external: None for engines of ours.
    """

    id: str
    epoch: int
    address: str
    nonce: str
    external: ExternalRoute | None = None


class ProvisionRoute(msgspec.Struct, frozen=True, kw_only=True):
    """The throughput that a deployed model was sold, as work: model units a second, which are full replicas.

    Attributes:
        carried: What a replica carries, and so what a request costs.
        guaranteed: Of it, what is never refused and goes before everybody else's.
        most: What is admitted at most; above it there is 429.
    """

    carried: Carried
    guaranteed: float
    most: float


class DeployedRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One deployed model of an endpoint.

    Attributes:
        traffic: Percent of the endpoint's requests.
        model: Full resource name of the model.
        model_user_id: The importer's name for the model; may be empty.
        served_name: The model name that its engines answer to.
        max_running: Requests that one replica gets at a time from one gateway; more wait there. Several gateways share
            the `MOST_RUNNING`.
        max_waiting: Requests that may wait for this deployment in one gateway. Several share the `MOST_WAITING`.
        max_wait_s: The longest that one of them waits.
        wakes: Whether a request that finds no replica waits for one: the deployment scales to zero.
        max_wake_s: The longest that one of them waits then. Loading an engine takes seconds to minutes.
        returns: Whether it was READY and its replicas, of which there is none, are being replaced.
        why_not_ready: A sentence for callers when `replicas` is empty.
        pending: Whether it has not been READY yet, and may still be.
        failure: Why it never comes (back), where that is so.
        external_host: Who answers, for messages, where that is not an engine of ours; else empty.
        provision: The throughput that it was sold; None: none.
        watched: Whether a rollout is under way on its endpoint: then usage records tell how requests were served.
    """

    id: str
    deployment_id: str
    traffic: int
    model: str
    model_version: str
    model_display_name: str
    model_user_id: str = ""
    served_name: str
    max_model_len: int
    created_at: float
    max_running: int = MOST_RUNNING
    max_waiting: int = MOST_WAITING
    max_wait_s: float = 60.0
    wakes: bool = False
    max_wake_s: float = 300.0
    returns: bool = False
    why_not_ready: str = ""
    pending: bool = False
    failure: Failure | None = None
    external_host: str = ""
    watched: bool = False
    provision: ProvisionRoute | None = None
    replicas: tuple[ReplicaRoute, ...] = ()

    @property
    def answers(self) -> bool:
        """Whether a request gets an answer, at once or once a replica is awake."""
        return bool(self.replicas) or self.wakes

    @property
    def offered(self) -> bool:
        """Whether it was READY, and is or will be so again."""
        return not self.pending and self.failure is None


class EndpointRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint and what stands behind it.

    Attributes:
        request_log: What of its requests is written down; None: nothing.
        inference_timeout_s: The longest that an answer may take to begin; 0: the gateway's own limits alone.
        limits: What may be asked of it in any minute; None: as much as keys may.
        callers: Ids of the keys that may ask it; None: all whose role lets them. Admins always may.
    """

    scope: Scope
    id: str
    display_name: str
    deployed: tuple[DeployedRoute, ...] = ()
    request_log: RequestLog | None = None
    inference_timeout_s: float = 0.0
    limits: EndpointLimits | None = None
    callers: frozenset[str] | None = None


class KeyRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One key that is good; a revoked one is simply no longer there.

    Attributes:
        public_key: Of a service account (PEM): what it signs is shown instead of a secret. Empty for other keys.
    """

    secret_hash: str
    principal: Principal
    limits: KeyLimits = KeyLimits()
    public_key: str = ""


class RoutingSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything there is to route by."""

    generation: int
    endpoints: tuple[EndpointRoute, ...] = ()
    keys: tuple[KeyRoute, ...] = ()


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's answer to a push, and to a question.

    Attributes:
        generation: Of the snapshot it routes by; 0 without one.
        outstanding: Requests under way, by replica id; replicas without any are left out.
        waiting: Requests in line, by deployment id; deployments without any are left out.
        idle_s: For how long no request ran or waited, by deployment id: of those that scale to zero, while none does.
        per_minute: Requests that came within the last minute, by deployment id; deployments without any are left out.
        work_per_minute: Model units of what came within the last minute and was let in, or sent away from the line
            although the most had room for it, by deployment id; of those with a provisioned throughput.
        work_waiting: Model units of what stands in line, likewise.
    """

    generation: int
    outstanding: dict[str, int] = {}
    waiting: dict[str, int] = {}
    idle_s: dict[str, float] = {}
    per_minute: dict[str, int] = {}
    work_per_minute: dict[str, float] = {}
    work_waiting: dict[str, float] = {}
