"""Waiting for something in the store to become true, on behalf of a client that would ask again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from headrace.api.requests import Context
from headrace.store import Transaction

_PAUSES_S = (0.05, 0.1, 0.2)
"""Between looks; the last one repeats. A look is an indexed read of a few rows, some 0.2 ms."""

T = TypeVar("T")


async def until(
    context: Context, work: Callable[[Transaction], T], satisfied: Callable[[T], bool], *, wait_s: float
) -> T:
    """Read until it is satisfying or the time is over; the last reading either way.

    The store tells nobody of changes (other processes write it too), so this looks again and again.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    looks = 0
    while True:
        value = await context.read(work)
        left_s = deadline - loop.time()
        if satisfied(value) or left_s <= 0:
            return value
        await asyncio.sleep(min(_PAUSES_S[min(looks, len(_PAUSES_S) - 1)], left_s))
        looks += 1
