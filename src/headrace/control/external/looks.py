"""Looks at external servers, now and then, for as long as they are deployed.

Nothing here needs to survive a restart of control: whoever starts anew looks anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec

from headrace.control.external.probe import ExternalProbe, Listed
from headrace.gateway.upstream import Outside, Secret
from headrace.resources.deployments import Warmup
from headrace.resources.errors import Failure, HeadraceError, InternalError
from headrace.resources.external import ExternalServer

_log = logging.getLogger(__name__)


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How often a server is looked at.

    Attributes:
        every_s: While all is well.
        missed_s: After a look that found nothing; twice as long after each further one.
        longest_s: What that grows to.
    """

    every_s: float = 15.0
    missed_s: float = 1.0
    longest_s: float = 30.0

    def pause_s(self, misses: int) -> float:
        """The pause after so many looks in a row that found nothing."""
        return self.every_s if misses == 0 else min(self.longest_s, self.missed_s * 2 ** min(misses - 1, 16))


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What one deployment wants to know.

    Attributes:
        generate: Whether the server is to generate; else it is only asked for its models.
    """

    server: ExternalServer
    key: str
    outside: Outside
    generate: bool

    def __repr__(self) -> str:
        return f"Wanted({self.server!r}, generate={self.generate})"  # never the key


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest look found.

    Attributes:
        generate: What was asked for.
        misses: How many looks in a row failed, this one included.
        found: The answer; None where it failed.
    """

    generate: bool
    misses: int
    found: Listed | Warmup | None = None
    failure: Failure | None = None


class Looks:
    """One task for each external deployment that is to be looked at.

    Args:
        changed: Is called after every look that found something else than the one before.
        pace: How often.
    """

    def __init__(self, changed: Callable[[], None], pace: Pace | None = None) -> None:
        self._changed = changed
        self._pace = pace or Pace()
        self._tasks: dict[str, tuple[Wanted, asyncio.Task[None]]] = {}
        self._newest: dict[str, Look] = {}

    @property
    def newest(self) -> Mapping[str, Look]:
        """By deployment; one that was not looked at yet is not there."""
        return dict(self._newest)

    def follow(self, wanted: Mapping[str, Wanted]) -> None:
        """Look at these from now on, and at no other. Whoever wants to know something else is looked at at once."""
        for deployment_id, (before, task) in list(self._tasks.items()):
            if wanted.get(deployment_id) != before:
                task.cancel()
                del self._tasks[deployment_id]
                self._newest.pop(deployment_id, None)
        for deployment_id, one in wanted.items():
            if deployment_id not in self._tasks:
                self._tasks[deployment_id] = one, asyncio.create_task(self._keep_looking(deployment_id, one))

    def close(self) -> None:
        """Look no more."""
        self.follow({})

    async def _keep_looking(self, deployment_id: str, wanted: Wanted) -> None:
        misses = 0
        while True:
            look = await _look(wanted, misses)
            misses = look.misses
            if look != self._newest.get(deployment_id):  # what was found before has had its effect
                self._newest[deployment_id] = look
                self._changed()
            await asyncio.sleep(self._pace.pause_s(misses))


async def _look(wanted: Wanted, misses: int) -> Look:
    probe = ExternalProbe(wanted.server, wanted.key, wanted.outside)
    try:
        found = await (probe.generate() if wanted.generate else probe.find_model())
    except HeadraceError as error:
        failure = error.failure
    except Exception as error:
        _log.exception("A defect while looking at %s.", wanted.server.base_url)
        failure = InternalError("The look at the external server failed by a defect.", evidence=repr(error)).failure
    else:
        return Look(generate=wanted.generate, misses=0, found=found)
    return Look(generate=wanted.generate, misses=misses + 1, failure=_without(Secret(wanted.key), failure))


def _without(secret: Secret, failure: Failure) -> Failure:
    """The failure without the key: it is kept in rows and shown to everybody who may read them."""
    told = {field: secret.hide_in(getattr(failure, field)) for field in ("message", "evidence", "fix")}
    return msgspec.structs.replace(failure, **told)
