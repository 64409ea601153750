"""Who computes where on this machine: the assignment of `cores`, kept while replicas come and go."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.node.cores import Cores, assign


class Share(msgspec.Struct, frozen=True):
    """What one engine is to compute with.

    Attributes:
        threads: CPU threads; an engine keeps the number that it started with.
        cores: The processors that are its own for now; empty: any.
    """

    threads: int
    cores: Cores = ()


class CoreSharing:
    """The cores of one machine.

    Args:
        nodes: Its cores, by memory node.
        quota: Processors' worth of time that there is. Where that is less than there are cores, as in a container
            with a quota, nothing is pinned: other containers would be pinned to the same ones.
    """

    def __init__(self, nodes: Sequence[Cores], quota: float) -> None:
        self._nodes = nodes
        self._quota = max(1, int(quota))
        self._pins = self._quota >= sum(len(node) for node in nodes)
        self._held: dict[str, Cores] = {}
        self._members: list[str] = []

    def adopt(self, replica: str, cores: Cores) -> None:
        """An engine that was found running has these."""
        self._held[replica] = cores

    def follow(self, replicas: Sequence[str]) -> dict[str, Cores]:
        """Share the machine out among these; returns the replicas whose cores are others now."""
        if not self._pins or self._members == list(replicas):
            return {}
        self._members = list(replicas)
        before, self._held = self._held, assign(self._nodes, self._held, replicas)
        return {replica: cores for replica, cores in self._held.items() if before.get(replica) != cores}

    def share(self, replica: str, expected: int) -> Share:
        """What an engine is started with.

        Args:
            replica: It was among those of the last `follow`.
            expected: How many replicas are to run here in the end. The first of several gets all cores until the
                others come; threads it cannot give back, so it is given those of its share to come.
        """
        cores = self._held.get(replica, ())
        return Share(threads=max(1, self._quota // max(1, expected)), cores=cores)
