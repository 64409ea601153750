"""Forgets what is over and old: a database that serves for years does not grow with every start of an engine.

Nor does a deployment's timeline with every change of its replicas.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from headrace.control.restarts import delay_s
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.operations import KEPT_DAYS, Operation
from headrace.resources.rollouts import Rollout
from headrace.resources.states import DeploymentState, OperationState, RolloutState, State, moves_from
from headrace.store import Store, Transaction

LOOK_EVERY_S = 3600.0

AT_ONCE = 500
"""Rows in one transaction: others wait for it meanwhile."""

_DAY_S = 86_400.0

OVER: Mapping[type[Operation | Rollout | Deployment], tuple[State, ...]] = MappingProxyType(
    {
        kind: tuple(state for state in states if not moves_from(state))
        for kind, states in (
            (Operation, OperationState),
            (Rollout, RolloutState),
            (Deployment, DeploymentState),
        )
    }
)
"""The states that nothing leaves. A FAILED deployment is in none of them: it is there until somebody undeploys it.
Replicas go as their deployment is buried or `pool` has enough of them; what is left of those are lines."""

_LOGGER = logging.getLogger(__name__)


class Forgetter:
    """Looks now and then whether anything has become old enough.

    Args:
        store: The rows.
        kept_days: For how long they are kept once they are over; 0: for ever.
        clock: Gives Unix seconds.
    """

    def __init__(self, store: Store, *, kept_days: float = KEPT_DAYS, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._kept_s = kept_days * _DAY_S
        self._clock = clock

    async def run(self) -> None:
        """Look until cancelled; no failure ends it."""
        failures = 0
        while self._kept_s:
            try:
                await self.forget()
                failures = 0
            except Exception:
                failures += 1
                _LOGGER.exception("What is over was not forgotten; trying again in %.0f s.", delay_s(failures))
            await asyncio.sleep(delay_s(failures) if failures else LOOK_EVERY_S)

    async def forget(self) -> int:
        """Forget all that is old enough, a part in each transaction; returns how many rows and lines that were.

        Which timelines are to be cut is looked for by reading, which nobody waits for.
        """
        before = self._clock() - self._kept_s
        parts = [partial(_forget, kind=kind, states=states, before=before) for kind, states in OVER.items()]
        parts += [partial(_forget_lines, kind=kind, before=before) for kind in (*OVER, Replica)]
        forgotten = sum([await self._in_parts(part) for part in parts])
        to_cut = await self._store.run(lambda tx: tx.history.to_cut(before=before), read_only=True)
        return forgotten + sum([await self._in_parts(partial(_cut_lines, of=one, before=before)) for one in to_cut])

    async def _in_parts(self, part: Callable[[Transaction], int]) -> int:
        """Do this until it finds less than it takes at once; returns how much it found."""
        found = 0
        while True:
            count = await self._store.run(part)
            found += count
            if count < AT_ONCE:
                return found


def _forget(
    tx: Transaction, *, kind: type[Operation | Rollout | Replica | Deployment], states: tuple[State, ...], before: float
) -> int:
    return tx.history.forget(kind, states, before=before, at_most=AT_ONCE)


def _forget_lines(tx: Transaction, *, kind: type[Operation | Rollout | Replica | Deployment], before: float) -> int:
    return tx.history.forget_lines(kind, before=before, at_most=AT_ONCE)


def _cut_lines(tx: Transaction, *, of: tuple[str, str], before: float) -> int:
    return tx.history.cut_lines(*of, before=before, at_most=AT_ONCE)
