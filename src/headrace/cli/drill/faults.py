"""The faults: each is prepared, done once in the middle of the load, and undone, whatever happens.

A fault is a context: what it enters prepares, what it yields does it and says in a sentence what was done, and
leaving it puts everything back. What cannot be run raises `NotRun` before the load begins.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import msgspec

from headrace.cli.drill.names import FaultName
from headrace.cli.drill.processes import Processes
from headrace.cli.drill.target import NotRun, Target, resized, second_of
from headrace.cli.output import duration

Act = Callable[[], str]


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Where faults happen.

    Attributes:
        processes: The server's processes, where they are on this machine.
        elsewhere: Why they cannot be reached, where they are not.
    """

    target: Target
    processes: Processes | None
    elsewhere: str = ""

    def own_processes(self) -> Processes:
        """The server's processes.

        Raises:
            NotRun: They are not on this machine.
        """
        if self.processes is None:
            raise NotRun(self.elsewhere)
        return self.processes


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One of them.

    Attributes:
        prepare: See above.
        may_break: Whether a stream may end by it, with an error event: who made it is killed.
    """

    prepare: Callable[[Scene], AbstractContextManager[Act]]
    may_break: bool = False


@contextmanager
def _undeploy(scene: Scene) -> Iterator[Act]:
    """One of two deployed models, which share the traffic, is undeployed."""
    with second_of(scene.target) as second:
        second.deploy()
        second.share(50)

        def act() -> str:
            second.undeploy()
            return "one of two deployed models, which had half of the traffic, was undeployed"

        yield act


@contextmanager
def _new_version(scene: Scene) -> Iterator[Act]:
    """A second deployment of the same artifacts takes all the traffic, and gives it back as it is undeployed."""
    with second_of(scene.target) as second:

        def act() -> str:
            second.deploy()
            second.undeploy()
            return "a second deployment took the traffic once it was READY, and gave it back as it was undeployed"

        yield act


@contextmanager
def _canary(scene: Scene) -> Iterator[Act]:
    """A second deployment of the same artifacts gets the traffic in stages, and gives it back as it is undeployed."""
    with second_of(scene.target) as second:
        second.deploy(no_traffic=True)

        def act() -> str:
            second.roll_out()
            second.undeploy()
            return "a second deployment got the traffic in a rollout's stages, and gave it back as it was undeployed"

        yield act


@contextmanager
def _scale_down(scene: Scene) -> Iterator[Act]:
    """One replica fewer."""
    with resized(scene.target, 2) as number:

        def act() -> str:
            scene.target.resize(number - 1)
            scene.target.await_replicas(number - 1)
            return f"from {number} replicas to {number - 1}"

        yield act


@contextmanager
def _replica_crash(scene: Scene) -> Iterator[Act]:
    """The engine of one of at least two replicas is killed."""
    processes = scene.own_processes()
    with resized(scene.target, 2) as number:
        victim = max(scene.target.serving(), key=lambda each: each["epoch"])
        if not victim["pid"] or not processes.is_engine(victim["pid"]):
            raise NotRun(f"the engine of replica {victim['id']} is not to be found on this machine")

        def act() -> str:
            os.kill(victim["pid"], signal.SIGKILL)
            scene.target.wait(lambda: _replaced(scene.target, victim), "the dead engine's place to be taken")
            scene.target.await_replicas(number)
            return f"kill -9 of the engine of replica {victim['id']}, process {victim['pid']}; another took its place"

        yield act


def _replaced(target: Target, victim: dict[str, Any]) -> bool:
    return all(each["id"] != victim["id"] for each in target.replicas())


def _of_process(kind: str, number: signal.Signals) -> Callable[[Scene], AbstractContextManager[Act]]:
    """Each of the supervisor's children of a kind gets a signal; the next one is awaited, and that all is well."""

    @contextmanager
    def prepare(scene: Scene) -> Iterator[Act]:
        processes = scene.own_processes()
        victims = processes.newest(kind)
        if not victims:
            raise NotRun(f"the server's {kind} process is not to be found")

        def act() -> str:
            return "; ".join(_signalled(scene, kind, place, pid, number) for place, pid in victims.items())

        yield act

    return prepare


def _signalled(scene: Scene, kind: str, place: str, victim: int, number: signal.Signals) -> str:
    """One process gets a signal, and all is well again."""
    processes = scene.own_processes()
    os.kill(victim, number)
    began = time.monotonic()
    scene.target.wait(lambda: processes.newest(kind).get(place, victim) != victim, f"another {kind} process")
    scene.target.settle()
    after = duration(time.monotonic() - began)
    return f"{number.name} to the {kind} process, {victim}; another was there and all was well after {after}"


FAULTS = {
    FaultName.GATEWAY_RESTART: Fault(prepare=_of_process("gateway", signal.SIGTERM)),
    FaultName.CONTROL_KILL: Fault(prepare=_of_process("control", signal.SIGKILL)),
    FaultName.NODE_KILL: Fault(prepare=_of_process("node", signal.SIGKILL)),
    FaultName.REPLICA_CRASH: Fault(prepare=_replica_crash, may_break=True),
    FaultName.SCALE_DOWN: Fault(prepare=_scale_down),
    FaultName.NEW_VERSION: Fault(prepare=_new_version),
    FaultName.CANARY: Fault(prepare=_canary),
    FaultName.UNDEPLOY: Fault(prepare=_undeploy),
}
"""All of them, in the order in which a drill runs them."""
