"""The course of a drill: first no fault, to know how long clients wait; then one fault after another, under load."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack

import msgspec

from headrace.cli.drill.faults import FAULTS, Act, Scene
from headrace.cli.drill.load import Load, Requester
from headrace.cli.drill.names import FaultName
from headrace.cli.drill.report import Result, Tally, Usual, tally, usual
from headrace.cli.drill.target import NotRun, TookTooLong
from headrace.cli.exits import WorkFailed
from headrace.cli.progress import Steps
from headrace.resources.errors import HeadraceError

STREAM_WAIT_S = 10.0
"""How long a fault waits for a stream to happen to; then it happens without."""

_FAILURES = (HeadraceError, WorkFailed, TookTooLong, OSError)


class Drill:
    """One drill.

    Args:
        scene: Where.
        requester: Sends the requests.
        steps: Told how far it is.
        seconds: How long requests go on for each fault, at least.
        rate_per_s: Requests that begin in a second.
    """

    def __init__(self, scene: Scene, requester: Requester, steps: Steps, *, seconds: float, rate_per_s: float) -> None:
        self._scene = scene
        self._requester = requester
        self._steps = steps
        self._seconds = seconds
        self._rate_per_s = rate_per_s
        self._usual = Usual()
        self._unwell = ""

    def without_fault(self) -> Tally:
        """Measure how long clients wait while nothing happens. Where requests are lost even so, no fault is run."""
        with self._steps.step("without a fault") as step:
            with self._load() as load:
                time.sleep(self._seconds)
            self._usual = usual(load.samples)
            counted = tally(load.samples, self._usual)
            step.result = counted.sentence()
        if counted.lost:
            self._unwell = f"requests are lost without a fault already: {counted.reasons[0][0]}"
        return counted

    def run(self, names: Iterable[FaultName]) -> list[Result]:
        """Each of these, one after another."""
        return [self._told(name) for name in names]

    def _told(self, name: FaultName) -> Result:
        with self._steps.step(name) as step:
            result = Result(fault=name, not_run=self._unwell) if self._unwell else self._run(name)
            step.result = f"not run: {result.not_run}" if result.not_run else result.tally.sentence()
        return result

    def _run(self, name: FaultName) -> Result:
        """Prepare, have it happen, and put everything back."""
        result = Result(fault=name)
        try:
            self._scene.target.settle()
            with ExitStack() as stack:
                try:
                    act = stack.enter_context(FAULTS[name].prepare(self._scene))
                except _FAILURES as error:
                    return Result(fault=name, not_run=_sentence(error))
                try:
                    result = self._happen(name, act)
                except KeyboardInterrupt:
                    self._steps.say("Interrupted: everything is put back first; Ctrl-C again leaves it as it is.")
                    raise
        except NotRun as reason:
            return Result(fault=name, not_run=_sentence(reason))
        except _FAILURES as error:  # what was to be put back is not
            return msgspec.structs.replace(result, failed=". ".join(filter(None, (result.failed, _sentence(error)))))
        return result

    def _happen(self, name: FaultName, act: Act) -> Result:
        """The fault in the middle of the load, at a moment when a stream is being read.

        Raises:
            NotRun: It shows only then that it cannot be run.
        """
        done = failed = ""
        with self._load() as load:
            began = time.monotonic()
            load.await_stream(STREAM_WAIT_S)
            try:
                done = act()
            except _FAILURES as error:
                failed = _sentence(error)
            time.sleep(max(0.0, self._seconds - (time.monotonic() - began)))
        counted = tally(load.samples, self._usual, may_break=FAULTS[name].may_break)
        return Result(fault=name, done=done, failed=failed, tally=counted)

    def _load(self) -> Load:
        return Load(self._requester, rate_per_s=self._rate_per_s)


def _sentence(error: Exception) -> str:
    """An error without its end, to go on in a sentence of ours."""
    return str(error).rstrip(".")
