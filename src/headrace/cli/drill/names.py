"""The names of the faults, for the command line."""

from __future__ import annotations

from enum import StrEnum


class FaultName(StrEnum):
    """What can happen to a server that is looked after."""

    GATEWAY_RESTART = "gateway-restart"
    CONTROL_KILL = "control-kill"
    NODE_KILL = "node-kill"
    REPLICA_CRASH = "replica-crash"
    SCALE_DOWN = "scale-down"
    NEW_VERSION = "new-version"
    CANARY = "canary"
    UNDEPLOY = "undeploy"
