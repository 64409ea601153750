"""What the OpenVINO engine takes for kept in its pipeline's cache."""

from hypothesis import given
from hypothesis import strategies as st

from headrace_engines.openvino.prefixes import Prefixes

BLOCK = 4
TEXT = st.lists(st.integers(0, 1), max_size=30)


def shared(one: list[int], other: list[int]) -> int:
    """Tokens in whole blocks that both begin with."""
    blocks = 0
    while (end := (blocks + 1) * BLOCK) <= min(len(one), len(other)) and one[:end] == other[:end]:
        blocks += 1
    return blocks * BLOCK


@given(st.lists(TEXT, max_size=12), TEXT, st.integers(1, 12))
def test_only_what_was_computed_is_taken_for_kept(earlier: list[list[int]], text: list[int], blocks: int) -> None:
    """At most the longest beginning, in whole blocks, that it shares with an earlier text, and what there is room for;
    where nothing had to go, exactly that."""
    prefixes = Prefixes(blocks, BLOCK)
    for one in earlier:
        prefixes.keep(one)
    longest = max((shared(one, text) for one in earlier), default=0)
    kept = prefixes.kept(text)
    assert kept <= min(longest, blocks * BLOCK)
    if sum(len(one) // BLOCK for one in earlier) <= blocks:
        assert kept == longest


@given(st.lists(TEXT, max_size=12), TEXT)
def test_what_was_computed_last_is_kept(earlier: list[list[int]], text: list[int]) -> None:
    """All of it, whatever went for it."""
    prefixes = Prefixes(max(1, len(text) // BLOCK), BLOCK)
    for one in (*earlier, text):
        prefixes.keep(one)
    assert prefixes.kept(text) == len(text) // BLOCK * BLOCK


def test_what_was_asked_for_goes_last() -> None:
    """Of two texts that were computed, the one that another asked for since."""
    prefixes = Prefixes(3, BLOCK)
    first, second, third = [0] * BLOCK, [1] * BLOCK, [2] * 2 * BLOCK
    prefixes.keep(first)
    prefixes.keep(second)
    prefixes.kept(first)
    prefixes.keep(third)
    assert [prefixes.kept(text) for text in (first, second, third)] == [BLOCK, 0, 2 * BLOCK]
