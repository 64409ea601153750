"""The engines behind the gateway: replicas, the pools they form, and how both follow the newest snapshot."""

from __future__ import annotations

import random
from collections.abc import Container, Iterable, Iterator, Mapping

from headrace.gateway import external
from headrace.gateway.exchange import Headers
from headrace.gateway.upstream import Outside, Upstream, read_address
from headrace.gateway.waiting_room import WaitingRoom, failed_for_good, no_longer_deployed
from headrace.resources.snapshot import DeployedRoute, ReplicaRoute, RoutingSnapshot


class Replica:
    """One engine and what it is working on.

    Attributes:
        outstanding: Requests sent to it that are not over.
        headers: What every request to it carries: its key.
    """

    def __init__(self, route: ReplicaRoute, *, connect_timeout_s: float) -> None:
        self.route = route
        outside = route.external and Outside(route.external.networks, route.external.ca_file)
        self.upstream = Upstream(
            read_address(route.address),
            connect_timeout_s=connect_timeout_s,
            outside=outside or None,
            key=route.nonce if outside else "",
        )
        self.outstanding = 0
        self.headers: Headers = [(b"authorization", b"Bearer " + route.nonce.encode("ascii"))]
        if route.external is not None:
            self.headers = external.headers(route.nonce)

    def target(self, path: str) -> bytes:
        """Where it has what engines of ours have at `path`."""
        if self.route.external is not None:
            path = external.target(self.route.external.base_path, path)
        return path.encode("ascii")


class Pool:
    """The replicas of one deployment and the waiting room before them. Lives on while snapshots come and go.

    Attributes:
        wakes: As in `DeployedRoute`.
    """

    def __init__(self, deployed: DeployedRoute) -> None:
        self.deployment_id = deployed.deployment_id
        self.replicas: tuple[Replica, ...] = ()
        self.wakes = False
        self.name = deployed.model_display_name or deployed.served_name
        self.room = WaitingRoom(
            self.name, max_running=0, max_waiting=deployed.max_waiting, max_wait_s=deployed.max_wait_s
        )

    def follow(self, deployed: DeployedRoute, replicas: tuple[Replica, ...]) -> None:
        """Take the replicas and limits of a newer snapshot."""
        if replicas and not self.replicas:
            self.room.open()
        self.replicas, self.wakes = replicas, deployed.wakes
        self.room.closed_because = deployed.why_not_ready
        self.room.resize(
            max_running=deployed.max_running * len(replicas),
            max_waiting=deployed.max_waiting,
            max_wait_s=deployed.max_wake_s if self.wakes and not replicas else deployed.max_wait_s,
        )
        if deployed.failure is not None:
            self.room.dismiss(failed_for_good(self.name, deployed.failure))

    def disband(self) -> None:
        """Send everybody in line away: the deployment is not in the newest snapshot."""
        self.replicas = ()
        self.room.dismiss(no_longer_deployed(self.name))

    def pick(self, *, but: Replica | None = None) -> Replica | None:
        """The replica with the least outstanding requests, at random among equals; None without a candidate."""
        candidates = [replica for replica in self.replicas if replica is not but]
        if not candidates:
            return None
        least = min(replica.outstanding for replica in candidates)
        return random.choice([replica for replica in candidates if replica.outstanding == least])  # noqa: S311 - a tie


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sums, by key."""
    sums: dict[str, int] = {}
    for each in counts:
        for key, count in each.items():
            sums[key] = sums.get(key, 0) + count
    return sums


class Fleet:
    """Every pool and replica of the newest snapshot, and the replicas of older ones that still have work."""

    def __init__(self, *, connect_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._replicas: dict[ReplicaRoute, Replica] = {}
        self._retired: list[Replica] = []
        self.pools: dict[str, Pool] = {}

    def follow(self, snapshot: RoutingSnapshot) -> None:
        """Become what the snapshot says. Requests under way go on, on replicas that are no longer in it too."""
        wanted = {d.deployment_id: d for endpoint in snapshot.endpoints for d in endpoint.deployed}
        replicas = {
            route: self._replicas.get(route) or Replica(route, connect_timeout_s=self._connect_timeout_s)
            for deployed in wanted.values()
            for route in deployed.replicas
        }
        gone = [replica for route, replica in self._replicas.items() if route not in replicas]
        for replica in gone:
            replica.upstream.close()
        self._retired = [replica for replica in (*self._retired, *gone) if replica.outstanding]
        self._replicas = replicas
        for deployment_id in self.pools.keys() - wanted.keys():
            self.pools.pop(deployment_id).disband()
        for deployment_id, deployed in wanted.items():
            if deployment_id not in self.pools:
                self.pools[deployment_id] = Pool(deployed)
            self.pools[deployment_id].follow(deployed, tuple(replicas[route] for route in deployed.replicas))

    def outstanding(self) -> dict[str, int]:
        """Requests under way by replica id; replicas without any are left out."""
        return total({replica.route.id: replica.outstanding} for replica in self._all() if replica.outstanding)

    def waiting(self) -> dict[str, int]:
        """Requests in line by deployment id; deployments without any are left out."""
        return {key: pool.room.waiting for key, pool in self.pools.items() if pool.room.waiting}

    def busy(self, replica_ids: Container[str], deployment_ids: Container[str]) -> None:
        """Count anew for how long nobody asked, of pools that have work, be it at another gateway."""
        for key, pool in self.pools.items():
            if key in deployment_ids or any(replica.route.id in replica_ids for replica in pool.replicas):
                pool.room.open()

    def idle_s(self) -> dict[str, float]:
        """For how long nobody asked, by deployment id: of those that scale to zero, while nobody does."""
        idle = {key: pool.room.idle_s for key, pool in self.pools.items() if pool.wakes and pool.replicas}
        return {key: idle_s for key, idle_s in idle.items() if idle_s}

    def close(self) -> None:
        """Close the connections that are kept to replicas."""
        for replica in self._all():
            replica.upstream.close()

    def _all(self) -> Iterator[Replica]:
        yield from self._replicas.values()
        yield from self._retired
