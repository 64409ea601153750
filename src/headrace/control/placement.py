"""Which node a deployment goes to, and whether there is room: what replicas reserve never exceeds what a node has.

A replica that computes on GPUs reserves its part of the memory of each, and sees no other. Each has GPUs of its own as
long as there are any that nobody computes on and that are large enough, of those the smallest, and then those with the
most memory left. Several for one
replica are of one size, as an engine takes the same of each. What it takes of the machine's own memory is not planned,
unless it may sleep and there is room for its weights when it is placed: else it does not sleep, but ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from headrace.capacity import DEVICE_SHARE
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.errors import Failure, NoCapacity
from headrace.resources.models import ModelVersion
from headrace.resources.nodes import Node
from headrace.resources.states import ReplicaState
from headrace.runtimes import computes_on_gpus, machine_of, sleep_mode_of
from headrace.store import Transaction

HOLDING = tuple(state for state in ReplicaState if state not in {ReplicaState.FAILED, ReplicaState.GONE})
"""States in which a replica holds its memory."""

Gpus = tuple[str, ...]
"""GPUs, by the identity that NVML tells."""


class Placed(NamedTuple):
    """What one replica was given.

    Attributes:
        gpus: Its GPUs; none where it computes on none, or on whichever its engine finds.
        machine_bytes: Of the node's own memory.
    """

    gpus: Gpus
    machine_bytes: int


class Need(NamedTuple):
    """What one replica reserves.

    Attributes:
        machine_bytes: Of the node's own memory.
        gpus: How many GPUs it computes on; 0: on none, or on whichever its engine finds.
        gpu_bytes: Of the memory of each.
    """

    machine_bytes: int
    gpus: int = 0
    gpu_bytes: int = 0


class Room:
    """What of a node nobody has reserved.

    Args:
        machine_bytes: Of its own memory.
        gpus: Of the memory of each of its GPUs, as far as that is planned with (`DEVICE_SHARE`).
    """

    def __init__(self, machine_bytes: int, gpus: Mapping[str, int]) -> None:
        self.machine_bytes = machine_bytes
        self.gpus = dict(gpus)
        self._whole = gpus

    def take(self, need: Need, gpus: Gpus) -> None:
        """One replica more."""
        self._add(need, gpus, -1)

    def give(self, need: Need, gpus: Gpus) -> None:
        """One replica less."""
        self._add(need, gpus, 1)

    def place(self, need: Need) -> Gpus | None:
        """The GPUs for one replica more, the preferred first; None where it has no room."""
        if need.machine_bytes > max(self.machine_bytes, 0):
            return None
        able = [gpu for gpu in self.gpus if self.gpus[gpu] >= need.gpu_bytes]
        able.sort(key=self._preference)  # of equal ones the first, as the driver counts
        if need.gpus > 1:
            sizes = Counter(self._whole[gpu] for gpu in able)
            size = next((self._whole[gpu] for gpu in able if sizes[self._whole[gpu]] >= need.gpus), None)
            able = [gpu for gpu in able if self._whole[gpu] == size]
        return tuple(able[: need.gpus]) if len(able) >= need.gpus else None

    def _preference(self, gpu: str) -> tuple[bool, int]:
        free = self.gpus[gpu]
        used = free < self._whole[gpu]
        return used, -free if used else free

    def _add(self, need: Need, gpus: Gpus, sign: int) -> None:
        self.machine_bytes += sign * need.machine_bytes
        for gpu in gpus:
            if gpu in self.gpus:  # it may have been taken out of the machine
                self.gpus[gpu] += sign * need.gpu_bytes


def home(tx: Transaction) -> Node | None:
    """The node for every deployment: the largest. Staging and placing must agree, so what is free does not count."""
    nodes = tx.list(Node)
    return max(nodes, key=lambda node: (node.memory_bytes, node.id), default=None)


def whole(node: Node) -> Room:
    """All that there is of a node."""
    return Room(node.memory_bytes, _planned(node, divided=False))


def plannable(node: Node) -> Mapping[str, int]:
    """What of each GPU's memory is planned with, where they are divided (MIG) of those as a whole."""
    return _planned(node, divided=False) or _planned(node, divided=True)


def _planned(node: Node, *, divided: bool) -> dict[str, int]:
    """By the GPU's identity; those of which a node tells too little are left out."""
    return {
        gpu["uuid"]: int(gpu["memory_total_bytes"] * DEVICE_SHARE)
        for gpu in node.hardware.get("gpus") or ()
        if gpu.get("uuid") and isinstance(gpu.get("memory_total_bytes"), int) and bool(gpu.get("divided")) is divided
    }


def need_of(tx: Transaction, node: Node, deployment: Deployment) -> Need:
    """What one replica of a deployment cannot do without on a node; nothing while no check has told."""
    gpus = whole(node).gpus if computes_on_gpus(deployment.runtime, machine_of(node)) else {}
    if not gpus:
        return Need(deployment.memory_bytes)
    version = tx.get(
        ModelVersion, scope=deployment.scope, model_id=deployment.model_id, version=deployment.model_version
    )
    devices = version.spec.tensor_parallel if version is not None else 1
    if len(gpus) < devices:  # it tells too little of them
        return Need(deployment.memory_bytes)
    return Need(0, devices, -(-deployment.memory_bytes // devices))


def free_of(tx: Transaction, node: Node, states: tuple[ReplicaState, ...] = HOLDING) -> Room:
    """What the replicas on a node, or those in these states, leave of it."""
    room = whole(node)
    for replica in tx.list(Replica, node_id=node.id, state=states):
        room.take(*_held(tx, node, replica))
    return room


def _held(tx: Transaction, node: Node, replica: Replica) -> tuple[Need, Gpus]:
    """What a replica reserves, and on which GPUs: one that was given none of its own computes on the first."""
    deployment = tx.get(Deployment, scope=replica.scope, id=replica.deployment_id)
    need = need_of(tx, node, deployment) if deployment else Need(0)
    gpus = replica.gpus or tuple(whole(node).gpus)[: need.gpus]
    return (need._replace(machine_bytes=replica.machine_bytes) if need.gpus else need), gpus


def find_room(tx: Transaction, node: Node, deployment: Deployment) -> Placed | Failure:
    """What one replica more is given; or what keeps it from this node."""
    need, room = need_of(tx, node, deployment), free_of(tx, node)
    chosen = room.place(need)
    if chosen is not None:
        return Placed(chosen, _asleep_bytes(node, deployment, room) if chosen else need.machine_bytes)
    if need.machine_bytes > max(room.machine_bytes, 0):
        free, all_of_it = max(room.machine_bytes, 0), node.memory_bytes
        message = f"A replica needs {gib(need.machine_bytes)} of memory and node {node.id} has {gib(free)} free."
        evidence = f"Other replicas hold {gib(all_of_it - room.machine_bytes)} of its {gib(all_of_it)}."
    else:
        message = f"A replica needs {gib(need.gpu_bytes)} of {_gpus(need.gpus)} and node {node.id} has too few free."
        most = whole(node).gpus
        each = (f"{gib(max(free, 0))} of {gib(most[gpu])} on {gpu}" for gpu, free in room.gpus.items())
        evidence = f"Free beside other replicas: {', '.join(each)}."
    fix = "Undeploy something else, or ask for a shorter context."
    return NoCapacity(message, evidence=evidence, fix=fix).failure


def _asleep_bytes(node: Node, deployment: Deployment, room: Room) -> int:
    """What of the machine's own memory is kept for a replica on GPUs to sleep in."""
    sleeps = deployment.scale_to_zero_after_s and sleep_mode_of(deployment.runtime, machine_of(node)) is not None
    return deployment.memory_bytes if sleeps and deployment.memory_bytes <= room.machine_bytes else 0


def no_room(tx: Transaction, node: Node, deployment: Deployment) -> Failure | None:
    """What keeps one more replica from this node; None when there is room."""
    found = find_room(tx, node, deployment)
    return found if isinstance(found, Failure) else None


def spare(tx: Transaction, node: Node, deployment: Deployment) -> list[Replica]:
    """The sleeping replicas to stop so that one more replica has room.

    None where that would not be enough, or where those that are ending already are. A sleeping engine keeps what it
    reserved, which holds its weights meanwhile and lets it wake, until somebody needs it.
    """
    need = need_of(tx, node, deployment)
    room = free_of(tx, node, tuple(state for state in HOLDING if state is not ReplicaState.DRAINING))
    chosen: list[Replica] = []
    for replica in tx.list(Replica, node_id=node.id, state=ReplicaState.ASLEEP):
        if room.place(need) is not None:
            break
        chosen.append(replica)
        room.give(*_held(tx, node, replica))
    if room.place(need) is None:
        return []
    return [replica for replica in chosen if not _sleeps_on(room, need, _held(tx, node, replica))]


def _sleeps_on(room: Room, need: Need, held: tuple[Need, Gpus]) -> bool:
    """Whether it need not be stopped: there is room with what it holds, too."""
    room.take(*held)
    if room.place(need) is not None:
        return True
    room.give(*held)
    return False


def _gpus(number: int) -> str:
    return f"the memory of each of {number} GPUs" if number > 1 else "a GPU's memory"


def gib(size_bytes: int) -> str:
    """For a person."""
    return f"{size_bytes / 1024**3:.2f} GiB"
