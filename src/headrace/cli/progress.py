"""How far slow work is: live lines on a terminal, plain lines with elapsed seconds elsewhere.

Safe to call from several threads: quickstart prepares the runtime and the model at the same time.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace.cli.output import Output, stdout_console, visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PLAIN_EVERY_S = 5.0
"""How often a step without a terminal says that it still runs."""


class Steps:
    """Tells of steps and how far they are.

    Args:
        output: Where to.
        live: Whether lines may be drawn over; default: whether stdout is a terminal for a person.
        silent: Say nothing at all: the answer is one JSON document.
        clock: Seconds, ever growing.
    """

    def __init__(
        self,
        output: Output,
        *,
        live: bool | None = None,
        silent: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._silent = silent
        self._live = (sys.stdout.isatty() and not output.as_json) if live is None else live
        self._clock = clock
        self._began = clock()
        self._lock = threading.RLock()
        self._progress: Progress | None = None
        self._open = 0

    def say(self, text: str) -> None:
        """A sentence, with the seconds since the beginning."""
        elapsed_s = self._clock() - self._began
        if self._silent:
            return
        with self._lock:
            if self._progress is not None:
                self._progress.console.print(f"{elapsed_s:6.1f}s  {visible(text)}", highlight=False, markup=False)
                return
            self._output.line(f"{elapsed_s:6.1f}s  {text}")
            self._output.event({"elapsed_s": round(elapsed_s, 3), "message": text})

    @property
    def output(self) -> Output:
        """Where they are told."""
        return self._output

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Work that takes time: says that it begins, how far it is, and how long it took."""
        began = self._clock()
        task = self._show(what) if self._live else None
        if task is None:
            self.say(f"{what} …")
        step = Step(self, what, task, self._clock)
        try:
            yield step
            self.say(f"{what}: {step.result or 'done'} ({self._clock() - began:.1f} s)")
        finally:
            if task is not None:
                self._hide(task)

    def _show(self, what: str) -> TaskID:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
        from rich.table import Column  # noqa: PLC0415

        with self._lock:
            if self._progress is None:
                line = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1))
                columns = (SpinnerColumn(), TimeElapsedColumn(), line)  # the text last: it is what may be cut short
                self._progress = Progress(*columns, console=stdout_console(), transient=True, expand=True)
                self._progress.start()
            self._open += 1
            return self._progress.add_task(visible(what), total=None)

    def _hide(self, task: TaskID) -> None:
        with self._lock:
            assert self._progress is not None
            self._progress.remove_task(task)
            self._open -= 1
            if not self._open:
                self._progress.stop()
                self._progress = None

    def redraw(self, task: TaskID, text: str) -> None:
        """Change the live line of a step."""
        with self._lock:
            if self._progress is not None:
                self._progress.update(task, description=visible(text))


class Step:
    """One step under way.

    Attributes:
        result: What it came to, for its last line.
    """

    def __init__(self, steps: Steps, what: str, task: TaskID | None, clock: Callable[[], float]) -> None:
        self.result = ""
        self._steps = steps
        self._what = what
        self._task = task
        self._clock = clock
        self._spoke = clock()

    def progress(self, text: str) -> None:
        """Say how far it is; where lines are plain, only every few seconds."""
        if self._task is not None:
            self._steps.redraw(self._task, f"{self._what}: {text}")
        elif self._clock() - self._spoke >= _PLAIN_EVERY_S:
            self._spoke = self._clock()
            self._steps.say(f"{self._what}: {text}")
