"""How much of a version the machine would carry were it empty: what is more than that can never be sold.

Memory decides, and on CPUs the cores besides: engines share them evenly (`headrace.node.cores`), so one more replica
than there are cores for takes from the others what it does.
"""

from __future__ import annotations

from headrace.capacity.units import chunk, tokens_per_s
from headrace.control.bounds import MOST_REPLICAS
from headrace.control.placement import Need, Room, gib, home, need_of, whole
from headrace.resources.deployments import Deployment, MachineSpec
from headrace.resources.errors import Failure, ThroughputTooHigh
from headrace.resources.names import Scope
from headrace.resources.nodes import Node
from headrace.resources.profiles import Carried, Provision
from headrace.store import Transaction

_ROUNDING = 1e-6
"""Of tokens a second: ten replicas of 410 are 4,100, whatever a float makes of them."""


def need_alike(tx: Transaction, scope: Scope, model_id: str, version: str, machine: MachineSpec) -> Need | None:
    """What a replica of a version reserves, where the check of some deployment has told; else None."""
    deployments = tx.list(Deployment, scope=scope, model_id=model_id, model_version=version)
    alike = [one for one in deployments if one.machine == machine and one.memory_bytes and one.runtime]
    node = home(tx)
    if node is None or not alike:
        return None
    return need_of(tx, node, max(alike, key=lambda one: one.memory_bytes))


def need_here(tx: Transaction, deployment: Deployment) -> Need | None:
    """What a replica of a deployment reserves on the machine that it goes to; None while no check has told."""
    node = home(tx)
    return need_of(tx, node, deployment) if node is not None and deployment.memory_bytes else None


def room_for(tx: Transaction, need: Need | None, carried: Carried | None) -> int | None:
    """How many replicas the machine carries when nothing else runs there; None: that is not known yet.

    Args:
        tx: Where the node is.
        need: What one reserves; None: not known yet.
        carried: What one carries, and with how many cores.
    """
    node = home(tx)
    if node is None:
        return None
    by_memory = [_how_many(whole(node), need)] if need is not None else []
    by_cores = [max(node.cores // carried.cores, 1)] if carried is not None and carried.cores else []
    return min(by_memory + by_cores, default=None)


def _how_many(room: Room, need: Need) -> int:
    """As they would be placed one after the other; at most `MOST_REPLICAS`."""
    number = 0
    while number < MOST_REPLICAS and (gpus := room.place(need)) is not None:
        room.take(need, gpus)
        number += 1
    return number


def beyond(tx: Transaction, carried: Carried, provision: Provision, need: Need | None) -> Failure | None:
    """Why no machine here carries a throughput even were it empty; None where one does, or that is not known yet.

    Args:
        tx: Where the node is.
        carried: What a replica carries.
        provision: What was asked for.
        need: What a replica reserves; None: not known yet.
    """
    room = room_for(tx, need, carried)
    most = MOST_REPLICAS if room is None else min(room, MOST_REPLICAS)
    of_chunk = provision.chunk or chunk(carried)
    most_tokens = int(most * tokens_per_s(carried) + _ROUNDING) // of_chunk * of_chunk
    if provision.max_tokens_per_s <= most_tokens:
        return None
    node = home(tx)
    of_node = f"node {node.id} with {_has(node, need)}" if node and room is not None else "a deployment"
    takes = [_takes(need)] if need is not None else []
    takes += [f"{carried.cores} of {node.cores} cores"] if node and carried.cores else []
    replica = f", which takes {' and '.join(takes)}," if takes else ""
    each = f"{tokens_per_s(carried):,.0f} tokens a second"
    return ThroughputTooHigh(
        f"A throughput of {provision.max_tokens_per_s:,} tokens a second is more than {of_node} can ever carry.",
        evidence=f"A replica{replica} carries {each}; at most {most:,} have room.",
        fix=f"Ask for {most_tokens:,} at most, or for a smaller model or context." if most_tokens else "",
    ).failure


def _has(node: Node, need: Need | None) -> str:
    gpus = whole(node).gpus if need is not None and need.gpus else {}
    return f"{len(gpus)} GPUs, {gib(sum(gpus.values()))} of them planned with," if gpus else gib(node.memory_bytes)


def _takes(need: Need) -> str:
    if not need.gpus:
        return gib(need.machine_bytes)
    return f"{gib(need.gpu_bytes)} of {f'each of {need.gpus} GPUs' if need.gpus > 1 else 'a GPU'}"
