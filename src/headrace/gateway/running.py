"""Requests under way, by the key that they showed: a key that is revoked ends them, and so does the server's end."""

from __future__ import annotations

import asyncio
from collections.abc import Set
from types import TracebackType
from typing import Literal

from headrace.resources.errors import HeadraceError, UnknownKey


class RunningRequests:
    """Each is a task that is cancelled when its key is revoked, and raises why."""

    def __init__(self) -> None:
        self._requests: set[_Request] = set()

    def with_key(self, key_id: str) -> _Request:
        """A context in which to work for the holder of this key as long as it is good.

        Raises:
            UnknownKey: The key was revoked; what was under way in the block was cancelled.
            HeadraceError: What everything was ended with.
        """
        return _Request(self._requests, key_id)

    def keep_only(self, key_ids: Set[str]) -> None:
        """End the requests of all other keys, at the next turn of the event loop."""
        for request in [request for request in self._requests if request.key_id not in key_ids]:
            request.end(
                UnknownKey(
                    "The key was revoked while the request ran.",
                    evidence=f"It is key {request.key_id}.",
                    fix="Ask an admin for a new key.",
                )
            )

    def end(self, error: HeadraceError) -> None:
        """End all requests with this error, at the next turn of the event loop."""
        for request in list(self._requests):
            request.end(error)


class _Request:
    """The block of one request.

    As `asyncio.timeout`, which costs four times as much, it tells its own cancellation from others by the task's count.
    """

    __slots__ = ("_cancelled_before", "_error", "_requests", "_task", "key_id")

    def __init__(self, requests: set[_Request], key_id: str) -> None:
        self.key_id = key_id
        self._requests = requests
        self._task: asyncio.Task[object] | None = None
        self._cancelled_before = 0
        self._error: HeadraceError | None = None

    def end(self, error: HeadraceError) -> None:
        self._requests.discard(self)
        self._error = error
        assert self._task is not None
        self._task.cancel()

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelled_before = self._task.cancelling()
        self._requests.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> Literal[False]:
        self._requests.discard(self)
        if self._error is not None:
            assert self._task is not None
            if self._task.uncancel() <= self._cancelled_before and kind is asyncio.CancelledError:
                told, self._error = self._error, None
                try:
                    raise told from None
                finally:
                    del told  # its traceback holds this frame, and the two would hold each other
        return False
