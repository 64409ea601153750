"""A node's HTTP client. It is httpcore, because httpx loads a terminal library of 7 MB into every process it is in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpcore
import msgspec

_CONNECT_TIMEOUT_S = 5.0


class Answer(msgspec.Struct, frozen=True):
    """A whole response."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300


class HttpClient:
    """Calls to one server.

    Args:
        address: ``unix:/path`` or ``http://host:port``.
        token: Sent as ``Authorization: Bearer``.
        connections: The most at a time; one more call waits for another to end.
    """

    def __init__(self, address: str, token: str, *, connections: int = 10) -> None:
        path = address.removeprefix("unix:") if address.startswith("unix:") else None
        self._base_url = "http://localhost" if path else address.rstrip("/")
        self._headers = [("Authorization", f"Bearer {token}"), ("Content-Type", "application/json")]
        self._pool = httpcore.AsyncConnectionPool(uds=path, max_connections=connections)

    async def request(
        self, method: str, path: str, *, body: bytes | None = None, timeout_s: float | None = None
    ) -> Answer:
        """One request and its whole answer.

        Raises:
            ConnectionError: There was no whole answer, or none within `timeout_s`.
        """
        async with self.stream(method, path, body=body, timeout_s=timeout_s) as response:
            return Answer(response.status, await response.aread())

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, body: bytes | None = None, timeout_s: float | None = None
    ) -> AsyncIterator[httpcore.Response]:
        """One request and its answer as it comes.

        Raises:
            ConnectionError: The server is not there, broke off, or was silent for `timeout_s`.
        """
        timeout = {"connect": _CONNECT_TIMEOUT_S, "pool": timeout_s, "read": timeout_s, "write": timeout_s}
        url = self._base_url + path
        try:
            async with self._pool.stream(
                method, url, headers=self._headers, content=body, extensions={"timeout": timeout}
            ) as response:
                yield response
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Hang up."""
        await self._pool.aclose()
