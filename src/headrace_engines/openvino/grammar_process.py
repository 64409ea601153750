"""Grammars tried out at arm's length: a step that throws would be the engine's end (`generator.PipelineGenerator`)."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path

import msgspec

from headrace_engines.serving.generator import Grammar, GrammarInvalid

CPU_TIME_MAX_S = 2
"""What compiling one may take; a new one holds up a step as long. Usual ones take milliseconds."""

MEMORY_MAX_BYTES = 2**30
"""Address space that compiling may take on top of what the worker has when it starts."""

_REMEMBERED = 64
"""Grammars that are not tried again: most requests of a client have the same."""

_MODULE = "headrace_engines.openvino.grammar_worker"


class GrammarProcess:
    """Compiles grammars in a worker process, as the pipeline will. It starts with the first and outlives them.

    Calls block and come one at a time.

    Args:
        folder: The model's; its tokens are what grammars are compiled for.
        vocab_size: Token ids are below this.
    """

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self._arguments = [str(folder), str(vocab_size), str(CPU_TIME_MAX_S), str(MEMORY_MAX_BYTES)]
        self._worker: subprocess.Popen[bytes] | None = None
        self._valid: deque[Grammar] = deque(maxlen=_REMEMBERED)

    def check(self, grammar: Grammar) -> None:
        """Nothing, for a grammar that the pipeline can follow.

        Raises:
            GrammarInvalid: It cannot, or compiling it takes too much.
            RuntimeError: The worker does not start.
        """
        if grammar in self._valid:
            return
        worker = self._running()
        assert worker.stdin is not None
        request = msgspec.json.encode(grammar)
        try:
            worker.stdin.write(struct.pack(">I", len(request)) + request)
            worker.stdin.flush()
            why = _read_answer(worker)
        except (OSError, EOFError) as error:
            raise GrammarInvalid(self._lost(worker)) from error
        if why:
            raise GrammarInvalid(why)
        self._valid.append(grammar)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._worker is not None and self._worker.poll() is None:
            return self._worker
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")},
        )
        try:
            _read_answer(worker)
        except EOFError as error:
            raise RuntimeError(f"The grammars' process does not start: exit status {worker.wait()}.") from error
        self._worker = worker
        return worker

    def _lost(self, worker: subprocess.Popen[bytes]) -> str:
        """Why a worker ended in the middle of a request."""
        self._worker = None
        with suppress(OSError), worker:  # closes its pipes, whatever of the request is still in them, and waits
            worker.kill()
        if worker.returncode == -signal.SIGPROF:
            return f"compiling it takes more than {CPU_TIME_MAX_S} s."
        return f"compiling it ended its process: exit status {worker.returncode}."


def _read_answer(worker: subprocess.Popen[bytes]) -> str:
    assert worker.stdout is not None
    header = worker.stdout.read(4)
    if len(header) < 4:
        raise EOFError
    (length,) = struct.unpack(">I", header)
    content = worker.stdout.read(length)
    if len(content) < length:
        raise EOFError
    return content.decode()
