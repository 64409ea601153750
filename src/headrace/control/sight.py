"""What control knows at one moment beyond its rows: what nodes and the gateway said last."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headrace.control.external.looks import Look
from headrace.resources.assignments import ReplicaLoad, StageReport

NODE_SILENCE_S = 15.0
"""A node not heard of for as long gets nothing new to run. Nothing that runs there is stopped for it."""

StageKey = tuple[str, str, str, str]
"""Node, fingerprint, runtime, number format."""


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """One moment.

    Attributes:
        heard_at: When each node last reported.
        stages: What nodes say of the stage orders that they have.
        routed: Replicas that the gateway may still send to; None while it is not known.
        bound: Deployed models that the gateway routes to; None while it is not known.
        outstanding: Requests that the gateway has under way, by replica.
        waiting: Requests that wait in the gateway, by deployment.
        idle_s: For how long nobody has asked, by deployment, as the gateway said last; so also the two before.
        per_minute: Requests that came within the last minute, by deployment.
        work_per_minute: Model units that came within the last minute as far as they were sold, by deployment.
        work_waiting: What stands in line.
        hears_gateway: Whether every gateway said so lately. Where not, what they have may be more.
        loads: What replicas that take requests have to do, of those whose nodes said so lately.
        external: What the newest looks at external servers found, by deployment.
    """

    now: float
    heard_at: Mapping[str, float] = {}
    stages: Mapping[StageKey, StageReport] = {}
    routed: frozenset[str] | None = None
    bound: frozenset[str] | None = None
    outstanding: Mapping[str, int] = {}
    waiting: Mapping[str, int] = {}
    idle_s: Mapping[str, float] = {}
    per_minute: Mapping[str, int] = {}
    work_per_minute: Mapping[str, float] = {}
    work_waiting: Mapping[str, float] = {}
    hears_gateway: bool = False
    loads: Mapping[str, ReplicaLoad] = {}
    external: Mapping[str, Look] = {}

    def hears(self, node_id: str) -> bool:
        """Whether the node reported lately."""
        return self.now - self.heard_at.get(node_id, float("-inf")) < NODE_SILENCE_S

    def idle(self, replica_id: str) -> bool:
        """Whether it is certain that no request runs on this replica and none will come."""
        return self.routed is not None and replica_id not in self.routed and not self.outstanding.get(replica_id)
