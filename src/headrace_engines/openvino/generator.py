"""The `Generator` of this engine: the shell's end of the wire to the process that computes."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import cast

from headrace_engines.openvino.grammar_process import GrammarProcess
from headrace_engines.openvino.messages import Cancel, Failure, Fatal, FromWorker, Inbox, Step, Submit, framed
from headrace_engines.openvino.pipeline_process import PipelineProcess
from headrace_engines.openvino.requests import require_possible
from headrace_engines.serving.fatal import FatalError
from headrace_engines.serving.frozen import Compute
from headrace_engines.serving.generator import (
    Generation,
    GenerationFailed,
    GenerationRequest,
    Generator,
    GrammarInvalid,
    Limits,
    Load,
    OnDeath,
    QueueFull,
    SamplingImpossible,
)

_log = logging.getLogger(__name__)


class PipelineGenerator(Generator, asyncio.Protocol):
    """Hands sequences to the process that computes, and on what its steps give: one message, one wake-up per step.

    Args:
        process: Where they are computed; its model is loaded.
        limits: What is accepted.
        grammars: Tells which grammars the pipeline can follow.
        loop: Where this lives.
        on_death: Called there when nothing can be computed any more.
    """

    def __init__(
        self,
        *,
        process: PipelineProcess,
        limits: Limits,
        grammars: GrammarProcess,
        loop: asyncio.AbstractEventLoop,
        on_death: OnDeath,
    ) -> None:
        self.limits = limits
        self._process = process
        self._grammars = grammars
        # A grammar that takes seconds to check holds up no other sequence.
        self._grammar_thread = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        self._loop = loop
        self._on_death = on_death
        self._fatal: FatalError | None = None
        self._numbers = count()
        self._open: dict[int, Generation] = {}  # submitted and not ended
        self._checking = 0  # sequences whose grammar is tried out, elsewhere
        self._running, self._cache_used = 0, 0.0
        self._inbox: Inbox[FromWorker] = Inbox(FromWorker)
        self._wire: asyncio.WriteTransport | None = None

    async def connect(self) -> None:
        """Take the wire over. To be awaited before anything is submitted."""
        await self._loop.create_connection(lambda: self, sock=self._process.wire)

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue one sequence.

        Raises:
            QueueFull: The waiting room is full.
            GenerationFailed: The engine has died.
            GrammarInvalid: The request asks for tokens that its grammar has no place for.
        """
        if self._fatal is not None:
            raise GenerationFailed(self._fatal.code, self._fatal.message)
        require_possible(request)
        if len(self._open) >= self.limits.max_running + self.limits.max_waiting:
            raise QueueFull(self.limits)
        number = next(self._numbers)
        submit = framed(Submit(number, request))  # what cannot be told takes no place
        self._open[number] = generation = Generation(lambda: self._cancel(number))
        if request.grammar is None:
            self._send(submit)
        else:
            self._checking += 1
            checked = self._loop.run_in_executor(self._grammar_thread, self._grammars.check, request.grammar)
            checked.add_done_callback(lambda checked: self._grammar_checked(number, submit, checked.exception()))
        return generation

    def load(self) -> Load:
        """What runs and waits now."""
        return Load(self._running, max(0, len(self._open) - self._running), self._cache_used)

    def compute(self) -> Compute:
        """The other process, and how many sequences wait for it."""
        return Compute((self._process.pid,), max(0, len(self._open) - self._checking))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The wire is ours."""
        self._wire = cast("asyncio.WriteTransport", transport)  # uvloop's do not inherit from it

    def data_received(self, data: bytes) -> None:
        """Something was computed."""
        for message in self._inbox.messages(data):
            if isinstance(message, Step):
                self._deliver(message)
            elif isinstance(message, Fatal):
                self._die(FatalError(message.code, message.message, evidence=message.evidence))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """The process is gone, with or without a word."""
        if self._fatal is None:
            self._die(self._process.end())

    def _send(self, frame: bytes) -> None:
        assert self._wire is not None  # connected
        self._wire.write(frame)

    def _cancel(self, number: int) -> None:
        # One whose grammar is still being looked at is unknown to the other side, which does not mind.
        if self._open.pop(number, None) is not None:
            self._send(framed(Cancel(number)))

    def _grammar_checked(self, number: int, submit: bytes, error: BaseException | None) -> None:
        self._checking -= 1
        if number not in self._open:
            return
        if error is None:
            self._send(submit)
            return
        if not isinstance(error, GrammarInvalid):
            _log.error("A grammar could not be checked.", exc_info=error)
            error = GrammarInvalid(f"it could not be checked ({type(error).__name__}).")
        self._open.pop(number).deliver(error)

    def _deliver(self, step: Step) -> None:
        self._running, self._cache_used = step.running, step.cache_used
        for number, began_s in step.began:
            if number in self._open:
                self._open[number].began(began_s)
        for number, event in step.events:
            generation = self._open.get(number)
            if generation is not None:  # not cancelled meanwhile
                if event.finish_reason is not None:
                    del self._open[number]
                generation.deliver(event)
        for failure in step.failures:
            if failure.number in self._open:
                self._open.pop(failure.number).deliver(_failed(failure))

    def _die(self, fatal: FatalError) -> None:
        self._fatal = fatal
        self._running, self._cache_used = 0, 0.0
        unfinished, self._open = self._open, {}
        for generation in unfinished.values():
            generation.deliver(GenerationFailed(fatal.code, fatal.message))
        self._on_death(fatal)


def _failed(failure: Failure) -> GenerationFailed:
    if failure.code == "SAMPLING_IMPOSSIBLE":
        return SamplingImpossible(failure.message)
    return GenerationFailed(failure.code, failure.message)
