"""The process that writes the log of one gateway: ``python -m headrace.request_log.writer``.

It reads requests from its standard input until that ends, which is when its gateway is done or gone: then it writes
what is still in the pipe, closes its file and ends; a gateway that is gone it outlives by `LINGER_S` at most. Signals
that end a whole service (systemd sends SIGTERM to each of its processes) are not for it: its gateway goes on for a
while. What it has done it counts in memory that the gateway has, too.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import logging
import os
import select
import signal
from functools import lru_cache
from pathlib import Path

from headrace.request_log.counts import Counts
from headrace.request_log.frames import read_frame
from headrace.request_log.hash_key import hash_key
from headrace.request_log.redaction import Redaction
from headrace.request_log.rows import row_of, to_line
from headrace.request_log.segments import Closed, Segments
from headrace.request_log.settings import LogFiles, LogFormat
from headrace.resources.request_log import LoggedRequest

_LOGGER = logging.getLogger(__name__)
_STDIN = 0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
LINGER_S = 5
"""For what is in the pipe of a gateway that is gone."""

_NICER = 10
"""Engines and the gateway come first."""


class Writer:
    """Writes rows, and lives through whatever keeps it from that.

    Args:
        folder: Where the files go.
        files: How they are kept.
        counts: Where it tells what it has done.
    """

    def __init__(self, folder: Path, files: LogFiles, counts: Counts) -> None:
        self._counts = counts
        self._key_folder = folder.parent
        self._segments = Segments(
            folder,
            max_bytes=files.max_bytes,
            segment_bytes=files.segment_bytes,
            writers=files.writers,
            closed=_closed(files.format),
        )
        self._redaction = lru_cache(maxsize=64)(self._new_redaction)

    def serve(self, descriptor: int) -> None:
        """Write what comes, until nothing does any more."""
        self._segments.recover()
        while True:
            readable, _, _ = select.select([descriptor], [], [], self._segments.due_in_s)
            self._segments.close_if_due()
            if readable:
                request = read_frame(descriptor)
                if request is None:
                    break
                self.write(request)
        self._segments.close()

    def write(self, request: LoggedRequest) -> None:
        """Write one request, or count that it could not be."""
        settings = request.settings
        try:
            redaction = self._redaction(settings.redact_fields, settings.redact_patterns)
            self._segments.append(to_line(row_of(request, redaction)))
        except OSError as error:
            self._counts.add_failed(error.errno or errno.EIO)
        except Exception:  # whatever a request holds, the next one is written
            _LOGGER.exception("request %s cannot be written", request.request_id)
            self._counts.add_failed(errno.EINVAL)
        else:
            self._counts.add_written()

    def _new_redaction(self, fields: tuple[str, ...], patterns: tuple[str, ...]) -> Redaction:
        return Redaction(fields, patterns, hash_key(self._key_folder) if fields else b"")


def _closed(kind: LogFormat) -> Closed | None:
    if kind is LogFormat.JSONL:
        return None
    from headrace.request_log.parquet import to_parquet  # noqa: PLC0415 - pyarrow is an extra, and a large one

    return to_parquet


def end_after(parent: int) -> None:
    """Have this process end `LINGER_S` after its parent at the latest, whatever it does then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends it, and takes no turn of the interpreter for that
    signal.signal(signal.SIGUSR1, lambda *_: signal.alarm(LINGER_S))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above took effect
        signal.alarm(LINGER_S)


def main() -> None:
    """Entry of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--format", type=LogFormat, required=True)
    parser.add_argument("--max-bytes", type=int, required=True)
    parser.add_argument("--writers", type=int, required=True)
    parser.add_argument("--counts-fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.nice(_NICER)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end_after(options.parent)
    files = LogFiles(format=options.format, max_bytes=options.max_bytes, writers=options.writers)
    Writer(options.folder, files, Counts(options.counts_fd)).serve(_STDIN)


if __name__ == "__main__":
    main()
