"""How a gateway and control agree on leases: the gateway tells what it holds and uses, and is told what to hold."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from headrace.gateway.leases import Leases
from headrace.gateway.upstream import BrokeOff, Upstream, UpstreamError, UpstreamRequest
from headrace.resources.leases import LeaseAnswer, LeaseReport

TELL_EVERY_S = 0.5
"""How long a gateway may hold what another one waits for."""

AT_MOST_EVERY_S = 0.05
"""What requests that wait cost control, however many they are."""

ANSWER_WITHIN_S = 5.0
"""On a unix socket of the same machine."""

_LOGGER = logging.getLogger(__name__)


class NoAnswer(Exception):
    """Control did not answer, or not in a way that can be understood."""


class LeaseLink:
    """One gateway's way to control.

    Args:
        leases: What it holds.
        control: The control plane.
        number: Of this gateway.
        token: The internal token.
    """

    def __init__(self, leases: Leases, control: Upstream, *, number: int, token: str) -> None:
        self._leases = leases
        self._control = control
        self._target = b"/internal/gateways/%d/leases" % number
        self._headers = [(b"authorization", b"Bearer " + token.encode()), (b"content-type", b"application/json")]
        self._away = False

    async def run(self) -> None:
        """Tell and be told until cancelled: now and then, and soon after somebody asks."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self.exchange()
            try:
                async with asyncio.timeout_at(began + TELL_EVERY_S):
                    await self._leases.asked.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(began + AT_MOST_EVERY_S - loop.time())

    async def exchange(self) -> None:
        """Tell and be told once."""
        try:
            answer = await self._ask(self._leases.report())
        except (NoAnswer, UpstreamError, BrokeOff, TimeoutError) as error:
            if not self._away:
                _LOGGER.warning("Control does not answer for leases, so they stay as they are: %s", error)
            self._away = True
            self._leases.no_answer()
        else:
            self._away = False
            self._leases.take(answer)

    async def _ask(self, report: LeaseReport) -> LeaseAnswer:
        request = UpstreamRequest(
            method="PUT", target=self._target, headers=self._headers, body=msgspec.json.encode(report)
        )
        async with (
            asyncio.timeout(ANSWER_WITHIN_S),
            await self._control.send(request, timeout_s=ANSWER_WITHIN_S) as answer,
        ):
            pieces = []
            while piece := await answer.read():
                pieces.append(piece)
        body = b"".join(pieces)
        if answer.status != 200:
            raise NoAnswer(f"HTTP {answer.status}: {body[:200]!r}")
        try:
            return msgspec.json.decode(body, type=LeaseAnswer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NoAnswer(f"Its answer says nothing of leases: {error}") from error
