"""Operators' patterns, looked for in users' texts: in the grammar of Python's ``re``, by a library that can be stopped.

Some patterns take longer for some texts than anybody can wait: ``(a|aa)+$`` doubles with each ``a``. ``re`` goes on for
as long as that takes, and whoever called it does nothing else; ``regex`` has a time limit.
"""

from __future__ import annotations

import re
from typing import TypeAlias

import regex

Pattern: TypeAlias = "regex.Pattern[str]"

_TOKEN = re.compile(r"\\N\{[^}]*\}|\\.|\{(?:\d+(?:,\d*)?|,\d*)\}|\{|\[:", re.DOTALL)
_PLAIN = {"{": r"\{", "[:": r"[\:"}
"""What ``re`` takes as it stands, and ``regex`` as a beginning: of how many errors are allowed, of a class of POSIX."""


def compiled(pattern: str) -> Pattern:
    """The pattern, as ``re`` understands it, to be used with a time limit.

    Raises:
        re.error: It is none.
        regex.error: Ditto.
        RecursionError: It is too deep.
        OverflowError: A number in it is too large.
    """
    re.compile(pattern)  # what else `regex` knows is refused: it would mean something else to everybody who reads it
    return regex.compile(_TOKEN.sub(lambda token: _PLAIN.get(token[0], token[0]), pattern), regex.VERSION0)
