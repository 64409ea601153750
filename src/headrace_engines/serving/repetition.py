"""How many repetitions a pattern counts within one another: what following it costs at each token. Pure."""

from __future__ import annotations

MAX_COUNTED = 1_000
"""The most. An engine goes through the ways in which a text can be told apart into repetitions, at every token and for
all that run. In openvino a token of ``(x{1,100}){1,10}`` takes 5 ms at worst, of ``(x{1,100}){1,100}`` 90, of
``(x{1,200}){1,10}`` 600, of ``(x{1,1000}){1,1000}`` 1.7 s and more the longer the text is."""

ENDLESS_IN_COUNTED = 10
"""What an endless repetition counts for within a counted one: ``(x*y*){1,100}`` takes 3 ms a token, ``(x*y*){1,1000}``
400. By itself, or in an endless one, it counts nothing."""


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
        elif character == "{" and (bounds := _bounds(pattern, at)):
            lowest, highest, end = bounds
            worst = max(worst, _repeat(levels[-1], lowest, highest))
            at = end
        elif character != "?":
            at = _end_of_atom(pattern, at)
            levels[-1].last = (1, False)
        at += 1
    return worst


def _repeat(level: _Level, lowest: int, highest: int | None) -> int:
    """Repeat what came last; the product where that counts something itself, else 1."""
    counted, endless = level.last
    times = max(1, lowest if highest is None else highest)
    if endless and times > 1:
        counted = max(counted, ENDLESS_IN_COUNTED)
    level.add(times * counted, endless=endless or highest is None)
    return times * counted if times > 1 and counted > 1 else 1


def _bounds(pattern: str, at: int) -> tuple[int, int | None, int] | None:
    """Lower and upper bound of ``{m,n}``, None for no upper one, and where it ends; None for another brace."""
    end = pattern.find("}", at, at + 32)
    lowest, comma, highest = pattern[at + 1 : end].partition(",") if end > 0 else ("", "", "")
    numbers = (lowest or "0", highest or "0")
    if end < 0 or not (lowest or highest) or not all(each.isascii() and each.isdecimal() for each in numbers):
        return None
    least = int(numbers[0])
    if not comma:
        return least, least, end
    return least, int(highest) if highest else None, end


def _end_of_atom(pattern: str, at: int) -> int:
    """The last character of what begins here: an escape, a class, or itself."""
    if pattern[at] == "\\":
        return at + 1
    if pattern[at] != "[":
        return at
    at += 1
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at
