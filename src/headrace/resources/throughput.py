"""How a throughput is asked for: in tokens a second, or in chunks where nobody wants to look up how large those are."""

from __future__ import annotations

import re

import msgspec

from headrace.resources.errors import BadField
from headrace.resources.profiles import Provision

_RANGE = re.compile(r"(?P<least>[0-9]{1,9})(?P<chunks>x?)(?::(?P<most>[0-9]{1,9})(?P=chunks))?")


class Chunks(msgspec.Struct, frozen=True):
    """A throughput in chunks, whatever one of them is for the model and the machine.

    Attributes:
        least: Guaranteed; 0: nothing is.
        most: Admitted at most.
    """

    least: int
    most: int


Wish = Provision | Chunks
"""What was asked for; of a `Provision` only the two throughputs and the model units count."""


def read_throughput(text: str) -> Wish:
    """``MIN:MAX`` in tokens a second or, with an ``x`` after each, in chunks; one number is both.

    >>> read_throughput("2x:4x")
    Chunks(least=2, most=4)

    Raises:
        BadField: It is something else.
    """
    found = _RANGE.fullmatch(text)
    if found is None:
        raise BadField(
            "A throughput is MIN:MAX.",
            evidence=f"It is {text[:60]!r}.",
            fix="Give tokens a second, such as 980:1960, or chunks, such as 1x:2x; one number is both.",
        )
    least = int(found["least"])
    most = least if found["most"] is None else int(found["most"])
    if found["chunks"]:
        return Chunks(least, most)
    return Provision(min_tokens_per_s=least, max_tokens_per_s=most, chunk=0)
