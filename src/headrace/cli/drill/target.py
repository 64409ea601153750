"""What a drill is run against: one deployed model of an endpoint, looked at and changed through the API."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from headrace.cli.client import Client
from headrace.cli.deployments import ROOT, in_scope
from headrace.cli.endpoints import bindings, short_id
from headrace.cli.output import Output
from headrace.cli.paths import segment
from headrace.cli.phases import watch
from headrace.cli.progress import Steps
from headrace.resources.errors import ModelNotFound, NotReady, Unavailable
from headrace.resources.external import EXTERNAL
from headrace.resources.states import OPEN_ROLLOUT, DeploymentState, ReplicaState, RolloutState

PATIENCE_S = 600.0
"""How long anything may take that a drill waits for: an engine that loads a large model takes minutes."""

PLACING_S = 15.0
"""How long a replica may take until it is placed: at once where there is room."""

ROLLOUT: dict[str, Any] = {
    "stages": [25, 100],
    "min_requests": 3,
    "min_seconds": 1.0,
    "bounds": {"times_stable": 1000.0},  # an engine that has just loaded beside another one need not be as fast
}
"""A short one: what is looked for is what its stages cost the requests under way."""

_LOOK_EVERY_S = 0.2
_BEFORE_STARTING = (
    DeploymentState.ACCEPTED,
    DeploymentState.CHECKING,
    DeploymentState.STAGING,
    DeploymentState.PLACING,
)
_ENDED = (ReplicaState.FAILED, ReplicaState.GONE)

T = TypeVar("T")


class NotRun(Exception):
    """A fault cannot be run here; with the reason, a sentence for a person."""


class TookTooLong(Exception):
    """What was waited for did not come; with what it was."""


class Target:
    """The endpoint, and the deployment behind it that is drilled: of several the one that gets most of the traffic.

    Args:
        client: The server.
        endpoint: The endpoint, in Vertex AI's shape.
        patience_s: How long anything may take that is waited for.

    Attributes:
        name: The endpoint's full name.

    Raises:
        NotReady: Nothing on the endpoint is READY.
    """

    def __init__(self, client: Client, endpoint: dict[str, Any], *, patience_s: float = PATIENCE_S) -> None:
        self.client = client
        self.name = str(endpoint["name"])
        self._patience_s = patience_s
        self._quiet = Steps(Output(as_json=True), silent=True)
        ready = bindings(endpoint, state=DeploymentState.READY)
        if not ready:
            raise NotReady(
                f"Nothing on endpoint {short_id(self.name)} is READY, so there is nothing to drill.",
                fix="`headrace status` shows why.",
            )
        self.split: dict[str, int] = endpoint.get("trafficSplit") or {}
        busiest = max(ready, key=lambda each: self.split.get(each["id"], 0))
        self.deployment_id = short_id(str(busiest["headrace"]["deployment"]))

    def deployment(self) -> dict[str, Any]:
        """The deployment with its replicas, as the native API has it now."""
        path = f"{ROOT}/deployments/{segment(self.deployment_id)}"
        found = self.client.get(path, **in_scope(self.client))
        assert isinstance(found, dict)
        return found

    def replicas(self) -> list[dict[str, Any]]:
        """Those that have not ended."""
        return [each for each in self.deployment()["replicas"] if each["state"] not in _ENDED]

    def serving(self) -> list[dict[str, Any]]:
        """Those that take requests."""
        return [each for each in self.replicas() if each["state"] == ReplicaState.READY and not each.get("failure")]

    def resize(self, least: int, most: int | None = None) -> None:
        """Have so many replicas, or between so many; they come and go afterwards."""
        body = {"min_replicas": least, "max_replicas": least if most is None else most}
        self.client.patch(f"{ROOT}/deployments/{segment(self.deployment_id)}", body, **in_scope(self.client))

    def await_replicas(self, number: int) -> None:
        """Wait until so many replicas serve, and there are no others.

        Raises:
            TookTooLong: That does not come to be.
        """
        self.wait(lambda: len(self.replicas()) == len(self.serving()) == number, f"{number} replicas that serve")

    def settle(self) -> None:
        """Wait until the server is well: control answers, and the pool is as large as it should be.

        Raises:
            TookTooLong: That does not come to be.
        """
        self.wait(self._well, f"deployment {self.deployment_id} to have all its replicas READY")

    def _well(self) -> bool:
        found = self.deployment()
        alive = [each for each in found["replicas"] if each["state"] not in _ENDED]
        fine = [each for each in alive if each["state"] == ReplicaState.READY and not each.get("failure")]
        return found["state"] == DeploymentState.READY and len(alive) == len(fine) == int(found["wanted_replicas"])

    def wait(self, question: Callable[[], T], what: str, *, patience_s: float = 0.0) -> T:
        """The first true answer; a server that cannot be asked just now is asked again.

        Raises:
            TookTooLong: There is none in time.
        """
        patience_s = patience_s or self._patience_s
        deadline = time.monotonic() + patience_s
        while True:
            try:
                if answer := question():
                    return answer
            except Unavailable:
                pass
            if time.monotonic() > deadline:
                raise TookTooLong(f"Waited {patience_s:.0f} s in vain for {what}.")
            time.sleep(_LOOK_EVERY_S)

    def watch(self, operation: dict[str, Any]) -> None:
        """Wait for an operation's end.

        Raises:
            WorkFailed: It failed.
            WaitTimeout: It takes too long.
        """
        name = str(operation.get("id") or short_id(operation["name"]))
        watch(self.client, name, self._quiet, what="", timeout_s=self._patience_s)

    def artifacts(self) -> tuple[str, dict[str, Any]]:
        """Where the deployment's files come from, and how it is served, for a second deployment of the same.

        Raises:
            NotRun: It has none.
        """
        found = self.deployment()
        if found["runtime"] == EXTERNAL:
            raise NotRun("an external server has no artifacts of which a second deployment could be made")
        models = self.client.get(f"{ROOT}/models", **in_scope(self.client))["models"]
        wanted = found["model_id"], found["model_version"]
        uris = [
            each["artifact_uri"]
            for model in models
            for each in model["versions"]
            if (each["model_id"], each["version"]) == wanted
        ]
        if not uris:
            raise NotRun(f"model {wanted[0]} is not registered any more")
        spec = {name: value for name, value in (found.get("spec") or {}).items() if value is not None}
        served = {"max_model_len": found["max_model_len"], "runtime": found["runtime"]}
        machine = {"machine": found["machine"]} if found.get("machine") else {}
        return uris[0], {**spec, **served, **machine}


class Second:
    """A second deployment of the same artifacts on the endpoint, as a new version would be.

    Args:
        target: What it stands beside.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._uri, self._served = target.artifacts()
        # Its own, so that it is found again whatever was interrupted.
        self.model_id = f"headrace-drill-{secrets.token_hex(4)}"

    def deploy(self, *, no_traffic: bool = False) -> None:
        """Deploy it, and wait until it is READY and has all of the endpoint's traffic, or none of it.

        Raises:
            HeadraceError: It is refused.
            NotRun: It finds no room.
            WorkFailed: It fails.
        """
        client = self._target.client
        named = {"model_id": self.model_id, "model_display_name": self.model_id}
        where = {"endpoint_id": short_id(self._target.name), **in_scope(client)}
        body = {**self._served, **named, **where, "artifact_uri": self._uri, "no_traffic": no_traffic}
        operation = client.post(f"{ROOT}/deployments", body)
        self._await_room(operation["id"])
        self._target.watch(operation)

    def _await_room(self, operation_id: str) -> None:
        """Wait until it has a replica, or stands for so long before that that there is no room for one.

        Raises:
            NotRun: There is none.
        """
        came_to_place = 0.0

        def placed() -> bool:
            nonlocal came_to_place
            operation = self._target.client.get(f"{ROOT}/operations/{segment(operation_id)}")
            if operation["done"] or operation["deployment"]["state"] not in _BEFORE_STARTING:
                return True
            if operation["deployment"]["state"] == DeploymentState.PLACING:
                came_to_place = came_to_place or time.monotonic()
                if time.monotonic() - came_to_place > PLACING_S:
                    raise NotRun(f"no replica of a second deployment was placed: {operation['timeline'][-1]['detail']}")
            return False

        self._target.wait(placed, "a second deployment to be placed")

    def share(self, percent: int) -> None:
        """Give it so many percent of the endpoint's traffic, and the others the rest of theirs."""
        (own,) = (each["id"] for each in self._bound())
        others = dict(self._target.split)
        rest = 100 - percent
        split = {name: share * rest // 100 for name, share in others.items()}
        split[own] = 100 - sum(split.values())
        path = f"{ROOT}/endpoints/{segment(short_id(self._target.name))}"
        self._target.client.patch(path, {"traffic": split}, **in_scope(self._target.client))

    def roll_out(self) -> None:
        """Give it the endpoint's traffic in stages, and wait until it has all of it.

        Raises:
            TookTooLong: It goes back, or does not come to its end.
        """
        (own,) = (each["id"] for each in self._bound())
        client, where = self._target.client, {"endpoint_id": short_id(self._target.name), "deployed_model_id": own}
        rollout = client.post(f"{ROOT}/rollouts", {**ROLLOUT, **where, **in_scope(client)})
        path = f"{ROOT}/rollouts/{segment(rollout['id'])}"

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = client.get(path, **in_scope(client))
            return None if found["state"] in OPEN_ROLLOUT else found

        found = self._target.wait(ended, "the rollout to come to its end")
        if found is None or found["state"] != RolloutState.PROMOTED:
            raise TookTooLong(f"The rollout went back: {(found or rollout).get('failure') or 'by hand'}.")

    def undeploy(self) -> None:
        """Take it off, with the traffic back as it was found, and wait until nothing of it runs."""
        for each in self._bound():
            body = {"deployedModelId": each["id"], "trafficSplit": self._target.split}
            self._target.watch(self._target.client.post(f"/v1beta1/{self._target.name}:undeployModel", body))

    def forget(self) -> None:
        """Remove what is left of it, its name in the registry included."""
        self._target.wait(self._undeployed, "the server to answer")
        try:
            self._target.client.delete(f"/v1beta1/{self._target.client.login.scope}/models/{segment(self.model_id)}")
        except ModelNotFound:
            return  # it was interrupted before anything was made

    def _undeployed(self) -> bool:
        self.undeploy()
        return True

    def _bound(self) -> list[dict[str, Any]]:
        endpoint = self._target.client.get(f"/v1beta1/{self._target.name}")
        return [each for each in bindings(endpoint) if short_id(str(each.get("model", ""))) == self.model_id]


@contextmanager
def second_of(target: Target) -> Iterator[Second]:
    """A second deployment to make; whatever happens, nothing of it is left and the traffic is as before."""
    second = Second(target)
    try:
        yield second
    finally:
        second.forget()


@contextmanager
def resized(target: Target, at_least: int) -> Iterator[int]:
    """At least so many replicas, and no autoscaler that changes that; yields how many there are.

    Whatever happens, there may be as many as before afterwards.

    Raises:
        NotRun: There is no room for more, or there can be no more.
    """
    found = target.deployment()
    before, most = int(found["min_replicas"]), int(found["max_replicas"])
    number = max(int(found["wanted_replicas"]), at_least)
    if found["runtime"] == EXTERNAL:
        raise NotRun("an external server is one replica")
    try:
        if number > before or most > before:
            target.resize(number)
        if number > int(found["wanted_replicas"]):
            _await_more(target, number)
        yield number
    finally:
        target.wait(lambda: _put_back(target, before, most), "the server to answer")
        target.settle()


def _put_back(target: Target, least: int, most: int) -> bool:
    target.resize(least, most)
    return True


def _await_more(target: Target, number: int) -> None:
    """Wait for the pool to be of this size, or to show that it will not be.

    Raises:
        NotRun: A replica finds no room, or fails.
    """
    known = {each["id"] for each in target.deployment()["replicas"]}

    def serve() -> bool:
        replicas = target.deployment()["replicas"]
        if any(each["state"] == ReplicaState.FAILED and each["id"] not in known for each in replicas):
            raise NotRun("a second replica failed to start; `headrace status` shows why")
        return len(target.serving()) == number

    try:
        target.wait(lambda: len(target.replicas()) == number, f"{number} replicas", patience_s=PLACING_S)
    except TookTooLong as error:
        raise NotRun(f"no second replica was placed: {target.deployment()['timeline'][-1]['detail']}") from error
    try:
        target.wait(serve, f"{number} replicas that serve")
    except TookTooLong as error:
        raise NotRun(str(error)) from error
