"""What compilers of grammars say of one that they cannot follow, as it is told to a client. Standard library only."""

from __future__ import annotations

import re

_WHY_MAX_CHARS = 500

_PLACE_IN_SOURCE = re.compile(r"^\[[\d:]+\] \S+:\d+: ")
"""What xgrammar begins its messages with: the time, and where in its own source it gave up."""


def told_by_xgrammar(message: str) -> str:
    """Why a grammar cannot be followed, without the compiler's insides."""
    return _PLACE_IN_SOURCE.sub("", message.strip())[:_WHY_MAX_CHARS]
