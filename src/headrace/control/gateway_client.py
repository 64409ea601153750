"""How control talks to the gateway: a push of the newest snapshot, and a question."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import httpx
import msgspec

from headrace.resources.snapshot import GatewayStatus, RoutingSnapshot

_TIMEOUT_S = 5.0
"""On a unix socket of the same machine: a gateway that takes longer is as good as away."""


class GatewayAway(Exception):
    """The gateway did not answer, or not in a way that can be understood."""


class GatewayClient(Protocol):
    """One gateway."""

    async def push(self, snapshot: RoutingSnapshot) -> GatewayStatus:
        """Have it route by this.

        Returns:
            What it routes by then; a greater generation when it refused a smaller one.

        Raises:
            GatewayAway: It cannot be reached.
        """
        ...

    async def status(self) -> GatewayStatus:
        """What it routes by, and what it has under way.

        Raises:
            GatewayAway: It cannot be reached.
        """
        ...


class HttpGatewayClient:
    """The gateway's admin socket.

    Args:
        socket: Its path.
        token: The internal token.
    """

    def __init__(self, socket: Path, token: str) -> None:
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)),
            base_url="http://gateway",
            headers={"authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_S,
        )

    async def push(self, snapshot: RoutingSnapshot) -> GatewayStatus:
        """As `GatewayClient.push`."""
        answer = await self._ask("PUT", "/snapshot", msgspec.json.encode(snapshot))
        if answer.status_code == httpx.codes.CONFLICT:  # it has a newer one
            return await self.status()
        return _status(answer)

    async def status(self) -> GatewayStatus:
        """As `GatewayClient.status`."""
        return _status(await self._ask("GET", "/status"))

    async def metrics(self) -> str:
        """What it counts, as Prometheus reads it.

        Raises:
            GatewayAway: It cannot be reached.
        """
        answer = await self._ask("GET", "/metrics")
        if answer.status_code != httpx.codes.OK:
            raise GatewayAway(f"HTTP {answer.status_code}: {answer.text[:200]}")
        return answer.text

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        try:
            return await self._http.request(method, path, content=body)
        except httpx.HTTPError as error:
            raise GatewayAway(f"{type(error).__name__}: {error}") from error


def _status(answer: httpx.Response) -> GatewayStatus:
    if answer.status_code != httpx.codes.OK:
        raise GatewayAway(f"HTTP {answer.status_code}: {answer.text[:200]}")
    try:
        return msgspec.json.decode(answer.content, type=GatewayStatus)
    except msgspec.DecodeError as error:
        raise GatewayAway(f"Its answer is no status: {error}") from error
