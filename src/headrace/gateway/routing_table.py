"""A routing snapshot, arranged for look-ups: who holds a key, which endpoint a name means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from headrace.gateway.traffic import TrafficSplit
from headrace.gateway.verified_tokens import VerifiedTokens
from headrace.resources.access import Principal
from headrace.resources.errors import EndpointNotFound, ModelNotFound, NotReady
from headrace.resources.names import Scope
from headrace.resources.snapshot import DeployedRoute, EndpointRoute, KeyRoute, RoutingSnapshot

_SHOWN_NAMES = 10


class RoutingTable:
    """What the newest snapshot says, and the state of each endpoint's traffic split.

    Args:
        snapshot: What to route by.
        before: The table that this one replaces; splits whose weights did not change go on where they were.

    Attributes:
        tokens: Those that were verified, by this table and those before it.
    """

    def __init__(self, snapshot: RoutingSnapshot, before: RoutingTable | None = None) -> None:
        self.snapshot = snapshot
        self._keys = {key.secret_hash: key.principal for key in snapshot.keys}
        self._signers = {key.principal.key_id: key for key in snapshot.keys if key.public_key}
        self.tokens: VerifiedTokens = before.tokens if before is not None else VerifiedTokens()
        self._endpoints = {(endpoint.scope, endpoint.id): endpoint for endpoint in snapshot.endpoints}
        self._splits = {address: _split(endpoint, before, address) for address, endpoint in self._endpoints.items()}
        self._answering = {
            address: frozenset(deployed.id for deployed in endpoint.deployed if deployed.answers)
            for address, endpoint in self._endpoints.items()
        }
        self._by_name: tuple[dict[str, list[EndpointRoute]], ...] = tuple(defaultdict(list) for _ in range(3))
        for endpoint in snapshot.endpoints:
            for tier, names in zip(self._by_name, _names(endpoint), strict=True):
                for name in names:
                    tier[name].append(endpoint)
        self._resolved: dict[tuple[str, str], EndpointRoute] = {}  # by name and a key's project; no more than there are

    def principal(self, key_hash: str) -> Principal | None:
        """Who holds the key with this hash; None if it is unknown or revoked."""
        return self._keys.get(key_hash)

    def signer(self, key_id: str) -> KeyRoute | None:
        """The service account with this id; None if it is unknown or revoked, or the key is none."""
        return self._signers.get(key_id)

    def endpoint(self, scope: Scope, endpoint_id: str) -> EndpointRoute:
        """The endpoint with this id.

        Raises:
            EndpointNotFound: There is none.
        """
        found = self._endpoints.get((scope, endpoint_id))
        if found is None:
            there = [endpoint.id for endpoint in self.snapshot.endpoints if endpoint.scope == scope]
            raise EndpointNotFound(
                f"Endpoint {endpoint_id!r} does not exist in {scope}.",
                evidence=f"Endpoints there: {_shown(there)}.",
                fix="`headrace endpoints` lists them.",
            )
        return found

    def named(self, scope: Scope, name: str) -> EndpointRoute:
        """The endpoint of this project and location that is called so, as `resolve` has it.

        Raises:
            ModelNotFound: There is none, or there are several.
        """
        found = self._called(name, lambda endpoint: endpoint.scope == scope)
        if len(found) == 1:
            return found[0]
        if found:
            raise _several(name, found)
        there = [
            endpoint.display_name or endpoint.id for endpoint in self.snapshot.endpoints if endpoint.scope == scope
        ]
        raise ModelNotFound(
            f"No endpoint in {scope} is or serves {name!r}.",
            evidence=f"Endpoints there: {_shown(there)}.",
            fix=f"Use one of these names as `model`, or an endpoint's full name: {scope.name('endpoints', 'ID')}.",
        )

    def reached(self, principal: Principal) -> Iterator[tuple[EndpointRoute, str]]:
        """The endpoints that a key reaches and that have something to offer, each with a name that `resolve` takes."""
        reaches = _within_reach(principal)
        for endpoint in self.snapshot.endpoints:
            if any(one.offered for one in endpoint.deployed) and reaches(endpoint):
                alone = endpoint.display_name and self._called(endpoint.display_name, reaches) == [endpoint]
                yield endpoint, endpoint.display_name if alone else endpoint.id

    def resolve(self, name: str, principal: Principal) -> EndpointRoute:
        """The endpoint that ``model`` names: by id, full name, display name, or by the name of a model on it.

        Among several of one name, those that answer come first.

        Raises:
            ModelNotFound: No endpoint that the key reaches has the name, or several do.
        """
        known = self._resolved.get((name, principal.project))
        if known is not None:
            return known
        found = self._called(name, _within_reach(principal))
        if len(found) == 1:
            self._resolved[name, principal.project] = found[0]
            return found[0]
        if found:
            raise _several(name, found)
        raise ModelNotFound(
            f"The model {name!r} does not exist.",
            evidence=f"This key reaches: {_shown([shown for _, shown in self.reached(principal)])}.",
            fix="Use one of these names or an endpoint's id as `model`.",
        )

    def choose(self, endpoint: EndpointRoute, deployed_id: str = "", *, session: bytes = b"") -> DeployedRoute:
        """The deployed model that gets the next request: the one asked for, or the traffic split's choice.

        Args:
            endpoint: Of the request.
            deployed_id: The one that it asks for; empty for any.
            session: What the request belongs to; empty where it does not say.

        Raises:
            ModelNotFound: The endpoint has no deployed model of this id.
            NotReady: Nothing is deployed, or nothing that is has a share of the traffic.
        """
        if not deployed_id:
            address = endpoint.scope, endpoint.id
            deployed_id = self._splits[address].pick(self._answering[address], session) or ""
            if not deployed_id:
                raise NotReady(
                    f"Endpoint {endpoint.display_name or endpoint.id!r} has nothing that takes traffic.",
                    evidence=f"It has {len(endpoint.deployed)} deployed models, none with a share of the traffic.",
                    fix="Give one a share: `headrace endpoints traffic`."
                    if endpoint.deployed
                    else "Deploy a model to it: `headrace deploy`.",
                )
        for deployed in endpoint.deployed:
            if deployed.id == deployed_id:
                return deployed
        raise ModelNotFound(
            f"Endpoint {endpoint.id!r} has no deployed model {deployed_id!r}.",
            evidence=f"It has: {_shown([deployed.id for deployed in endpoint.deployed])}.",
        )

    def _called(self, name: str, counts: Callable[[EndpointRoute], bool]) -> list[EndpointRoute]:
        """Those of them that count and are called so, of the most specific tier in which any answers.

        One that failed to deploy, or has nothing on it, takes nobody's name away.
        """
        silent: list[EndpointRoute] = []
        for tier in self._by_name:
            found = [endpoint for endpoint in tier.get(name, ()) if counts(endpoint)]
            able = [endpoint for endpoint in found if any(deployed.answers for deployed in endpoint.deployed)]
            if able:
                return able
            silent = silent or found
        return silent

    def splits(self) -> dict[tuple[Scope, str], TrafficSplit]:
        """The traffic splits by endpoint."""
        return self._splits


def _split(endpoint: EndpointRoute, before: RoutingTable | None, address: tuple[Scope, str]) -> TrafficSplit:
    weights = {deployed.id: deployed.traffic for deployed in endpoint.deployed}
    old = before.splits().get(address) if before is not None else None
    return old if old is not None and old.weights == weights else TrafficSplit(weights)


def _names(endpoint: EndpointRoute) -> tuple[set[str], set[str], set[str]]:
    """What an endpoint is called, the most specific first: a name of an earlier tier hides the same of a later."""
    of_models = {name for d in endpoint.deployed for name in (d.model_user_id, d.model_display_name, d.model)}
    identifiers = {endpoint.id, endpoint.scope.name("endpoints", endpoint.id)}
    return identifiers, {endpoint.display_name} - {""}, of_models - {""}


def _within_reach(principal: Principal) -> Callable[[EndpointRoute], bool]:
    return lambda endpoint: principal.reaches(endpoint.scope.project)


def _several(name: str, found: Sequence[EndpointRoute]) -> ModelNotFound:
    return ModelNotFound(
        f"The model name {name!r} stands for several endpoints.",
        evidence=f"Endpoints with it: {_shown([endpoint.id for endpoint in found])}.",
        fix="Use an endpoint's id.",
    )


def _shown(names: list[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
