"""What passes the guard of patterns is bounded work: how many repetitions go on at once, counted on an automaton."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any, NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace_engines.serving.ambiguity import MAX_ENDLESS, why_too_ambiguous

Node = tuple[Any, ...]
"""``("atom", letters)``, ``("sequence", nodes)`` or ``("repeated", node, lowest, highest or None)``."""

LETTERS = {"x": "x", "y": "y", ",": ",", "[xy]": "xy", ".": "xy,"}


class _Ends(NamedTuple):
    """Of a part of a pattern: the positions at which it may begin and end, and whether it may be nothing."""

    first: frozenset[int]
    last: frozenset[int]
    nullable: bool


class Automaton:
    """A pattern's positions, and which may follow which."""

    def __init__(self, node: Node) -> None:
        self.letters: list[str] = []
        self.owners: list[int] = []
        self.follow: dict[int, set[int]] = defaultdict(set)
        self._repetitions = itertools.count(1)
        self.first = self._add(node, 0).first

    def most_at_once(self, text: str) -> int:
        """The most repetitions without end that `text` may be in the middle of, after any of its characters."""
        most, active = 0, self.first
        for letter in text:
            here = {each for each in active if letter in self.letters[each]}
            most = max(most, len({self.owners[each] for each in here} - {0}))
            active = frozenset(each for position in here for each in self.follow[position])
        return most

    def _add(self, node: Node, owner: int) -> _Ends:
        if node[0] == "atom":
            self.letters.append(LETTERS[node[1]])
            self.owners.append(owner)
            here = frozenset({len(self.letters) - 1})
            return _Ends(here, here, nullable=False)
        if node[0] == "sequence":
            return self._joined([self._add(each, owner) for each in node[1]])
        _, inside, lowest, highest = node
        if highest is not None:
            copies = [self._add(inside, owner) for _ in range(highest)]
            return self._joined([each._replace(nullable=each.nullable or i >= lowest) for i, each in enumerate(copies)])
        before = [self._add(inside, owner) for _ in range(max(0, lowest - 1))]
        ends = self._add(inside, next(self._repetitions))
        for last in ends.last:
            self.follow[last] |= ends.first
        return self._joined([*before, ends._replace(nullable=ends.nullable or lowest == 0)])

    def _joined(self, parts: list[_Ends]) -> _Ends:
        joined = _Ends(frozenset(), frozenset(), nullable=True)
        for part in parts:
            for last in joined.last:
                self.follow[last] |= part.first
            joined = _Ends(
                joined.first | part.first if joined.nullable else joined.first,
                joined.last | part.last if part.nullable else part.last,
                nullable=joined.nullable and part.nullable,
            )
        return joined


def written(node: Node) -> str:
    """The pattern."""
    if node[0] == "atom":
        return str(node[1])
    if node[0] == "sequence":
        return "".join(map(written, node[1]))
    _, inside, lowest, highest = node
    return f"({written(inside)}){{{lowest},{'' if highest is None else highest}}}"


def repeated(node: Node, lowest: int = 0, highest: int | None = None) -> Node:
    """A repetition."""
    return ("repeated", node, lowest, highest)


X: Node = ("atom", "x")
TIMES = st.sampled_from([(0, None), (0, None), (1, None), (2, None), (0, 1), (2, 2), (1, 3)])
PATTERNS: st.SearchStrategy[Node] = st.recursive(
    st.sampled_from(sorted(LETTERS)).map(lambda letter: ("atom", letter)),
    lambda inner: (
        st.tuples(inner, TIMES).map(lambda both: repeated(both[0], *both[1]))
        | st.lists(inner, min_size=1, max_size=8).map(lambda each: ("sequence", each))
    ),
    max_leaves=24,
)


@settings(deadline=None, max_examples=500)
@given(PATTERNS, st.text(alphabet="xy,", max_size=40))
@example(("sequence", [repeated(X)] * 40), "x" * 40)
@example(("sequence", [repeated(repeated(repeated(X)))] * 40), "x" * 40)
@example(("sequence", [repeated(("sequence", [repeated(X), ("atom", ",")]))] * 3), "x,x" * 10)
def test_few_repetitions_go_on_at_once_in_a_pattern_that_passes(node: Node, text: str) -> None:
    """Whatever the text: `MAX_ENDLESS` within one sequence, and as many again around those."""
    if not why_too_ambiguous(written(node)):
        assert Automaton(node).most_at_once(text) <= 2 * MAX_ENDLESS


def test_the_counter_counts() -> None:
    """It would see what the guard refuses."""
    assert Automaton(("sequence", [repeated(X)] * 40)).most_at_once("x" * 40) == 40
    assert Automaton(repeated(("sequence", [repeated(X), ("atom", ",")]))).most_at_once("xx,x") == 1
