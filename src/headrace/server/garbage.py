"""Garbage of an event loop for which streams wait: looked for where there is little to look through.

Python looks for cycles once so many more containers were made than freed since the last time. While streams come and
go, as many are freed as are made: the count stays low, and the list of the youngest, which it is meant to bound, grows
with every new stream. When the count is reached after all, everything waits for the search of tens of thousands: 10 ms
at a time, measured beside 400 streams. So the youngest are looked through ten times a second, which costs what came
since, and what outlives that is set aside (`gc.freeze`): it is freed like everything else when nobody holds it, and
only looked through for cycles while nobody waits.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

SWEPT_EVERY_S = 0.1

WHOLE_EVERY_S = 60.0
"""After so long everything is looked through, as soon as nobody waits."""

WHOLE_AT_LAST_S = 600.0
"""After so long it is, whoever waits: some 30 ms, and as many more for each 1,000 streams."""


async def sweep(idle: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
    """Look for garbage, until cancelled.

    Args:
        idle: Whether nobody waits.
        clock: Seconds that never go back.
    """
    whole_at = clock()
    while True:
        await asyncio.sleep(SWEPT_EVERY_S)
        since_s = clock() - whole_at
        if since_s >= WHOLE_AT_LAST_S or (since_s >= WHOLE_EVERY_S and idle()):
            gc.unfreeze()
            gc.collect()
            whole_at = clock()
        else:
            gc.collect(1)
        gc.freeze()
