"""The process that writes the request log, as its gateway sees it: started when needed, and again when it died."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from headrace.request_log import Counts, LogFiles, write_frame
from headrace.resources.request_log import LoggedRequest

RESTART_S = 1.0
"""Not sooner after its last start is it started again. What comes meanwhile is lost."""

_PIPE_BYTES = 2**20
"""The most that Linux gives without privileges (``fs.pipe-max-size``)."""

_LOGGER = logging.getLogger(__name__)


class RequestLogWriter:
    """Belongs to one thread; its numbers may be read by any.

    It ends by itself once its gateway has closed the pipe or is gone, so a gateway that is killed takes no request
    along that is in the pipe already.

    Args:
        folder: Where the files go.
        files: How they are kept.

    Attributes:
        lost: Requests that no process wrote, because there was none or because it died.
    """

    def __init__(self, folder: Path, files: LogFiles) -> None:
        self.lost = 0
        self._folder = folder
        self._files = files
        self._counts: Counts | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = float("-inf")
        self._sent = 0
        self._troubled = False
        self._killed = False

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def written(self) -> int:
        """Requests that are in files."""
        return 0 if self._counts is None else self._counts.written

    @property
    def failed(self) -> int:
        """Requests that could not be written."""
        return 0 if self._counts is None else self._counts.failed

    @property
    def owing(self) -> int:
        """Requests that it was given and has neither written nor failed to write."""
        return max(0, self._sent - self.written - self.failed)

    def send(self, request: LoggedRequest) -> None:
        """Hand a request over; waits while the process does not read. One that cannot be handed over is counted."""
        if not self._running():
            self.lost += 1
            return
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            write_frame(self._process.stdin.fileno(), request)
            self._sent += 1
        except OSError:
            self.lost += 1
            self._bury()
        self._tell()

    def close(self) -> None:
        """Let it write what it has, and wait until it has ended."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        self._settle()
        self._tell()

    def kill(self) -> None:
        """End it for good, whatever it does. Called by another thread, while this one may be waiting for it."""
        self._killed = True
        process = self._process
        if process is not None:
            process.kill()  # what asks more kindly it ignores

    def _running(self) -> bool:
        """Whether there is a process; one is started unless that was done just now."""
        if self._process is not None and self._process.poll() is not None:
            self._bury()
        if self._process is None and not self._killed and time.monotonic() - self._started_s >= RESTART_S:
            self._started_s = time.monotonic()
            try:
                self._process = self._start()
                if self._killed:  # meanwhile
                    self._process.kill()
            except OSError as error:
                _LOGGER.error("the request log has no writer: %s", error)  # noqa: TRY400 - it says all
        return self._process is not None

    def _start(self) -> subprocess.Popen[bytes]:
        if self._counts is None:
            self._counts = Counts.new()
        counts = self._counts.descriptor
        module = [sys.executable, "-m", "headrace.request_log.writer", "--folder", str(self._folder)]
        options = [f"--format={self._files.format}", f"--max-bytes={self._files.max_bytes}", f"--counts-fd={counts}"]
        options += [f"--writers={self._files.writers}", f"--parent={os.getpid()}"]
        process = subprocess.Popen(
            [*module, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            bufsize=0,
            pass_fds=(counts,),
            start_new_session=True,  # a Ctrl-C at the terminal is not for it: it ends with its pipe
        )
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it works with a small one, too
            fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return process

    def _bury(self) -> None:
        """The process died, by whatever: what it was given and did not write is lost."""
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        status = self._process.wait()
        self._process = None
        self._settle()
        if not self._killed:
            _LOGGER.error("the request log's writer ended with %d; it is started again", status)

    def _settle(self) -> None:
        self.lost += self.owing
        self._sent = self.written + self.failed

    def _tell(self) -> None:
        """Say it once when requests cannot be written, and once when they can be again."""
        trouble = "" if self._counts is None else self._counts.trouble
        if trouble and not self._troubled:
            _LOGGER.error("Requests cannot be logged to %s, and are answered all the same: %s", self._folder, trouble)
        elif self._troubled and not trouble:
            _LOGGER.warning("Requests are logged again; %d were not.", self.failed)
        self._troubled = bool(trouble)
