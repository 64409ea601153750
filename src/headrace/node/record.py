"""What a node says of one replica: moved along the table, remembered for the next node, told to control."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.node import journal
from headrace.resources.assignments import ReplicaOrder, ReplicaReport
from headrace.resources.states import ReplicaState, check_move

_log = logging.getLogger(__name__)


class ReplicaRecord:
    """One replica's.

    Args:
        order: What was ordered.
        directory: The replica's folder.
        changed: Called when a report is worth sending at once.
        found: What was reported of it before, where its engine was found; None of a replica that begins.

    Attributes:
        report: What is told of it.
        has_engine: Whether one was started, or found: what becomes of it is remembered to the end.
    """

    def __init__(
        self, order: ReplicaOrder, directory: Path, changed: Callable[[], None], found: ReplicaReport | None = None
    ) -> None:
        self._order = order
        self._directory = directory
        self._changed = changed
        self.has_engine = found is not None
        self.report = found or ReplicaReport(
            id=order.id, epoch=order.epoch, state=ReplicaState.PLACED, since=time.time()
        )

    @property
    def state(self) -> ReplicaState:
        """Where it stands."""
        return self.report.state

    def move(self, state: ReplicaState, **changes: object) -> None:
        """Go to another state, or stay; a failure is kept to the end, else each state begins without one.

        Raises:
            IllegalMove: The table has no such move.
        """
        check_move(f"Replica {self._order.id}", self.state, state)
        if state is not self.state:
            kept = self.report.failure if state is ReplicaState.GONE else None
            self.note(state=state, since=time.time(), **({"failure": kept, "detail": ""} | changes))

    def note(self, **changes: object) -> None:
        """Say something else of it; remembered on disk once there may be an engine for the next node to find."""
        self.amend(**changes)
        if self.has_engine or self.state is ReplicaState.STARTING:
            try:
                journal.write(self._directory, journal.Entry(self._order, self.report))
            except OSError as error:  # a full disk is no reason to end an engine
                _log.warning("Replica %s cannot be recorded: %s", self._order.id, error)
        self._changed()

    def amend(self, **changes: object) -> None:
        """As `note`, of what is not worth a report of its own."""
        self.report = msgspec.structs.replace(self.report, **changes)
