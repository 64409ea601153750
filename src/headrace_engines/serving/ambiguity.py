r"""In how many ways a text can be told apart into a pattern's repetitions: what following it costs at each token. Pure.

An engine goes through all of them, for all beginnings that they may have had, at every token and for all that run.
What keeps them few is a character between repetitions that none of them has: ``([a-z]+,)*`` costs nothing. Measured
with xgrammar 0.2.8 (vLLM's; OpenVINO GenAI has it inside) and 49,152 tokens, on one core, with a text of ``x`` alone:

    (\w+\s*)*            0.2 ms a token after 300 characters, 1.1 after 1,500
    (\w+\s*)*(\w+\s*)*  21 ms after 300; five of them 53 ms after 100
    (\w+ ?)*            50 ms from the beginning; of 200 random patterns that pass, the worst took 80 on average
    (x*)*               0.3 ms after 1,500
    (x*)*,  (x*)*x*     40 ms after 200, with the third power of the length
    ((x*)*)*            40 ms after 200, likewise
    (x+|x+|…)*          110 ms after 60 with a hundred of them
    x*x*x*              0.3 ms after 1,500
    x*x*x*x*x*          8 ms after 900
    ten and twenty x*   9 ms after 300, 30 ms after 240
    ([a-z]?){1,40}      340 ms from the beginning, {1,10} 15
    ([a-z]+ ?){1,5}     190 ms from the beginning
    (.{1,3})+           180 ms from the beginning; (.{1,3}){1,30} 550

So a repetition may repeat another without anything between the rounds once, at a pattern's end; `MAX_ENDLESS` may
follow one another, and `MAX_VARIABLE` bounded ones; and what is counted between two numbers is repeated with something
between the rounds only.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from headrace_engines.serving.alphabet import EVERY, of_character, of_class, of_escape
from headrace_engines.serving.repetition import bounds, end_of_atom

MAX_ENDLESS = 5
"""Repetitions without end over the same character with nothing between them."""

MAX_VARIABLE = 10
"""The same, of anything else that may be longer or shorter."""

_COUNTED = 2
"""How much more an endless repetition counts in a counted one."""

MAX_NESTED = 64
"""Groups within one another; an engine's reader of patterns recurses into them."""

_APART = "put a character between them that neither has, as in ([a-z]+,)*[a-z]+"
_WITHIN = f"a pattern repeats without end what repeats by itself, and more follows or is repeated with it; {_APART}."
_RANGES = f"a pattern repeats what it counts by itself, with nothing between the rounds; {_APART}."


class TooAmbiguous(ValueError):
    """A text could be told apart into the pattern's repetitions in too many ways; the message says how they come."""


class _Part(NamedTuple):
    """An atom or a group, with what quantifies it.

    Attributes:
        letters: The characters it may have.
        endless: Repetitions without end that may go on at once in it.
        variable: Other parts of it whose length may differ.
        around: The endless ones at its beginning and its end together, which meet when it is repeated.
        total: All endless ones, those of different alternatives too.
        nullable: Whether it may be nothing.
        parted: Whether something tells where one ends and the next begins.
        loops: Whether it ends in a repetition of repetitions that nothing parts.
        ranges: Whether it has a repetition between two counts, outside of what is parted and repeated.
    """

    letters: int
    endless: int = 0
    variable: int = 0
    around: int = 0
    total: int = 0
    nullable: bool = False
    parted: bool = False
    loops: bool = False
    ranges: bool = False

    @property
    def fixed(self) -> bool:
        """Whether it always has the same length."""
        return not (self.endless or self.variable or self.nullable)

    def repeated(self, lowest: int, highest: int | None) -> _Part:
        """This part, repeated; without end where `highest` is None."""
        nullable = self.nullable or lowest == 0
        if highest is not None and highest <= 1:
            return self._replace(nullable=nullable, variable=self.variable + (self.fixed and lowest == 0))
        if self.loops:
            raise TooAmbiguous(_WITHIN)
        if self.fixed and highest is not None:
            ranges = lowest != highest
            return self._replace(nullable=nullable, variable=int(ranges), ranges=ranges, parted=False)
        if self.parted:
            most = max(self.endless, self.around, highest is None)
            total = max(self.total, most)
            return self._replace(endless=most, total=total, nullable=nullable, around=most, parted=False, ranges=False)
        if self.ranges:
            raise TooAmbiguous(_RANGES)
        if highest is None:
            loops = bool(self.endless) or self.nullable
            if loops and self.total > MAX_ENDLESS:
                raise TooAmbiguous(_too_many(self.total, "that are repeated together"))
            most = max(1, self.endless)
            return _Part(self.letters, most, around=most, total=max(1, self.total), nullable=nullable, loops=loops)
        endless, variable = self.endless * highest * _COUNTED, max(self.variable, self.nullable) * highest
        return self._replace(endless=endless, variable=variable, around=endless, total=endless, nullable=nullable)


class _Heights:
    """How often each character occurs: layer by layer, the characters that do so once, twice, and so on."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._layers: list[int] = []

    @property
    def height(self) -> int:
        return len(self._layers)

    def add(self, letters: int, times: int) -> None:
        for _ in range(min(times, self._most + 1)):
            rest = letters
            for index, layer in enumerate(self._layers):
                self._layers[index], rest = layer | rest, layer & rest
            if rest:
                self._layers.append(rest)
            if self.height > self._most:
                return


class _Sequence:
    """Parts that follow one another."""

    def __init__(self) -> None:
        self.letters, self.nullable, self.loops, self.ranges = 0, True, False, False
        self.open, self.several = 0, 0
        self.separators: set[int] = set()
        self.peak, self.most_variable = 0, 0
        self.head: int | None = None
        self.parts = 0
        self._begin()

    def _begin(self) -> None:
        self.endless, self.variable = _Heights(MAX_ENDLESS), _Heights(MAX_VARIABLE)

    @property
    def absorbed(self) -> int:
        """What the parts of no fixed length may have, and so cannot tell where one of them ends."""
        return self.open | (self.several if self.several & self.open else 0)

    def add(self, part: _Part) -> None:
        """Go on with a part."""
        if self.loops:
            raise TooAmbiguous(_WITHIN)
        self.parts += 1
        self.letters, self.nullable = self.letters | part.letters, self.nullable and part.nullable
        if part.fixed:
            if not part.letters & self.absorbed:
                self.head = self.endless.height if self.head is None else self.head
                self._begin()
            self.separators.add(part.letters)
            self.several |= part.letters if part.letters.bit_count() > 1 else 0
            return
        self.open, self.loops = self.open | part.letters, part.loops
        self.ranges = self.ranges or part.ranges
        self.endless.add(part.letters, part.endless)
        self.variable.add(part.letters, part.variable)
        if self.endless.height > MAX_ENDLESS:
            raise TooAmbiguous(_too_many(MAX_ENDLESS + 1, "that follow one another"))
        if self.variable.height > MAX_VARIABLE:
            raise TooAmbiguous(
                f"a pattern has more than {MAX_VARIABLE} parts that may be longer, shorter or nothing over the same "
                f"characters; {_APART}, or count them together, as in x{{0,100}}."
            )
        self.peak = max(self.peak, self.endless.height)
        self.most_variable = max(self.most_variable, self.variable.height)

    @property
    def around(self) -> int:
        return self.endless.height + (0 if self.head is None else self.head)

    @property
    def parted(self) -> bool:
        return any(not separator & self.absorbed for separator in self.separators)


def _too_many(count: int, how: str) -> str:
    return (
        f"a pattern has {count} endless repetitions or more {how} over the same characters, and at most {MAX_ENDLESS} "
        f"are followed; {_APART}."
    )


class _Group:
    """Alternatives, and the part that a quantifier would now repeat.

    Args:
        looks: Whether it only looks ahead or back.
    """

    def __init__(self, *, looks: bool = False) -> None:
        self._looks = looks
        self.alternatives = [_Sequence()]
        self.last: _Part | None = None

    def put(self, part: _Part | None) -> None:
        """The last part is as it is; what comes next may still be quantified."""
        if self.last is not None:
            self.alternatives[-1].add(self.last)
        self.last = part

    def repeat(self, lowest: int, highest: int | None) -> None:
        """What came last, by a quantifier."""
        if self.last is not None:
            self.last = self.last.repeated(lowest, highest)

    def next_alternative(self) -> None:
        """Begin another one."""
        self.put(None)
        self.alternatives.append(_Sequence())

    def closed(self) -> _Part:
        """The whole of it."""
        self.put(None)
        every = self.alternatives
        letters = 0
        for each in every:
            letters |= each.letters
        same = all(each.parts == 1 and not each.open for each in every)
        variable = max(each.most_variable for each in every)
        return _Part(
            letters,
            endless=max(each.peak for each in every),
            variable=variable if len(every) == 1 or same else max(1, variable),
            around=max(each.around for each in every),
            total=sum(each.peak for each in every),
            nullable=self._looks or any(each.nullable for each in every),
            parted=all(each.parted for each in every),
            loops=any(each.loops for each in every),
            ranges=any(each.ranges for each in every),
        )


_OPENED = re.compile(r"\((?P<looks>\?<?[=!]|\?[a-zA-Z-]*(?=\)))?(?:\?(?:[:>]|P?<\w*>|[a-zA-Z-]*:))?")
_ESCAPE = re.compile(r"\\(?:[xuUpPcNk](?:\{[^}]{0,99}\}|[0-9a-fA-F]{2,8})?|.)", re.DOTALL)
_QUANTIFIED = re.compile(r"(?:[^\\*+?{(]|\\.)*[*+?{(]", re.DOTALL)
_NOWHERE = frozenset("^$")
_PLACES = frozenset("bBAzZG")
"""Letters that name a place after a backslash, not a character."""


def why_too_ambiguous(pattern: str) -> str:
    """Why an engine would be long at every token of a pattern; empty where it would not.

    Args:
        pattern: A regular expression; one that is broken is read as far as it makes sense.
    """
    if not _QUANTIFIED.match(pattern):
        return ""
    try:
        _read(pattern)
    except TooAmbiguous as error:
        return str(error)
    return ""


def _read(pattern: str) -> None:
    groups, at = [_Group()], 0
    while at < len(pattern):
        character, group, end = pattern[at], groups[-1], at
        if character == "(" and (opened := _OPENED.match(pattern, at)):
            if len(groups) > MAX_NESTED:
                raise TooAmbiguous(f"a pattern has more than {MAX_NESTED} groups within one another.")
            groups.append(_Group(looks=bool(opened["looks"])))
            end = opened.end() - 1
        elif character == ")" and len(groups) > 1:
            closed = groups.pop().closed()
            groups[-1].put(closed)
        elif character == "|":
            group.next_alternative()
        elif character in "*+?" or (character == "{" and bounds(pattern, at)):
            lowest, highest, end = bounds(pattern, at) or (int(character == "+"), 1 if character == "?" else None, at)
            group.repeat(lowest, highest)
        else:
            letters, end = _atom(pattern, at)
            group.put(_Part(letters) if letters else None)
        at = end + 1
    while groups:
        closed = groups.pop().closed()
        if groups:
            groups[-1].put(closed)


def _atom(pattern: str, at: int) -> tuple[int, int]:
    """What begins here: the characters that it may have, none for a place, and where it ends."""
    character = pattern[at]
    if character in _NOWHERE:
        return 0, at
    if character == "[":
        end = end_of_atom(pattern, at)
        return of_class(pattern[at + 1 : end]), end
    if character == "\\" and (escape := _ESCAPE.match(pattern, at)):
        named = pattern[at + 1]
        return 0 if named in _PLACES else of_escape(named), escape.end() - 1
    return EVERY if character == "." else of_character(character), at
