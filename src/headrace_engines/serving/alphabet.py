"""Which characters an atom of a pattern may be, as bits: one for each of ASCII, one for all others. Pure."""

from __future__ import annotations

import re

OTHERS = 1 << 128
EVERY = (1 << 129) - 1

_DIGITS = sum(1 << each for each in range(ord("0"), ord("9") + 1))
_WORDS = OTHERS | sum(1 << each for each in range(128) if chr(each).isalnum() or chr(each) == "_")
_SPACES = OTHERS | sum(1 << each for each in b" \t\n\r\f\v")
_ESCAPED = {
    "d": _DIGITS | OTHERS,
    "w": _WORDS,
    "s": _SPACES,
    "n": 1 << 10,
    "t": 1 << 9,
    "r": 1 << 13,
    "f": 1 << 12,
    "v": 1 << 11,
}
"""Any other letter or digit may stand for anything."""

_MORE_THAN_MEMBERS = re.compile(r"\[|&&|--|~~|-\\|\\[^\Wdwsntrfv_]")
"""Classes and operators in a class, a range to an escape, an escape that may stand for anything."""


def of_character(character: str) -> int:
    """The bit of one character; of a letter both cases', as a pattern may begin with ``(?i)``."""
    return _bit(character.lower()) | _bit(character.upper())


def of_escape(character: str) -> int:
    """What a character stands for after a backslash."""
    if character in _ESCAPED:
        return _ESCAPED[character]
    return EVERY if character.isalnum() else of_character(character)


def of_class(inside: str) -> int:
    """What a class stands for, between its brackets; everything where it is more than characters and ranges."""
    if _MORE_THAN_MEMBERS.search(inside):
        return EVERY
    if inside.startswith("^"):  # some of the others may be left out, never all
        return EVERY & ~_of_members(inside[1:], negated=True) | OTHERS
    return _of_members(inside, negated=False)


def _of_members(inside: str, *, negated: bool) -> int:
    """The bits, too many rather than too few; of a negated class, too few rather than too many."""
    members, at = 0, 0
    while at < len(inside):
        character, at = inside[at], at + 1
        if character == "\\" and at < len(inside):
            members, at = members | of_escape(inside[at]), at + 1
        elif inside[at : at + 1] == "-" and at + 1 < len(inside):
            members |= _of_range(ord(character), ord(inside[at + 1]), negated=negated)
            at += 2
        else:
            members |= _bit(character) if negated else of_character(character)
    return members


def _of_range(first: int, last: int, *, negated: bool) -> int:
    bits = OTHERS if last > 127 else 0
    for code in range(first, min(last, 127) + 1):
        bits |= 1 << code if negated else of_character(chr(code))
    return bits


def _bit(character: str) -> int:
    return 1 << ord(character) if len(character) == 1 and character.isascii() else OTHERS
