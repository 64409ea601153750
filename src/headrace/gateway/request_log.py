"""The gateway's end of the request log: what is over is handed to the log's writer, a process of its own, by a thread.

The event loop only puts requests into a queue, which never waits. The thread writes them to a pipe, and stands still
when the writer does. What recordings and the queue hold is bounded; what finds no room is dropped and
counted.
"""

from __future__ import annotations

import logging
import queue
import threading
from pathlib import Path

from headrace.gateway.request_log_writer import RequestLogWriter
from headrace.gateway.request_recording import Recording
from headrace.request_log import LogFiles
from headrace.resources.request_log import REQUEST_LOG_FOLDER, LoggedRequest
from headrace.resources.snapshot import DeployedRoute, EndpointRoute

MEMORY_BYTES = 128 * 2**20
"""What recordings and the queue may hold."""

CLOSE_TIMEOUT_S = 5.0
_KILLED_S = 2.0
"""For the thread to count what is lost, once its writer is killed."""

_LOGGER = logging.getLogger(__name__)


class RequestLogger:
    """One gateway's. Starts neither thread nor process before the first request that is to be logged is over.

    Args:
        snapshot_path: The routing snapshot; the log's folder lies beside it, unless `files` has another.
        files: How the files are kept.
        memory_bytes: What it may hold.
    """

    def __init__(self, snapshot_path: Path, files: LogFiles, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self.writer = RequestLogWriter(files.folder or snapshot_path.with_name(REQUEST_LOG_FOLDER), files)
        self._memory_bytes = memory_bytes
        # Each of these numbers is changed by one thread only: what was taken by the event loop's, what was given back
        # by the one that writes.
        self._taken_bytes = 0
        self._written_bytes = 0
        self._dropped = 0
        self._queue: queue.SimpleQueue[tuple[LoggedRequest, int] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """Requests for which there was no room, or no writer."""
        return self._dropped + self.writer.lost

    def recording(
        self, request_id: str, endpoint: EndpointRoute, deployed: DeployedRoute, body: bytes
    ) -> Recording | None:
        """What follows a request that is to be logged; None for all others."""
        settings = endpoint.request_log
        if settings is None or not settings.takes(request_id):
            return None
        return Recording(self, endpoint, deployed, body)

    def hold(self, size_bytes: int) -> bool:
        """Take so much of the memory, if there is so much."""
        if self._taken_bytes - self._written_bytes + size_bytes > self._memory_bytes:
            return False
        self._taken_bytes += size_bytes
        return True

    def let_go(self, size_bytes: int) -> None:
        """Give back what was taken for a request that is not put."""
        self._taken_bytes -= size_bytes

    def drop(self) -> None:
        """Count one that is not written."""
        self._dropped += 1

    def put(self, request: LoggedRequest, size_bytes: int) -> None:
        """Have a request written; what was taken for it is given back then. Never waits."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._hand_over, name="request-log", daemon=True)
            self._thread.start()
        self._queue.put((request, size_bytes))

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Hand over what is left, and let the writer close its file. What is not done in time is lost, and counted.

        The writer has ended then, if the system lets it be killed.

        Blocks: the event loop calls it in a thread.
        """
        if self._thread is None:
            return
        self._queue.put(None)
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            return
        before = self.writer.lost
        self.writer.kill()
        self._thread.join(_KILLED_S)
        lost = self.writer.lost - before
        if self._thread.is_alive():  # what waits for the disk cannot be killed
            lost += max(0, self._queue.qsize() - 1) + self.writer.owing
        _LOGGER.warning("%d requests were not written to the request log: it took more than %g s", lost, timeout_s)

    def _hand_over(self) -> None:
        while (item := self._queue.get()) is not None:
            request, size_bytes = item
            self.writer.send(request)
            self._written_bytes += size_bytes
        self.writer.close()
