"""The signals that end a command, as one: what it made is taken off again, whichever comes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def every_end_is_an_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end this as Ctrl-C does: in order, and leaving nothing behind.

    SIGINT is taken by name too, because shells start background commands with SIGINT ignored.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
