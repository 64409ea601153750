"""One child of the supervisor: started, watched, started again when it ends, and ended for good when asked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

from headrace.resources.layout import Layout

RESTART_BACKOFF_S = (0.05, 0.2, 1.0, 5.0)
HEALTHY_AFTER_S = 10.0


class Child:
    """Keeps ``python -m headrace.server.NAME`` running.

    A process that says ``draining`` (the gateway, told to stop by somebody else) is succeeded at once, while it
    finishes its requests.

    Args:
        name: Of the module.
        layout: Of the data directory.
        label: What it is called, if several run of one module.
        arguments: On its command line.
        pass_fds: What it inherits.

    Attributes:
        ready: Set while the newest process has said that it is ready.
    """

    def __init__(
        self,
        name: str,
        layout: Layout,
        *,
        label: str = "",
        arguments: tuple[str, ...] = (),
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.label = label or name
        self.ready = asyncio.Event()
        self._layout = layout
        self._arguments = arguments
        self._pass_fds = pass_fds
        self._stopping = False
        self._running: set[asyncio.subprocess.Process] = set()
        self._draining: set[asyncio.Task[None]] = set()

    async def keep_alive(self, say: Callable[[str], None]) -> None:
        """Run it, and run it again whenever it ends, until `stop`. Backs off when it ends again and again."""
        quick_deaths = 0
        while not self._stopping:
            started = time.monotonic()
            process, notes = await self._start()
            drained = await self._follow(process, notes)
            if self._stopping or drained:
                continue
            self.ready.clear()
            quick_deaths = 0 if time.monotonic() - started > HEALTHY_AFTER_S else quick_deaths + 1
            pause_s = RESTART_BACKOFF_S[min(quick_deaths, len(RESTART_BACKOFF_S) - 1)]
            say(f"{self.label} ended ({_how(process.returncode)}); starting it again. Log: {self._error_log}")
            await asyncio.sleep(pause_s)

    async def stop(self, *, timeout_s: float) -> None:
        """SIGTERM, then SIGKILL for what is still there after the timeout."""
        self._stopping = True
        running = list(self._running)
        for process in running:
            _send(process, signal.SIGTERM)
        waits = [asyncio.create_task(process.wait()) for process in running]
        if not waits:
            return
        _, late = await asyncio.wait(waits, timeout=timeout_s)
        if late:
            for process in running:
                _send(process, signal.SIGKILL)
            await asyncio.wait(late)

    @property
    def _error_log(self) -> str:
        return str(self._layout.logs_dir / f"{self.label}.err")

    async def _start(self) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader]:
        read_fd, write_fd = os.pipe()
        arguments = ("--data-dir", str(self._layout.data_dir), "--parent", str(os.getpid()))
        with open(self._error_log, "ab") as errors:  # noqa: ASYNC230 - a local append, once a start
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"headrace.server.{self.name}"),
                *(*arguments, "--notify-fd", str(write_fd), *self._arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=(write_fd, *self._pass_fds),
                start_new_session=True,  # a Ctrl-C at the terminal is ours to pass on, in order
            )
        os.close(write_fd)
        self._running.add(process)
        notes = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(notes), os.fdopen(read_fd, "rb"))
        return process, notes

    async def _follow(self, process: asyncio.subprocess.Process, notes: asyncio.StreamReader) -> bool:
        """Until it ends (False) or hands over (True: it drains, and somebody awaits its end)."""
        while note := await notes.readline():
            if note == b"ready\n":
                self.ready.set()
            elif note == b"draining\n" and not self._stopping:
                ending = asyncio.create_task(self._await_end(process))
                self._draining.add(ending)
                ending.add_done_callback(self._draining.discard)
                return True
        await self._await_end(process)
        return False

    async def _await_end(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        self._running.discard(process)


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _how(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return f"killed by {signal.Signals(-returncode).name}"
    return f"exit status {returncode}"
