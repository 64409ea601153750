"""Watching a long-running operation: each phase of its deployment as it passes, with its seconds."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from headrace.cli.client import Client
from headrace.cli.exits import WorkFailed, failure_in
from headrace.cli.paths import segment
from headrace.cli.progress import Step, Steps
from headrace.resources.errors import Failure, InternalError, WaitTimeout
from headrace.resources.states import ANSWERING

_POLL_S = 10.0
"""How long one question to the server waits for news (its own limit is 30 s)."""

_LOOK_EVERY_S = 0.25

_PROGRESS = re.compile(
    r"(?:Copying|Converting|Installing)"
    r"(?:: .*?(?:[\d.]+ [A-Za-z]+ of (?P<total>[\d.]+ [A-Za-z]+)(?:, \d+ [A-Za-z]+/s)?)?)?\.?"
)
"""How far staging is, as the control plane tells it."""

_GATHERS = "STAGING"
"""The state whose sentences each tell something of their own: why this runtime, what went to make room, what a
conversion made. Elsewhere the newest one replaces those before it."""

_ENDS = frozenset({"READY", "FAILED", "GONE"})


class Phases:
    """Turns a timeline that grows into lines for a person.

    Args:
        say: Takes each line.
        clock: Seconds, ever growing.
    """

    def __init__(self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._shown = 0
        self._state = ""
        self._since = 0.0
        self._seen_at = 0.0
        self._expected_s = 0.0
        self._detail = ""
        self._facts: list[str] = []

    @property
    def current(self) -> str:
        """The phase that lasts, with what is known of it: its newest sentence, else for how long it lasts already."""
        if self._detail or not self._state:
            return f"{self._state}: {self._detail}" if self._detail else self._state
        lasts_s = self._clock() - self._seen_at
        text = f"{self._state} for {lasts_s:.0f} s" if lasts_s >= 1 else self._state
        return f"{text}, expected to take about {self._expected_s:.0f} s" if self._loads else text

    @property
    def _loads(self) -> bool:
        return self._state == "STARTING" and self._expected_s >= 1

    def expect(self, load_s: float) -> None:
        """Know how long the plan says that STARTING takes; 0: it does not say."""
        self._expected_s = load_s

    def update(self, timeline: list[dict[str, Any]], *, since: float = 0.0) -> None:
        """Show what is new: a phase when it ends, with the seconds that it took.

        Args:
            timeline: All that passed so far, and how it stood before.
            since: Unix seconds at which what is watched was asked for: what was over before is nothing new.
        """
        over = [place for place, move in enumerate(timeline) if move["at"] < since and move["state"] in _ENDS]
        for move in timeline[max(self._shown, over[-1] + 1 if over else 0) :]:
            if move["state"] != self._state:
                self._finish(move["at"])
                self._state, self._since, self._detail, self._facts = move["state"], move["at"], "", []
                self._seen_at = self._clock()
            self._detail = move.get("detail") or self._detail
            if self._detail and not _PROGRESS.fullmatch(self._detail) and self._detail not in self._facts:
                self._facts = [*(self._facts if self._state == _GATHERS else []), self._detail]
            if self._state in _ENDS:
                self._say(f"{self._state:<9}         {self._detail}".rstrip())
        self._shown = len(timeline)

    @property
    def shown(self) -> int:
        """Moves that were shown."""
        return self._shown

    def _finish(self, at: float) -> None:
        if self._state and self._state not in _ENDS:
            told = " ".join(self._facts) or _closing(self._detail)
            self._say(f"{self._state:<9} {at - self._since:6.1f} s  {told}".rstrip())


def _closing(detail: str) -> str:
    """What is left to say of a phase that is over: of ``Copying: 1 GB of 2 GB.``, how much it was."""
    progress = _PROGRESS.fullmatch(detail)
    if progress is None:
        return detail
    return f"{progress['total']} copied." if progress["total"] else ""


def watch(
    client: Client, operation_id: str, steps: Steps, *, what: str, timeout_s: float | None = None
) -> dict[str, Any]:
    """Follow an operation to its end, showing the phases; returns it as the native API has it.

    Raises:
        WorkFailed: It failed; with the reason.
        WaitTimeout: It was still running after ``timeout_s``.
        HeadraceError: The server cannot be asked.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    phases = Phases(steps.say)
    with steps.step(what) as step:
        while True:
            left_s = _POLL_S if deadline is None else min(_POLL_S, deadline - time.monotonic())
            if left_s <= 0:
                raise _waited(operation_id, phases, timeout_s or 0.0)
            operation = _ask(client, operation_id, seen=phases.shown, wait_s=left_s)
            phases.update(operation.get("timeline") or [], since=operation.get("created_at") or 0.0)
            phases.expect(((operation.get("deployment") or {}).get("predicted") or {}).get("load_s") or 0.0)
            _show(step, phases)
            if operation["done"]:
                break
        if operation["state"] == "FAILED":
            step.result = "failed"
            raise WorkFailed(_reason(operation))
    return operation


def watch_deployment(client: Client, deployment_id: str, steps: Steps, *, what: str) -> dict[str, Any]:
    """Follow a deployment that somebody else asked for until it is READY; returns it.

    Raises:
        WorkFailed: It failed; with the reason.
        HeadraceError: The server cannot be asked.
    """
    with steps.step(what) as step:
        while True:
            deployment = client.get(f"/headrace/v1/deployments/{segment(deployment_id)}")
            assert isinstance(deployment, dict)
            timeline = deployment.get("timeline") or []
            step.progress(f"{deployment['state']} {timeline[-1].get('detail', '') if timeline else ''}".rstrip())
            if deployment["state"] in ANSWERING:
                step.result = deployment["state"]
                return deployment
            if deployment["state"] in _ENDS:
                raise WorkFailed(_reason({"id": deployment_id, "deployment": deployment}))
            time.sleep(_LOOK_EVERY_S)


def _ask(client: Client, operation_id: str, *, seen: int, wait_s: float) -> dict[str, Any]:
    answer = client.get(f"/headrace/v1/operations/{segment(operation_id)}", seen=seen, wait_s=f"{wait_s:.3f}")
    assert isinstance(answer, dict)
    return answer


def _show(step: Step, phases: Phases) -> None:
    if phases.current:
        step.progress(phases.current)


def _waited(operation_id: str, phases: Phases, timeout_s: float) -> WaitTimeout:
    return WaitTimeout(
        f"It was not done after {timeout_s:.0f} s; the server goes on with it.",
        evidence=f"Operation {operation_id} is at {phases.current or 'its beginning'}.",
        fix=f"Look again: `headrace operations get {operation_id}`; or wait for longer: --timeout SECONDS.",
    )


def _reason(operation: dict[str, Any]) -> Failure:
    found = operation.get("failure") or (operation.get("deployment") or {}).get("failure")
    if not found:
        return InternalError("It failed and does not say why.", evidence=f"Its id is {operation['id']}.").failure
    return failure_in(found)
