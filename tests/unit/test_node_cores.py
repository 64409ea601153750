"""The promises of the assignment of cores to replicas: fair, disjoint, stable, and near their memory."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from headrace.node.cores import Cores, assign

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=4)
STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=40)


def machine(sizes: list[int]) -> list[Cores]:
    """Memory nodes of these numbers of cores."""
    first = 0
    nodes = []
    for size in sizes:
        nodes.append(tuple(range(first, first + size)))
        first += size
    return nodes


@given(SIZES, STEPS)
def test_shares_are_fair_and_kept_through_joins_and_leaves(sizes: list[int], steps: list[tuple[bool, int]]) -> None:
    """After every change: a core at least for each, shares alike, no core idle, and nobody moved without need."""
    nodes = machine(sizes)
    cores = {core for node in nodes for core in node}
    replicas: list[str] = []
    shares: dict[str, Cores] = {}
    for number, (joins, which) in enumerate(steps):
        before = shares
        if joins or not replicas:
            replicas.append(f"r{number}")
        else:
            replicas.pop(which % len(replicas))
        shares = assign(nodes, before, replicas)
        assert list(shares) == replicas
        on = Counter(core for share in shares.values() for core in share)
        assert set(on) <= cores
        lengths = [len(share) for share in shares.values()]
        if replicas:
            assert min(lengths) >= 1
            assert max(lengths) - min(lengths) <= 1
        if 0 < len(replicas) <= len(cores):
            assert set(on.values()) == {1}
            assert set(on) == cores
        elif replicas:
            assert set(on) == cores
            assert max(on.values()) - min(on.values()) <= 1
        if replicas and len(set().union(*before.values())) == sum(map(len, before.values())):
            for replica, share in shares.items():
                kept = set(share) & set(before.get(replica, ()))
                assert len(kept) == min(len(share), len(before.get(replica, ())))
        assert assign(nodes, shares, replicas) == shares


def test_two_replicas_share_two_cores_and_the_one_that_stays_gets_both() -> None:
    """The case of a small machine, step by step."""
    nodes = [(0, 1)]
    alone = assign(nodes, {}, ["a"])
    assert alone == {"a": (0, 1)}
    both = assign(nodes, alone, ["a", "b"])
    assert both == {"a": (0,), "b": (1,)}
    assert assign(nodes, both, ["a", "b", "c"]) == {"a": (0,), "b": (1,), "c": (0,)}
    assert assign(nodes, both, ["b"]) == {"b": (0, 1)}


def test_a_replica_stays_within_a_memory_node_where_it_fits() -> None:
    """Two on two nodes get one each; a third takes what the two give up; a small one goes where it fits best."""
    nodes = machine([4, 4])
    two = assign(nodes, assign(nodes, {}, ["a"]), ["a", "b"])
    assert two == {"a": (0, 1, 2, 3), "b": (4, 5, 6, 7)}
    four = assign(nodes, two, ["a", "b", "c", "d"])
    assert {share[0] // 4 for share in four.values()} == {0, 1}
    assert all(share[0] // 4 == share[-1] // 4 for share in four.values())
    assert assign(machine([8, 4]), {"a": (0, 1, 2, 3), "b": (4, 5, 6, 7)}, ["a", "b", "c"])["c"] == (8, 9, 10, 11)
