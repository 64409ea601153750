"""Which cores are whose: engines that compute on the same ones wait for each other's threads.

Every replica gets an even share of the machine, of its own as long as there is a core for each. What it has it keeps
through joins and leaves as far as its share allows, because its caches, and on a large machine its memory, are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

Cores = tuple[int, ...]
"""Processors by the kernel's number, sorted."""


def assign(nodes: Sequence[Cores], held: Mapping[str, Cores], replicas: Sequence[str]) -> dict[str, Cores]:
    """The cores of every replica.

    Shares differ by one core at most, and by none of them are two replicas' the same, until there are more replicas
    than cores: then each has one, and the cores' numbers of replicas differ by one at most.

    Args:
        nodes: The machine's cores, by the memory node (NUMA) that they are next to.
        held: What replicas have now; of those that leave it may still be in here.
        replicas: Those that are to have cores from now on, in the order in which they came.
    """
    cores = [core for node in nodes for core in node]
    if len(replicas) >= len(cores):
        return _double_up(cores, held, replicas)
    node_of = {core: index for index, node in enumerate(nodes) for core in node}
    shares = _keep(node_of, held, replicas)
    taken = {core for share in shares.values() for core in share}
    free = {index: [core for core in node if core not in taken] for index, node in enumerate(nodes)}
    for replica, quota in _quotas(len(cores), shares).items():
        while (missing := quota - len(shares[replica])) > 0:
            source = free[_source(free, Counter(node_of[core] for core in shares[replica]), missing)]
            shares[replica] += source[:missing]
            del source[:missing]
    return {replica: tuple(sorted(share)) for replica, share in shares.items()}


def _keep(node_of: Mapping[int, int], held: Mapping[str, Cores], replicas: Sequence[str]) -> dict[str, list[int]]:
    """What each replica can keep; of a larger share, the cores in the node where it has the most."""
    taken: set[int] = set()
    own: dict[str, list[int]] = {}
    for replica in replicas:
        own[replica] = [core for core in held.get(replica, ()) if core in node_of and core not in taken]
        taken.update(own[replica])
    kept: dict[str, list[int]] = {}
    for replica, quota in _quotas(len(node_of), own).items():
        at = Counter(node_of[core] for core in own[replica])
        kept[replica] = sorted(own[replica], key=lambda core: (-at[node_of[core]], node_of[core], core))[:quota]
    return {replica: kept[replica] for replica in replicas}


def _quotas(cores: int, shares: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """How many cores each gets. What is left over of an even division goes to those that have the most already."""
    least, over = divmod(cores, len(shares) or 1)
    by_size = sorted(shares, key=lambda replica: -len(shares[replica]))
    return {replica: least + (rank < over) for rank, replica in enumerate(by_size)}


def _source(free: Mapping[int, Sequence[int]], at: Mapping[int, int], missing: int) -> int:
    """The node to take cores from: where the replica is, else the tightest with room for all, else the emptiest."""
    there = [node for node in free if free[node]]
    home = max((node for node in there if node in at), key=lambda node: at[node], default=None)
    if home is not None:
        return home
    roomy = [node for node in there if len(free[node]) >= missing]
    return min(roomy, key=lambda node: len(free[node])) if roomy else max(there, key=lambda node: len(free[node]))


def _double_up(cores: Sequence[int], held: Mapping[str, Cores], replicas: Sequence[str]) -> dict[str, Cores]:
    least, over = divmod(len(replicas), len(cores))
    on: Counter[int] = Counter(dict.fromkeys(cores, 0))
    kept: dict[str, Cores] = {}
    for replica in replicas:
        core = next((core for core in held.get(replica, ()) if core in on and on[core] < least + (over > 0)), None)
        if core is not None:
            over -= on[core] == least
            on[core] += 1
            kept[replica] = (core,)
    for replica in replicas:
        if replica not in kept:
            core = min(cores, key=lambda core: on[core])
            on[core] += 1
            kept[replica] = (core,)
    return {replica: kept[replica] for replica in replicas}
