"""The way of a measurement's requests to a replica: through the gateway, by the deployed model's own path."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

import httpx

from headrace.capacity.measuring import LONGEST_S
from headrace.cli.client import LOOPBACK_PAST_PROXIES, error_in
from headrace.cli.contexts import Login
from headrace.resources.errors import ServerUnreachable


class ThroughGateway:
    """An engine as `headrace.capacity.measuring.Engine`, behind a server.

    Args:
        login: The server.
        path: Where the deployed model's completions are.
    """

    def __init__(self, login: Login, path: str) -> None:
        self._url = login.url
        self._path = path
        self._http = httpx.AsyncClient(
            base_url=login.url,
            headers={"Authorization": f"Bearer {login.key}", "Content-Type": "application/json"},
            timeout=httpx.Timeout(LONGEST_S, connect=10.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            mounts=dict(LOOPBACK_PAST_PROXIES),
            verify=ssl.create_default_context(cadata=login.ca) if login.ca else True,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._http.aclose()

    async def answer(self, body: bytes) -> AsyncGenerator[bytes, None]:
        """The stream that a request is answered with.

        Raises:
            HeadraceError: The server refuses it, or cannot be reached.
        """
        try:
            async with self._http.stream("POST", self._path, content=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise error_in(response.status_code, await response.aread())
                async for chunk in response.aiter_bytes():
                    yield chunk
        except httpx.HTTPError as error:
            evidence = f"{type(error).__name__}: {error}"
            raise ServerUnreachable(
                f"The server at {self._url} does not answer any more.", evidence=evidence
            ) from error
