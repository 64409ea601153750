"""How a server that runs keeps the certificate of its private authority good."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from headrace.resources.errors import HeadraceError

LOOK_EVERY_S = 12 * 3600.0
"""Renewal is due for a month before the end, so that one that fails is tried some sixty times."""


async def keep_renewed(
    certify: Callable[[], Awaitable[None]], say: Callable[[str], None], *, every_s: float = LOOK_EVERY_S
) -> None:
    """Have the certificate looked at again and again, until cancelled. Gateways take up a new one by themselves.

    Args:
        certify: Replaces it, if that is due.
        say: Takes the sentences meant for a person.
        every_s: How often.
    """
    while True:
        await asyncio.sleep(every_s)
        try:
            await certify()
        except (HeadraceError, OSError) as error:
            say(f"The TLS certificate was not renewed: {error}")
