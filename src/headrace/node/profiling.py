"""What a replica carries, measured by its node at the engine's own socket before anybody else is let in."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from headrace.capacity.measuring import LONGEST_S, Meter
from headrace.node.http import HttpClient
from headrace.resources.assignments import ProfileOrder, ProfileReport, ReplicaOrder
from headrace.resources.errors import EngineBrokeOff, EngineTimeout, Failure, HeadraceError, InternalError

LEAST_S = 5.0
"""Less time than this tells nothing, and a measurement is given up as much before it has to be over."""

_LONGER = 3.0
"""How many times as long as it should a measurement may take, of a replica so slow that nothing can be told yet."""

_log = logging.getLogger(__name__)


class _Engine:
    """The engine of a replica.

    Args:
        socket: Where it listens.
        nonce: Its bearer token.
        connections: How many requests there may be at a time.
    """

    def __init__(self, socket: Path, nonce: str, connections: int) -> None:
        self._client = HttpClient(f"unix:{socket}", nonce, connections=connections)

    async def answer(self, body: bytes) -> AsyncGenerator[bytes, None]:
        """As `headrace.capacity.measuring.Engine`."""
        try:
            async with self._client.stream("POST", "/v1/completions", body=body, timeout_s=LONGEST_S) as response:
                if response.status != 200:
                    said = (await response.aread())[:500].decode(errors="replace")
                    raise EngineBrokeOff("The engine refused a request.", evidence=f"Status {response.status}: {said}")
                async for chunk in response.aiter_stream():
                    yield chunk
        except ConnectionError as error:
            raise EngineBrokeOff("The engine broke off an answer.", evidence=str(error)) from error

    async def close(self) -> None:
        """Hang up."""
        await self._client.close()


async def measure(socket: Path, order: ReplicaOrder, wanted: ProfileOrder, *, writes: bool) -> ProfileReport:
    """Measure it; whatever goes wrong is told, and no reason not to let requests in.

    Args:
        socket: Where its engine listens.
        order: What it was started by.
        wanted: What is to be measured.
        writes: Whether it puts out tokens at all.
    """
    longest_s = _LONGER * wanted.budget_s
    if wanted.before_at:
        longest_s = min(longest_s, wanted.before_at - time.time() - LEAST_S)
    budget_s = min(wanted.budget_s, longest_s)
    if not writes:
        return _none(EngineTimeout("It puts out no tokens, so there is no throughput to measure.").failure)
    if budget_s < LEAST_S:
        late = f"{max(0.0, budget_s):.0f} s are left of the deployment's deadline."
        return _none(EngineTimeout("There is no time to measure it.", evidence=late).failure)
    engine = _Engine(socket, order.nonce, max(wanted.grid.concurrency))
    meter = Meter(engine, order.served_name, order.max_model_len)
    try:
        await meter.prepare()
        return ProfileReport(points=tuple(await meter.sweep(wanted.grid, budget_s=budget_s, longest_s=longest_s)))
    except HeadraceError as error:
        return _none(error.failure)
    except Exception as error:
        _log.exception("Replica %s cannot be measured.", order.id)
        evidence = f"{type(error).__name__}: {error}"
        return _none(InternalError("The node failed at measuring a replica.", evidence=evidence).failure)
    finally:
        await engine.close()


def _none(failure: Failure) -> ProfileReport:
    return ProfileReport(failure=failure)
