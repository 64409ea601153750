"""Nodes: the machines that serve, as stored."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.resources.assignments import ModelCacheReport, RuntimeReport

LOCAL_NODE = "local"
"""The id of the first node: the agent that `headrace serve` starts on its own machine."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One machine, as its agent last described it.

    Attributes:
        boot_id: Fresh at each start of the node agent.
        memory_bytes: Memory that replicas may share out.
        cores: Cores that replicas may share out.
        hardware: `headrace.hardware`'s description of the machine, as JSON.
        last_seen_at: Of a report, give or take half a minute: heartbeats that say nothing new are not all written.
    """

    id: str
    boot_id: str
    memory_bytes: int
    cores: int
    hardware: dict[str, Any] = {}
    runtimes: tuple[RuntimeReport, ...] = ()
    model_cache: ModelCacheReport = ModelCacheReport()
    last_seen_at: float
    resource_version: int = 1
