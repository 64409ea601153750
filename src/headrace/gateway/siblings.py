"""The gateways that serve one port together, as one of them sees the others: beside it, each with its own sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from headrace.gateway.metric_families import Families
from headrace.gateway.upstream import BrokeOff, Upstream, UpstreamError, UpstreamRequest, read_address

TIMEOUT_S = 1.0
"""For another gateway to tell its metrics, as for an engine."""


class Sibling(msgspec.Struct, frozen=True, kw_only=True):
    """Another gateway.

    Attributes:
        number: Its own.
        admin: The address of its admin socket.
        snapshot_path: Where it keeps its routing snapshot.
    """

    number: int
    admin: str
    snapshot_path: Path


class Siblings:
    """The metrics of all gateways, whichever is asked.

    Args:
        number: Of this gateway.
        others: The others.
        token: The internal token, which their admin sockets want.
        connect_timeout_s: To reach one.
    """

    def __init__(self, number: int, others: Sequence[Sibling], *, token: str, connect_timeout_s: float) -> None:
        self._number = number
        self._others = {
            each.number: Upstream(read_address(each.admin), connect_timeout_s=connect_timeout_s) for each in others
        }
        self._headers = [(b"authorization", b"Bearer " + token.encode())]

    async def metrics(self, own: bytes) -> bytes:
        """What all gateways say, each series with the label ``gateway``; where there is one, what that says.

        One that does not answer costs nobody else their series: its ``headrace_gateway_up`` is 0.
        """
        if not self._others:
            return own
        texts = await asyncio.gather(*(self._text_of(other) for other in self._others.values()))
        told = {self._number: own, **dict(zip(self._others, texts, strict=True))}
        return await asyncio.to_thread(_together, told)

    def close(self) -> None:
        """Close the connections that are kept to them."""
        for other in self._others.values():
            other.close()

    async def _text_of(self, other: Upstream) -> bytes | None:
        request = UpstreamRequest(method="GET", target=b"/metrics", headers=self._headers)
        try:
            async with asyncio.timeout(TIMEOUT_S), await other.send(request, timeout_s=TIMEOUT_S) as answer:
                pieces = []
                while piece := await answer.read():
                    pieces.append(piece)
                return b"".join(pieces) if answer.status == 200 else None
        except (UpstreamError, BrokeOff, TimeoutError):
            return None


def _together(told: dict[int, bytes | None]) -> bytes:
    families = Families()
    up = GaugeMetricFamily("headrace_gateway_up", "Whether a gateway told its metrics.", labels=["gateway"])
    for number, text in sorted(told.items()):
        up.add_metric([str(number)], text is not None)
        if text is not None:
            families.add(text_string_to_metric_families(text.decode()), gateway=str(number))
    families.add([up])
    return families.text()
