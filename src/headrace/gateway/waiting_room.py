"""Admission to one deployment: so many run, so many wait in line, the rest are told when to come back."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.resources.errors import Failure, HeadraceError, NotReady, QueueFull, QueueTimeout

_REMEMBERED_DEPARTURES = 64

CLOSED_RETRY_AFTER_S = 30.0
"""When to come back to what did not open while one waited: nothing tells when it will, and soon is not likely."""


class WaitingRoom:
    """First in, first out. A waiter that is cancelled frees its place at once.

    Args:
        name: What callers wait for, for messages.

    Attributes:
        running: Requests that were let in and have not left.
        closed_because: Why nobody is let in while that is so, for messages.
    """

    def __init__(self, name: str, *, max_running: int, max_waiting: int, max_wait_s: float) -> None:
        self._name = name
        self._line: deque[asyncio.Future[None]] = deque()
        self._departures: deque[float] = deque(maxlen=_REMEMBERED_DEPARTURES)
        self._active_at = time.monotonic()
        self.running = 0
        self.closed_because = ""
        self.resize(max_running=max_running, max_waiting=max_waiting, max_wait_s=max_wait_s)

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return len(self._line)

    @property
    def idle_s(self) -> float:
        """For how long nobody has run or waited here; 0 while somebody does."""
        return 0.0 if self.running or self._line else time.monotonic() - self._active_at

    def open(self) -> None:
        """Begin to count anew for how long nobody comes: there was no way in before, or they came elsewhere."""
        self._active_at = time.monotonic()

    def resize(self, *, max_running: int, max_waiting: int, max_wait_s: float) -> None:
        """Take new limits; more room lets waiters in at once, less room sends nobody away."""
        self.max_running, self.max_waiting, self.max_wait_s = max_running, max_waiting, max_wait_s
        self._let_in()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a turn, hold it for the block, and give it to the next in line.

        Raises:
            QueueFull: The line is as long as it may be.
            QueueTimeout: The turn did not come within `max_wait_s`.
            NotReady: What callers wait for was taken away, or nobody was let in within `max_wait_s`.
        """
        if self._line or self.running >= self.max_running:
            await self._wait_in_line()
            while not self.max_running:  # closed after we were let in, before we could go
                self.running -= 1
                await self._wait_in_line()
        else:
            self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._active_at = time.monotonic()
            self._departures.append(self._active_at)
            self._let_in()

    def dismiss(self, error: HeadraceError) -> None:
        """Send everybody in line away with this error."""
        line, self._line = self._line, deque()
        for turn in line:
            if not turn.done():
                turn.set_exception(error)

    def retry_after_s(self) -> float:
        """When the line that stands now will have been served, going by how fast requests left lately.

        Before the second departure there is nothing to go by but the longest that anybody may stand in line: after that
        each of them has started or left.
        """
        if len(self._departures) < 2:
            return max(1.0, math.ceil(self.max_wait_s))
        rate_per_s = len(self._departures) / max(time.monotonic() - self._departures[0], 1e-3)
        return min(max(1.0, math.ceil((len(self._line) + 1) / rate_per_s)), max(1.0, math.ceil(self.max_wait_s)))

    async def _wait_in_line(self) -> None:
        if len(self._line) >= self.max_waiting:
            raise QueueFull(
                f"Too many requests wait for {self._name}.",
                evidence=f"{self.running} are running and {len(self._line)} of at most {self.max_waiting} are waiting.",
                fix="Try again after the time in `Retry-After`, send fewer at a time, or ask for more replicas.",
                retry_after_s=self.retry_after_s(),
            )
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._line.append(turn)
        patience = loop.call_later(self.max_wait_s, self._lose_patience, turn, self.max_wait_s)
        try:
            await turn  # whoever let us in has counted us as running
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # let in, and gone in the same moment
                self.running -= 1
                self._let_in()
            raise
        finally:
            patience.cancel()
            if turn in self._line:
                self._line.remove(turn)
            self._active_at = time.monotonic()

    def _lose_patience(self, turn: asyncio.Future[None], waited_s: float) -> None:
        if not turn.done():
            turn.set_exception(self._turn_away(waited_s))

    def _turn_away(self, waited_s: float) -> HeadraceError:
        if not self.max_running:
            return NotReady(
                f"The request waited {waited_s:g} s for a replica of {self._name} and none became ready.",
                evidence=self.closed_because,
                fix="`headrace deployments` shows how far it is, and what keeps it.",
                retry_after_s=CLOSED_RETRY_AFTER_S,
            )
        return QueueTimeout(
            f"The request waited {waited_s:g} s for {self._name} and its turn did not come.",
            evidence=f"{self.running} are running; {len(self._line) - 1} others are waiting.",
            fix="Try again later, send fewer at a time, or ask for more replicas.",
            retry_after_s=self.retry_after_s(),
        )

    def _let_in(self) -> None:
        while self._line and self.running < self.max_running:
            turn = self._line.popleft()
            if not turn.done():
                self.running += 1
                turn.set_result(None)


def failed_for_good(name: str, failure: Failure) -> NotReady:
    """What is told of a deployment that will not be READY again: waiting does not help."""
    return NotReady(
        f"{name} failed, and does not come back by itself.",
        evidence=f"{failure.code}: {failure.message}",
        fix=f"{failure.fix} `headrace status` shows its last error.".lstrip(),
    )


def no_longer_deployed(name: str) -> NotReady:
    """What waiters are told when what they wait for is undeployed."""
    return NotReady(
        f"{name} was undeployed while the request waited for it.", fix="`headrace endpoints` shows what is."
    )
