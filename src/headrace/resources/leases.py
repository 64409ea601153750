"""How the limits of keys are shared out among several gateways: what each of them tells control, and what it gets.

Each gateway holds a part of each limit, its lease, and gives away no more than that in any 60 s. It tells what it holds
and uses; control answers with what it should hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec

from headrace.resources.limits import KeyLimits

Unit: TypeAlias = Literal["requests", "tokens"]
LimitName: TypeAlias = tuple[str, Unit]
"""A key's id, and which of its limits."""


class LeaseUse(msgspec.Struct, frozen=True):
    """What one gateway has of one limit.

    Attributes:
        held: All that it may give away in any 60 s; at least `busy`.
        busy: What was used of it in the last 60 s or is reserved: it cannot be given back now.
        wanted: What requests need that wait there for more.
    """

    key_id: str
    unit: Unit
    held: int = 0
    busy: int = 0
    wanted: int = 0

    @property
    def name(self) -> LimitName:
        """Which limit."""
        return self.key_id, self.unit


class LeaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway tells.

    Attributes:
        number: Greater than that of every report before it, from whichever process was in this gateway's place.
        whole: Whether it holds nothing of the limits that are left out. Else they are as they were told before.
    """

    number: int
    whole: bool
    uses: tuple[LeaseUse, ...] = ()


class Lease(msgspec.Struct, frozen=True):
    """What a gateway should hold of one limit.

    Attributes:
        amount: It may give away so much from now on, if that is more than it held. If it is less, it gives back what is
            not in use, and says so with its next report.
        coming: Whether more is on its way back from others, so that it is worth while to wait.
    """

    key_id: str
    unit: Unit
    amount: int
    coming: bool = False

    @property
    def name(self) -> LimitName:
        """Which limit."""
        return self.key_id, self.unit


class LeaseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What control answers.

    Attributes:
        leases: Of limits that are left out the gateway should hold what it holds.
        again: Whether control knows nothing of this gateway, and needs a whole report.
    """

    leases: tuple[Lease, ...] = ()
    again: bool = False


def limits_by_name(key_id: str, limits: KeyLimits) -> Iterator[tuple[LimitName, int]]:
    """The limits that a key has."""
    if limits.requests_per_minute is not None:
        yield (key_id, "requests"), limits.requests_per_minute
    if limits.tokens_per_minute is not None:
        yield (key_id, "tokens"), limits.tokens_per_minute
