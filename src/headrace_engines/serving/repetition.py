"""How many repetitions a pattern counts within one another: what following it costs at each token. Pure."""

from __future__ import annotations

import re

MAX_COUNTED = 1_000
"""The most. An engine goes through the ways in which a text can be told apart into repetitions, at every token and for
all that run. In openvino a token of ``(x{1,100}){1,10}`` takes 5 ms at worst, of ``(x{1,100}){1,100}`` 90, of
``(x{1,200}){1,10}`` 600, of ``(x{1,1000}){1,1000}`` 1.7 s and more the longer the text is."""

ENDLESS_IN_COUNTED = 10
"""What an endless repetition counts for within a counted one: ``(x*y*){1,100}`` takes 3 ms a token, ``(x*y*){1,1000}``
400. What endless ones cost by themselves, and within one another, is `serving.ambiguity`'s."""


_MOST = 10**9
"""Larger counts and products are not told apart: far more than any engine follows."""

_BOUNDS = re.compile(r"\{ *(?P<lowest>[0-9]*) *(?P<comma>,?) *(?P<highest>[0-9]*) *\}")


class _Level:
    """A group, or the whole pattern.

    Attributes:
        counted: The largest count in it so far, times those that it stands within.
        endless: Whether something in it repeats without end.
        last: Both, of what a quantifier would now repeat.
    """

    def __init__(self) -> None:
        self.counted, self.endless = 1, False
        self.last = (1, False)

    def add(self, counted: int, *, endless: bool) -> None:
        self.counted, self.endless = max(self.counted, counted), self.endless or endless
        self.last = (counted, endless)


def counted_repetitions(pattern: str) -> int:
    """The largest product of repetition counts that stand within one another; 1 where none does.

    Args:
        pattern: A regular expression; one that is broken is read as far as it makes sense.
    """
    levels = [_Level()]
    at, worst = 0, 1
    while at < len(pattern):
        character = pattern[at]
        if character == "(":
            levels.append(_Level())
        elif character == ")" and len(levels) > 1:
            group = levels.pop()
            levels[-1].add(group.counted, endless=group.endless)
        elif character in "*+":
            levels[-1].add(levels[-1].last[0], endless=True)
        elif character == "{" and (found := bounds(pattern, at)):
            lowest, highest, end = found
            worst = max(worst, _repeat(levels[-1], lowest, highest))
            at = end
        elif character != "?":
            at = end_of_atom(pattern, at)
            levels[-1].last = (1, False)
        at += 1
    return worst


def _repeat(level: _Level, lowest: int, highest: int | None) -> int:
    """Repeat what came last; the product where that counts something itself, else 1."""
    counted, endless = level.last
    times = max(1, lowest if highest is None else highest)
    if endless and times > 1:
        counted = max(counted, ENDLESS_IN_COUNTED)
    product = min(_MOST, times * counted)
    level.add(product, endless=endless or highest is None)
    return product if times > 1 and counted > 1 else 1


def bounds(pattern: str, at: int) -> tuple[int, int | None, int] | None:
    """Lower and upper bound of ``{m,n}``, None for no upper one, and where it ends; None for another brace."""
    found = _BOUNDS.match(pattern, at)
    if found is None or not (found["lowest"] or found["highest"]):
        return None
    least, end = _number(found["lowest"]), found.end() - 1
    if not found["comma"]:
        return least, least, end
    return least, _number(found["highest"]) if found["highest"] else None, end


def _number(digits: str) -> int:
    """What digits say, however many zeros they begin with, up to `_MOST`."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) < len(str(_MOST)) else _MOST


def end_of_atom(pattern: str, at: int) -> int:
    """The last character of what begins here: an escape, a class, or itself."""
    if pattern[at] == "\\":
        return at + 1
    if pattern[at] != "[":
        return at
    at += 1
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at
