"""The engines behind the gateway: replicas, the pools they form, and how both follow the newest snapshot."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from headrace.contracts.openai.demand import Demand, demand_of, size_of
from headrace.gateway import external
from headrace.gateway.arrivals import Arrivals
from headrace.gateway.balancing import best
from headrace.gateway.expectation import Expectation
from headrace.gateway.health import Health
from headrace.gateway.kept_places import places_of
from headrace.gateway.prefix_map import PrefixMap, prefixes
from headrace.gateway.replacement import Replacement
from headrace.gateway.request_head import Headers
from headrace.gateway.retry_budget import RetryBudget
from headrace.gateway.upstream import Outside, Upstream, read_address
from headrace.gateway.waiting_room import WaitingRoom, failed_for_good, no_longer_deployed
from headrace.resources.snapshot import DeployedRoute, ProvisionRoute, ReplicaRoute, RoutingSnapshot
from headrace.resources.work import tenant_of

if TYPE_CHECKING:
    from headrace.gateway.tracing import Attempt

Count = TypeVar("Count", int, float)

_NOTHING_SOLD: Mapping[str, ProvisionRoute] = MappingProxyType({})


class Replica:
    """One engine and what it is working on.

    Attributes:
        outstanding: Requests sent to it that are not over.
        answering: Those of them whose answers have begun.
        work: What is left of them, in tokens, as far as anybody can tell (`Expectation`).
        health: Whether it is to be trusted with more.
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
        self.outstanding = self.answering = self.work = 0
        self.health = Health()
        self.headers: Headers = [(b"authorization", b"Bearer " + route.nonce.encode("ascii"))]
        if route.external is not None:
            self.headers = external.headers(route.nonce)

    def target(self, path: str) -> bytes:
        """Where it has what engines of ours have at `path`."""
        if self.route.external is not None:
            path = external.target(self.route.external.base_path, path)
        return path.encode("ascii")


class Assignment:
    """A request on its way to a replica, or on it: the replica is charged with it until `release`.

    The prompt's work is over when the answer begins, the output's when the answer ends. Nothing is counted down chunk
    by chunk: that would cost something at every token, to know a little better what is a guess from the start, and a
    sequence takes its share of each step of the engine until its last one.

    Attributes:
        on_trial: Whether it is to show if an ejected replica is back.
        began_at: When it was assigned, by the pool's clock.
        attempt: Its span; None where nobody traces.
        after_late: Whether another replica had the request before, was late with it, and may have begun on it.
    """

    __slots__ = (
        "_answering",
        "_clock",
        "_output_tokens",
        "_prompt_tokens",
        "after_late",
        "attempt",
        "began_at",
        "on_trial",
        "replica",
    )

    def __init__(
        self, replica: Replica, clock: Callable[[], float], *, prompt_tokens: int, output_tokens: int, on_trial: bool
    ) -> None:
        self.replica = replica
        self.on_trial = on_trial
        self.attempt: Attempt | None = None
        self.after_late = False
        self.began_at = clock()
        self._clock = clock
        self._answering = False
        self._prompt_tokens, self._output_tokens = prompt_tokens, output_tokens
        replica.outstanding += 1
        replica.work += prompt_tokens + output_tokens
        replica.health.on_trial |= on_trial

    def answered(self) -> None:
        """The answer has begun, and is no sign of trouble."""
        self.replica.work -= self._prompt_tokens
        self.replica.answering += 1
        self._prompt_tokens, self._answering = 0, True
        self.replica.health.answered(self._clock())
        self._end_trial()

    def ended(self) -> None:
        """All of the answer has come: the replica worked until now."""
        self.replica.health.made_tokens(self._clock())

    def silence_left_s(self, most_s: float) -> float:
        """For how much longer the replica may be silent, if it may for so long; at most 0: it was, to everybody.

        While it answers somebody it is not: a stream that stalls has a limit of its own.
        """
        if self.replica.answering > 0:
            return most_s
        return self.replica.health.heard_at + most_s - self._clock()

    def failed(self) -> None:
        """The replica is at fault that there is no answer, or half of one."""
        self.replica.health.failed(self._clock())

    def timed_out(self) -> None:
        """No answer began for as long as it may take. Of a replica that was silent all the time one is enough."""
        replica = self.replica
        silent = not replica.answering and replica.health.heard_at < self.began_at
        replica.health.failed(self._clock(), at_once=silent)

    def release(self) -> None:
        """The request is over, or goes elsewhere."""
        replica = self.replica
        replica.outstanding -= 1
        replica.answering -= self._answering
        replica.work -= self._prompt_tokens + self._output_tokens
        self._end_trial()
        if self.attempt is not None:
            self.attempt.end()

    def _end_trial(self) -> None:
        if self.on_trial:
            self.on_trial = self.replica.health.on_trial = False


class Pool:
    """The replicas of one deployment and the waiting room before them. Lives on while snapshots come and go.

    Args:
        deployed: What the snapshot says of it.
        clock: Seconds that never go back.

    Attributes:
        wakes: As in `DeployedRoute`.
        arrivals: How many requests come.
        expectation: What its requests come to.
        retries: What may be sent again.
        replacement: Whether replicas come back where there is none.
    """

    def __init__(self, deployed: DeployedRoute, clock: Callable[[], float] = time.monotonic) -> None:
        self.deployment_id = deployed.deployment_id
        self.replicas: tuple[Replica, ...] = ()
        self.wakes = False
        self.name = deployed.model_display_name or deployed.served_name
        self.room = WaitingRoom(
            self.name, max_running=0, max_waiting=deployed.max_waiting, max_wait_s=deployed.max_wait_s
        )
        self.clock = clock
        self.arrivals = Arrivals()
        self.expectation = Expectation()
        self.retries = RetryBudget(clock, burst=deployed.max_running)
        self.replacement = Replacement(clock)
        self._max_model_len, self._max_running = deployed.max_model_len, deployed.max_running
        self._prefixes: PrefixMap[Replica] = PrefixMap()

    def follow(
        self,
        deployed: DeployedRoute,
        replicas: tuple[Replica, ...],
        sold: Mapping[str, ProvisionRoute] = _NOTHING_SOLD,
    ) -> None:
        """Take the replicas and limits of a newer snapshot, and what of it was sold, by tenant."""
        if replicas and not self.replicas:
            self.room.open()
        self.replicas, self.wakes = replicas, deployed.wakes
        self._prefixes.follow(replicas)
        self.replacement.follow(deployed, there=bool(replicas))
        self._max_running = places_of(deployed.max_running, sold.values())
        self.retries.burst = float(deployed.max_running)
        self.room.closed_because = deployed.why_not_ready
        self.room.resize(
            max_running=self._max_running * len(replicas),
            max_waiting=deployed.max_waiting,
            max_wait_s=deployed.max_wake_s if self.wakes and not replicas else deployed.max_wait_s,
        )
        means = {tenant: each.guaranteed * self._max_running for tenant, each in sold.items()}
        self.room.keep(means, _reading_s(sold, max(len(replicas), 1)) if sold else None)
        if deployed.failure is not None:
            self.room.dismiss(failed_for_good(self.name, deployed.failure))

    def disband(self) -> None:
        """Send everybody in line away: the deployment is not in the newest snapshot."""
        self.replicas, self.wakes = (), False
        self._prefixes.follow(())
        self.replacement.follow(None, there=False)
        self.room.dismiss(no_longer_deployed(self.name))

    @property
    def awaited(self) -> bool:
        """Whether a request that finds no replica waits for one."""
        return self.wakes or self.replacement.left_s > 0.0

    def demand_of(self, path: str, body: bytes) -> Demand:
        """What a request asks; where there is nothing to choose it is not read for that."""
        return demand_of(path, body) if len(self.replicas) > 1 else size_of(path, body)

    def assign(self, demand: Demand, *, but: Collection[Replica] = ()) -> Assignment | None:
        """Choose a replica and charge it with the request; None without a candidate.

        First comes one that was ejected and whose time is over: one request at a time tries it, none of those that
        failed elsewhere already. Then, of those that are trusted and take more, the `best`, at random among equals. If
        none is trusted, the one that failed least (panic): ejection never leaves a pool without anybody.
        """
        candidates = [replica for replica in self.replicas if replica not in but] if but else self.replicas
        if not candidates:
            return None
        prompt_tokens = self.expectation.prompt(demand.size_bytes, self._max_model_len)
        output_tokens = self.expectation.output(demand)
        if len(self.replicas) == 1:
            return self._assignment(candidates[0], prompt_tokens, output_tokens)
        now = self.clock()
        numbers = prefixes(demand.prompt)
        due = None if but else next((replica for replica in candidates if replica.health.due(now)), None)
        trusted = [replica for replica in candidates if replica.health.trusted]
        saved = 0
        if due is not None:
            replica = due
        elif trusted:
            with_room = [replica for replica in trusted if replica.outstanding < self._max_running]
            replica, saved = self._best(with_room or trusted, numbers, prompt_tokens, output_tokens, now)
        else:
            replica = min(candidates, key=lambda replica: replica.health.badness())
        self._prefixes.note(numbers, replica)
        return self._assignment(replica, prompt_tokens - saved, output_tokens, on_trial=due is not None)

    def _best(
        self, candidates: Sequence[Replica], numbers: Sequence[int], prompt_tokens: int, output_tokens: int, now: float
    ) -> tuple[Replica, int]:
        """The replica, and how many tokens of the prompt it need not compute again."""
        held = self._prefixes.held_bytes(numbers)
        saved = [
            self.expectation.prompt(held[replica], prompt_tokens) if replica in held else 0 for replica in candidates
        ]
        own = max(prompt_tokens + output_tokens, 1)
        loads = [(replica.work + own) / replica.health.share(now) for replica in candidates]
        place = random.choice(best(loads, saved))  # noqa: S311 - a tie
        return candidates[place], saved[place]

    def _assignment(
        self, replica: Replica, prompt_tokens: int, output_tokens: int, *, on_trial: bool = False
    ) -> Assignment:
        return Assignment(
            replica, self.clock, prompt_tokens=prompt_tokens, output_tokens=output_tokens, on_trial=on_trial
        )


def total(counts: Iterable[Mapping[str, Count]]) -> dict[str, Count]:
    """The sums, by key."""
    sums: dict[str, Count] = {}
    for each in counts:
        for key, count in each.items():
            sums[key] = sums[key] + count if key in sums else count
    return sums


def _reading_s(sold: Mapping[str, ProvisionRoute], replicas: int) -> Callable[[int], float]:
    carried = next(iter(sold.values())).carried
    return lambda prompt_tokens: carried.units(prompt_tokens, 0) / replicas


def _sold(snapshot: RoutingSnapshot) -> dict[str, dict[str, ProvisionRoute]]:
    """By deployment, what each tenant was sold."""
    sold: dict[str, dict[str, ProvisionRoute]] = {}
    for endpoint in snapshot.endpoints:
        for deployed in endpoint.deployed:
            if deployed.provision is not None:
                sold.setdefault(deployed.deployment_id, {})[tenant_of(endpoint, deployed)] = deployed.provision
    return sold


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
        sold = _sold(snapshot)
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
            of_it = tuple(replicas[route] for route in deployed.replicas)
            self.pools[deployment_id].follow(deployed, of_it, sold.get(deployment_id, _NOTHING_SOLD))

    def outstanding(self) -> dict[str, int]:
        """Requests under way by replica id; replicas without any are left out."""
        return total({replica.route.id: replica.outstanding} for replica in self._all() if replica.outstanding)

    def waiting(self) -> dict[str, int]:
        """Requests in line by deployment id; deployments without any are left out."""
        return {key: pool.room.waiting for key, pool in self.pools.items() if pool.room.waiting}

    def per_minute(self) -> dict[str, int]:
        """Requests that came within the last minute by deployment id; deployments without any are left out."""
        rates = {key: pool.arrivals.per_minute(pool.clock()) for key, pool in self.pools.items()}
        return {key: rate for key, rate in rates.items() if rate}

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
