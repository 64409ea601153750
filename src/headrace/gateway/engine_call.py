"""One request to one engine of a pool: admitted, sent, tried once more elsewhere, and let go of."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from headrace.contracts.openai.usage import Usage
from headrace.contracts.vertex.predict import CHAT_PATH, COMPLETIONS_PATH
from headrace.gateway import external
from headrace.gateway.attempts import Attempts, deadline_of
from headrace.gateway.call import Call
from headrace.gateway.fair_queue import Visit
from headrace.gateway.fleet import Assignment
from headrace.gateway.upstream import MoreTime, TimedOut, UpstreamAnswer, UpstreamError, UpstreamRequest
from headrace.gateway.waiting_room import failed_for_good
from headrace.gateway.work import used_work
from headrace.resources.errors import (
    ClientTimeout,
    EngineBrokeOff,
    EngineStalled,
    EngineTimeout,
    EngineUnreachable,
    HeadraceError,
    NotReady,
)
from headrace.resources.priority import Priority

if TYPE_CHECKING:
    from headrace.gateway.heartbeat import Heartbeats
    from headrace.gateway.tracing import Attempt

_NOTHING = Usage(0, 0)

_BYTES_PER_TOKEN = 4
"""Of a request's body: English text in JSON. What a key is charged at first; the engine's count corrects it."""


class EngineAnswer:
    """Waits for a turn, sends the request to the replica that is best for it, and holds both until the answer is over.

    Until the first byte of an answer nobody has seen anything of it, and inference changes nothing in the world: so a
    replica that cannot be reached, breaks off before that or says that it cannot now is replaced by another, as
    `Attempts` has it. Leaving the block early, by an error or because the client left, closes the connection, which
    stops the engine's work.

    Its key is charged for the tokens that the answer told by the end of the block; for an estimate where it told none;
    for nothing where there was no answer, or a refusal.

    Args:
        call: What is asked.
        path: Of the engine's route.
        body: For the engine.
        stream: Whether the answer comes as it is made.
        meanwhile: Entered until the answer begins.

    Raises:
        NotReady: The deployment has no replica; if it scales to zero, none became ready in time.
        QueueFull: Too many wait for it.
        QueueTimeout: The turn did not come.
        EngineUnreachable: No answer was to be had.
        EngineTimeout: None began in time.
        HeadraceError: An external server is not there, or not to be trusted.
    """

    def __init__(
        self, call: Call, path: str, body: bytes, *, stream: bool, meanwhile: Heartbeats | None = None
    ) -> None:
        self._call = call
        self._path = path
        self._body = body
        self._stream = stream
        self._meanwhile = meanwhile
        self._room = call.pool.room
        self._visit = _visit(call, path, body)
        self._begun: tuple[Assignment, UpstreamAnswer] | None = None

    async def __aenter__(self) -> UpstreamAnswer:
        if self._meanwhile is None:
            return await self._enter()
        with self._meanwhile:
            return await self._enter()

    async def _enter(self) -> UpstreamAnswer:
        call = self._call
        call.record.stream = self._stream
        if not call.pool.replicas and not call.pool.awaited:
            raise _not_ready(call)
        waiting = None if call.record.trace is None else call.record.trace.begin("wait for a turn")
        await self._room.come_in(self._visit)
        if waiting is not None:
            waiting.end()
        if call.claim is not None:
            call.claim.begin()
        if self._meanwhile is not None and call.deployed.external_host:
            self._meanwhile.stop()  # it may answer in one piece, before which no comment may stand
        try:
            self._visit.used = _NOTHING
            self._begun = await _begin_owing(call, self._path, self._body, stream=self._stream)
            assignment, answer = self._begun
            call.record.replica = assignment.replica.route.id
            call.record.first_byte()
            if call.deployed.external_host:
                external.require_plain(call.deployed.external_host, answer)
        except BaseException as error:
            self._leave(error)
            raise
        return answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        """Let go of the replica, if there is one, and of the turn."""
        call = self._call
        if self._begun is not None:
            assignment, answer = self._begun
            answer.close()
            if isinstance(error, EngineBrokeOff | EngineStalled):
                assignment.failed()
                if assignment.attempt is not None:
                    assignment.attempt.failed(error.code)
            assignment.release()
            if answer.status < 300:
                self._visit.used = call.newly_used()
                self._charge()
            if error is None:
                assignment.ended()
                call.answers += 1
                call.sent_bytes += len(self._body)
        self._room.depart(self._visit)

    def _charge(self) -> None:
        """Charge what was used to the throughput that was sold, if one was."""
        claim, used = self._call.claim, self._visit.used
        if claim is not None and used is not None:
            carried = claim.throughput.provision.carried
            claim.charge(used_work(carried, used, prompts=claim.prompts, answers=claim.answers))


def _visit(call: Call, path: str, body: bytes) -> Visit:
    generates = path in (CHAT_PATH, COMPLETIONS_PATH)
    prompt_tokens = len(body) // _BYTES_PER_TOKEN
    if call.claim is not None and call.claim.guaranteed:
        tenant = call.claim.throughput.tenant
        return Visit(tenant, Priority.GUARANTEED, prompt_tokens=prompt_tokens, generates=generates)
    return Visit(call.record.key_id, call.priority, prompt_tokens=prompt_tokens, generates=generates)


class Aside:
    """Asks an engine of the pool something that makes no tokens, beside the line of those that wait for a turn.

    Raises:
        HeadraceError: No answer was to be had.
    """

    def __init__(self, call: Call, path: str, body: bytes) -> None:
        self._call = call
        self._path = path
        self._body = body
        self._begun: tuple[Assignment, UpstreamAnswer] | None = None

    async def __aenter__(self) -> UpstreamAnswer:
        record = self._call.record
        sent_s = record.sent_s
        try:
            self._begun = await _begin(self._call, self._path, self._body, stream=False)
        finally:
            record.sent_s = sent_s  # the request itself was not sent by this, and has nothing to be metered yet
        return self._begun[1]

    async def __aexit__(self, *_: object) -> None:
        assert self._begun is not None
        assignment, answer = self._begun
        answer.close()
        assignment.release()


async def _begin_owing(call: Call, path: str, body: bytes, *, stream: bool) -> tuple[Assignment, UpstreamAnswer]:
    """Begin, and note that it may use tokens, unless no engine was to be had or the one that was refuses it.

    Whether one that was cancelled, or did not answer in time, has done some of its work nobody knows.
    """
    call.owing += 1
    try:
        begun = await _begin(call, path, body, stream=stream)
    except EngineTimeout:
        raise
    except HeadraceError:
        call.owing -= 1
        raise
    assignment, answer = begun
    call.owing -= answer.status >= 300 and not assignment.after_late
    return begun


async def _begin(call: Call, path: str, body: bytes, *, stream: bool) -> tuple[Assignment, UpstreamAnswer]:
    pool, limits = call.pool, call.limits
    silence_s = limits.first_byte_timeout_s if stream else limits.answer_timeout_s
    deadline = deadline_of(call.record.arrived_s, max(silence_s, limits.answer_timeout_s), call.waits_s)
    attempts = Attempts(pool, pool.demand_of(path, body), deadline, silence_s)
    if attempts.left_s <= 0.0:
        raise _translated(call, TimedOut("The time that its client gives it was over before an engine could have it."))
    noticed_s = 0.0 if call.deployed.external_host else limits.noticed_s
    while assignment := attempts.choose() or await attempts.replacement():
        timeout_s = attempts.timeout_s(assignment)
        try:
            more_s = partial(attempts.more_s, assignment)
            answer = await _send(call, assignment, path, body, timeout_s=timeout_s, more_s=more_s)
        except UpstreamError as error:
            goes_on = attempts.goes_on_after(assignment, error, patient=timeout_s > silence_s / 2)
            assignment.release()
            if not goes_on and not await attempts.replaced(noticed_s):
                raise _translated(call, attempts.told(error)) from error
        except BaseException:
            assignment.release()
            raise
        else:
            if not attempts.goes_on_instead_of(assignment, answer):
                assignment.after_late = attempts.was_late
                return assignment, answer
            answer.close()
            assignment.release()
    raise _not_ready(call)


async def _send(
    call: Call, assignment: Assignment, path: str, body: bytes, *, timeout_s: float, more_s: MoreTime
) -> UpstreamAnswer:
    replica = assignment.replica
    forwarded, trace = call.forwarded, call.record.trace
    if trace is not None:
        assignment.attempt = trace.attempt(path, call.deployed.served_name, replica.route.id)
        forwarded = assignment.attempt.marked(forwarded)
    request = UpstreamRequest(
        method="POST", target=replica.target(path), headers=[*forwarded, *replica.headers], body=body, repeatable=True
    )
    call.record.sent()
    sending = replica.upstream.send(
        request, timeout_s=timeout_s, more_s=more_s, stall_timeout_s=call.limits.stall_timeout_s
    )
    return await (sending if assignment.attempt is None else _traced(assignment.attempt, sending))


async def _traced(attempt: Attempt, sending: Awaitable[UpstreamAnswer]) -> UpstreamAnswer:
    try:
        answer = await sending
    except UpstreamError as error:
        attempt.failed(type(error).__name__)
        raise
    attempt.answered(answer.status)
    return answer


def _not_ready(call: Call) -> NotReady:
    if call.deployed.failure is not None:
        return failed_for_good(call.pool.name, call.deployed.failure)
    return NotReady(
        f"{call.pool.name} has no replica that is ready.",
        evidence=call.deployed.why_not_ready,
        fix="`headrace deployments` shows how far it is.",
        retry_after_s=5.0,
    )


def _translated(call: Call, error: UpstreamError) -> HeadraceError:
    if isinstance(error, TimedOut) and call.given_up:
        return ClientTimeout(
            f"No answer of {call.pool.name} began within the {call.patience_s:g} s that its client waits.",
            evidence=str(error),
            fix="Give the client more time (its `timeout`), ask for fewer tokens, or stream the answer.",
        )
    if call.deployed.external_host:
        return external.silence_of(call.deployed.external_host, error)
    if isinstance(error, TimedOut):
        return EngineTimeout(
            f"The engine of {call.pool.name} did not begin its answer in time.",
            evidence=str(error),
            fix="Ask for fewer tokens, stream the answer, or look at the engine's log: `headrace logs`.",
        )
    return EngineUnreachable(
        f"The engine of {call.pool.name} does not answer.",
        evidence=str(error),
        fix="Try again: it is being replaced if it died. `headrace deployments` shows its state.",
        retry_after_s=1.0,
    )
