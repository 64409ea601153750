"""Deployments whose engines went with the server's last run: their requests wait for engines to come back.

A gateway that starts routes by the snapshot that was kept on disk. What that says of engines may be over: a server that
was stopped took them along. Such replicas are left out, and so long as a deployment has no other, whoever asks for it
waits, as before one that wakes; at most `DeployedRoute.max_wait_s`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from msgspec.structs import replace

from headrace.gateway.upstream import read_address
from headrace.resources.snapshot import DeployedRoute, ReplicaRoute, RoutingSnapshot

WHY = "The server was started again, and its engine is not back yet."


class Returning:
    """Knows which deployments have lost replicas since the snapshot was kept, until they have others.

    Args:
        kept: The snapshot that was on disk; None: nothing was, and nothing is to come back.
    """

    def __init__(self, kept: RoutingSnapshot | None = None) -> None:
        every = _deployed(kept) if kept is not None else ()
        self._lost = {each.deployment_id for each in every if not all(map(_listens, each.replicas))}

    def amended(self, snapshot: RoutingSnapshot) -> RoutingSnapshot:
        """The snapshot without the replicas that are gone, and with waiting for deployments that have no other.

        Control's first snapshots may still name such a replica, and then say that its deployment has none. One whose
        replicas all listen, that failed, or that is not deployed any more, is not looked after from then on.
        """
        if not self._lost:
            return snapshot
        self._lost &= {each.deployment_id for each in _deployed(snapshot)}
        endpoints = tuple(
            replace(endpoint, deployed=tuple(map(self._amended, endpoint.deployed))) for endpoint in snapshot.endpoints
        )
        back = {each.deployment_id for each in _deployed(snapshot) if _is_back(each)}
        self._lost -= back
        return replace(snapshot, endpoints=endpoints)

    def _amended(self, deployed: DeployedRoute) -> DeployedRoute:
        if deployed.deployment_id not in self._lost or deployed.failure is not None:
            return deployed
        listening = tuple(filter(_listens, deployed.replicas))
        if listening or deployed.wakes:
            return replace(deployed, replicas=listening)
        return replace(
            deployed,
            replicas=(),
            wakes=True,
            max_wake_s=deployed.max_wait_s,
            why_not_ready=deployed.why_not_ready or WHY,
        )


def _deployed(snapshot: RoutingSnapshot) -> Iterator[DeployedRoute]:
    return (deployed for endpoint in snapshot.endpoints for deployed in endpoint.deployed)


def _is_back(deployed: DeployedRoute) -> bool:
    return deployed.failure is not None or (bool(deployed.replicas) and all(map(_listens, deployed.replicas)))


def _listens(replica: ReplicaRoute) -> bool:
    """Whether anybody listens on its unix socket; what is elsewhere is taken to be there."""
    path = read_address(replica.address).path
    if not path:
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True  # its line is full, or it cannot be told
    return True
