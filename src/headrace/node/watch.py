"""Whether a READY or sleeping engine still answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from headrace.node.probe import EngineProbe, Patience
from headrace.resources.errors import EngineUnreachable, Failure


async def watch(
    probe: EngineProbe, patience: Patience, tell: Callable[[Failure | None], None], until: asyncio.Event
) -> None:
    """Look at an engine's health now and then, until `until` is set.

    Args:
        probe: Asks it.
        patience: What is taken from it.
        tell: Called after each look that means something: with why it does not answer, or None when it does.
        until: Ends this.

    Raises:
        EngineUnreachable: It has not answered for longer than the patience.
    """
    misses, silent_since = 0, 0.0
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience.every_s):
                await until.wait()
                return
        asked_at = time.monotonic()
        if await probe.healthy():
            misses = 0
            tell(None)
            continue
        misses += 1
        if misses == 1:
            silent_since = asked_at
        silent_s = time.monotonic() - silent_since
        if misses >= patience.misses_told:
            unreachable = _unreachable(misses, silent_s)
            if silent_s >= patience.give_up_s:
                raise unreachable
            tell(unreachable.failure)


def _unreachable(misses: int, silent_s: float) -> EngineUnreachable:
    return EngineUnreachable(
        "The engine does not answer its health check.",
        evidence=f"{misses} checks in a row failed, over {silent_s:.0f} s; the process lives.",
        fix="Nothing is sent to it until it answers again; after a minute it is replaced.",
    )
