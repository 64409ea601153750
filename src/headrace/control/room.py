"""How much of a version the machine would carry were it empty: what is more than that can never be sold.

Memory decides, and on CPUs the cores besides: engines share them evenly (`headrace.node.cores`), so one more replica
than there are cores for takes from the others what it does.
"""

from __future__ import annotations

from headrace.capacity.units import chunk, tokens_per_s
from headrace.control.bounds import MOST_REPLICAS
from headrace.control.placement import gib, home
from headrace.resources.deployments import Deployment, MachineSpec
from headrace.resources.errors import Failure, ThroughputTooHigh
from headrace.resources.names import Scope
from headrace.resources.profiles import Carried, Provision
from headrace.store import Transaction

_ROUNDING = 1e-6
"""Of tokens a second: ten replicas of 410 are 4,100, whatever a float makes of them."""


def replica_bytes(tx: Transaction, scope: Scope, model_id: str, version: str, machine: MachineSpec) -> int:
    """What a replica of a version reserves, where the check of some deployment has told; else 0."""
    alike = tx.list(Deployment, scope=scope, model_id=model_id, model_version=version)
    return max((one.memory_bytes for one in alike if one.machine == machine), default=0)


def room_for(tx: Transaction, memory_bytes: int, carried: Carried | None) -> int | None:
    """How many replicas the machine carries when nothing else runs there; None: that is not known yet.

    Args:
        tx: Where the node is.
        memory_bytes: What one reserves; 0: not known yet.
        carried: What one carries, and with how many cores.
    """
    node = home(tx)
    if node is None:
        return None
    by_memory = [node.memory_bytes // memory_bytes] if memory_bytes else []
    by_cores = [max(node.cores // carried.cores, 1)] if carried is not None and carried.cores else []
    return min(by_memory + by_cores, default=None)


def beyond(tx: Transaction, carried: Carried, provision: Provision, memory_bytes: int) -> Failure | None:
    """Why no machine here carries a throughput even were it empty; None where one does, or that is not known yet.

    Args:
        tx: Where the node is.
        carried: What a replica carries.
        provision: What was asked for.
        memory_bytes: What a replica reserves; 0: not known yet.
    """
    room = room_for(tx, memory_bytes, carried)
    most = MOST_REPLICAS if room is None else min(room, MOST_REPLICAS)
    of_chunk = provision.chunk or chunk(carried)
    most_tokens = int(most * tokens_per_s(carried) + _ROUNDING) // of_chunk * of_chunk
    if provision.max_tokens_per_s <= most_tokens:
        return None
    node = home(tx)
    of_node = f"node {node.id} with {gib(node.memory_bytes)}" if node and room is not None else "a deployment"
    takes = [gib(memory_bytes)] if memory_bytes else []
    takes += [f"{carried.cores} of {node.cores} cores"] if node and carried.cores else []
    replica = f", which takes {' and '.join(takes)}," if takes else ""
    each = f"{tokens_per_s(carried):,.0f} tokens a second"
    return ThroughputTooHigh(
        f"A throughput of {provision.max_tokens_per_s:,} tokens a second is more than {of_node} can ever carry.",
        evidence=f"A replica{replica} carries {each}; at most {most:,} have room.",
        fix=f"Ask for {most_tokens:,} at most, or for a smaller model or context." if most_tokens else "",
    ).failure
