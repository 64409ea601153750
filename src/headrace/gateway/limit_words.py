"""How a refusal speaks of a limit: whose it is, and who can raise it."""

from __future__ import annotations

from typing import NamedTuple

from headrace.resources.endpoint_limits import endpoint_in, is_of_each
from headrace.resources.errors import (
    EndpointLimitReached,
    EndpointLimitTooSmall,
    KeyLimitReached,
    KeyLimitTooSmall,
)


class LimitWords(NamedTuple):
    """Of one budget.

    Attributes:
        limit: What begins the sentence that it is reached.
        may_use: What a request needs more than.
        fix: Who can raise it; the end of a sentence.
        reached: The error that says that it does not fit now.
        too_small: The error that says that it never does.
    """

    limit: str
    may_use: str
    fix: str
    reached: type[KeyLimitReached]
    too_small: type[KeyLimitTooSmall]


_OF_KEY = LimitWords(
    "The key's limit",
    "its key may use",
    "have an admin raise the limit: `headrace keys update`.",
    KeyLimitReached,
    KeyLimitTooSmall,
)


def words_of(name: str) -> LimitWords:
    """Those of the budget of this name."""
    endpoint = endpoint_in(name)
    if not endpoint:
        return _OF_KEY
    who = "each key" if is_of_each(name) else "all keys together"
    return LimitWords(
        f"The limit of endpoint {endpoint} for {who}",
        f"{who} may use of endpoint {endpoint}",
        "have whoever manages the endpoint raise its rate limits.",
        EndpointLimitReached,
        EndpointLimitTooSmall,
    )
