"""Requests under way, by the key that they showed: a key that is revoked ends them, and so does the server's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager

from headrace.resources.errors import HeadraceError, UnknownKey


class RunningRequests:
    """Each has a timeout without a date, which gets one when its key is revoked."""

    def __init__(self) -> None:
        self._key_ids: dict[asyncio.Timeout, str] = {}
        self._end: HeadraceError | None = None

    @asynccontextmanager
    async def with_key(self, key_id: str) -> AsyncIterator[None]:
        """Work for the holder of this key as long as it is good.

        Raises:
            UnknownKey: The key was revoked; what was under way in the block was cancelled.
            HeadraceError: What everything was ended with.
        """
        timeout = asyncio.timeout(None)
        try:
            async with timeout:
                self._key_ids[timeout] = key_id
                try:
                    yield
                finally:
                    self._key_ids.pop(timeout, None)
        except TimeoutError:
            if not timeout.expired():
                raise
            if self._end is not None:
                raise self._end from None
            raise UnknownKey(
                "The key was revoked while the request ran.",
                evidence=f"It is key {key_id}.",
                fix="Ask an admin for a new key.",
            ) from None

    def keep_only(self, key_ids: Set[str]) -> None:
        """End the requests of all other keys, at the next turn of the event loop."""
        for timeout in [timeout for timeout, key_id in self._key_ids.items() if key_id not in key_ids]:
            del self._key_ids[timeout]
            timeout.reschedule(0)  # long ago

    def end(self, error: HeadraceError) -> None:
        """End all requests with this error, at the next turn of the event loop."""
        self._end = error
        self.keep_only(frozenset())
