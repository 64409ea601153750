"""Chat templates at arm's length: one that loops for ever or takes all memory costs its own request, nothing else."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from headrace_engines.serving.codec import ChatRefused

TIMEOUT_S = 5
"""Rendering takes about a millisecond."""

MEMORY_MAX_BYTES = 512 * 2**20
"""Address space of the worker: fifteen times the longest body that the gateway lets through."""

TEXT_MAX_BYTES = 8 * 2**20
"""More than a million tokens of English; tokenising as much takes seconds."""

_WORKER = Path(__file__).with_name("template_worker.py")


class TemplateProcess:
    """Renders templates in a worker process that outlives requests and is replaced when a template ends it.

    Calls block and come one at a time.
    """

    def __init__(self) -> None:
        self._worker: subprocess.Popen[bytes] | None = None

    def render(self, template: str, variables: Mapping[str, Any]) -> str:
        """The text that `template` makes of `variables`.

        Raises:
            ChatRefused: The template refuses, is none, or takes more time, memory or bytes than it may.
            RuntimeError: The worker does not start.
        """
        return self._ask({"template": template, "variables": variables})

    def check(self, template: str) -> None:
        """Pass if `template` parses; what it would say of messages is not looked at.

        Raises:
            ChatRefused: It is none.
            RuntimeError: The worker does not start.
        """
        self._ask({"template": template})

    def close(self) -> None:
        """End the worker."""
        worker, self._worker = self._worker, None
        if worker is not None:
            with suppress(OSError), worker:  # waits, after closing its input, which ends it
                _stream(worker.stdin).close()

    def _ask(self, question: Mapping[str, Any]) -> str:
        request = msgspec.json.encode(question)
        worker = self._running()
        try:
            _stream(worker.stdin).write(struct.pack(">I", len(request)) + request)
            _stream(worker.stdin).flush()
            rendered, text = _read_answer(_stream(worker.stdout))
        except (OSError, EOFError) as error:
            raise ChatRefused(self._lost(worker)) from error
        if not rendered:
            raise ChatRefused(text)
        return text

    def _running(self) -> subprocess.Popen[bytes]:
        if self._worker is not None and self._worker.poll() is None:
            return self._worker
        # Isolated and without the engine's token: what it runs comes from the model's folder.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        limits = [str(limit) for limit in (TIMEOUT_S, MEMORY_MAX_BYTES, TEXT_MAX_BYTES)]
        worker = subprocess.Popen(
            [sys.executable, "-I", str(_WORKER), *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        try:
            _read_answer(_stream(worker.stdout))
        except EOFError as error:
            raise RuntimeError(f"The chat template's process does not start: exit status {worker.wait()}.") from error
        self._worker = worker
        return worker

    def _lost(self, worker: subprocess.Popen[bytes]) -> str:
        """Why a worker ended in the middle of a request."""
        self._worker = None
        with suppress(OSError), worker:  # closes its pipes, whatever of the request is still in them, and waits
            worker.kill()
        if worker.returncode == -signal.SIGALRM:
            return f"The model's chat template took longer than {TIMEOUT_S} s."
        return f"The model's chat template ended its process: exit status {worker.returncode}."


def _stream(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # every worker is started with pipes
    return pipe


def _read_answer(pipe: IO[bytes]) -> tuple[bool, str]:
    header = pipe.read(5)
    if len(header) < 5:
        raise EOFError
    rendered, length = struct.unpack(">?I", header)
    content = pipe.read(length)
    if len(content) < length:
        raise EOFError
    return rendered, content.decode()
