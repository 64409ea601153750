"""The process that computes, started by `openvino.generator`: ``python -m headrace_engines.openvino.worker SOCKET_FD``.

It is a process of its own because GenAI's ``step`` keeps Python's lock from its beginning to its end (measured: in a
step of ten seconds another thread ran once): in one process, tokens would leave a step late, and nobody could be
answered meanwhile. And when native code crashes, the shell is left to say so.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections import deque
from contextlib import suppress

from headrace_engines.openvino.loading import load
from headrace_engines.openvino.messages import Cancel, Fatal, Inbox, Load, Submit, ToWorker, framed
from headrace_engines.openvino.running import Running
from headrace_engines.serving.fatal import fatal_from

_log = logging.getLogger(__name__)

_READ_BYTES = 2**18


class _HungUp(Exception):
    """The shell is gone."""


class Worker:
    """Computes what the shell asks for, until it hangs up.

    Args:
        wire: The socket to the shell.
    """

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._inbox: Inbox[ToWorker] = Inbox(ToWorker)
        self._waiting: deque[Submit] = deque()

    def run(self) -> None:
        """Load, and step for ever.

        A step that throws leaves the pipeline in a state that no later one gets out of (seen with an invalid grammar:
        ``get_num_scheduled_tokens() == 0`` fails from then on). So it is the end; what a request could make throw is
        refused before.
        """
        try:
            running, loaded = load(self._order())
            self._wire.sendall(framed(loaded))
            while True:
                self._step(running)
        except _HungUp:
            return
        except Exception as error:
            _log.exception("Nothing can be computed any more.")
            fatal = fatal_from(error)
            self._wire.sendall(framed(Fatal(fatal.code, fatal.message, fatal.evidence)))

    def _order(self) -> Load:
        messages: list[ToWorker] = []
        while not messages:
            messages = self._received(wait=True)
        [order] = messages
        assert isinstance(order, Load)
        return order

    def _step(self, running: Running) -> None:
        for message in self._received(wait=not self._waiting and not running):
            if isinstance(message, Submit):
                self._waiting.append(message)
            elif isinstance(message, Cancel):
                running.cancel(message.number)
                self._waiting = deque(each for each in self._waiting if each.number != message.number)
        while self._waiting and running.has_room(self._waiting[0].request):
            submit = self._waiting.popleft()
            running.add(submit.number, submit.request)
        if running:
            self._wire.sendall(framed(running.step()))

    def _received(self, *, wait: bool) -> list[ToWorker]:
        """What came since; with nothing to compute, the next that comes."""
        try:
            data = self._wire.recv(_READ_BYTES, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        if not data:
            raise _HungUp
        return list(self._inbox.messages(data))


def main() -> None:
    """Compute until the shell hangs up. Never returns."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the shell still drains; this ends with it
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    wire = socket.socket(fileno=int(sys.argv[1]))
    with suppress(BrokenPipeError):  # the shell is gone
        Worker(wire).run()
    sys.stderr.flush()
    os._exit(0)  # not through the interpreter's end: native threads still run


if __name__ == "__main__":
    main()
