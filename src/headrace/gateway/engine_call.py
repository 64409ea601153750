"""One request to one engine of a pool: admitted, sent, tried once more elsewhere, and let go of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import msgspec

from headrace.contracts.openai.usage import Usage
from headrace.contracts.vertex.predict import CHAT_PATH, COMPLETIONS_PATH
from headrace.gateway import external
from headrace.gateway.attempts import Attempts, deadline_of
from headrace.gateway.exchange import Headers, RequestHead
from headrace.gateway.fair_queue import Visit
from headrace.gateway.fleet import Assignment, Pool
from headrace.gateway.limits import Limits
from headrace.gateway.metering import Meter
from headrace.gateway.record import RequestRecord
from headrace.gateway.upstream import TimedOut, UpstreamAnswer, UpstreamError, UpstreamRequest
from headrace.gateway.waiting_room import Meanwhile, failed_for_good
from headrace.resources.errors import (
    EngineBrokeOff,
    EngineStalled,
    EngineTimeout,
    EngineUnreachable,
    HeadraceError,
    NotReady,
)
from headrace.resources.priority import Priority
from headrace.resources.snapshot import DeployedRoute

_PASSED_ON = (b"traceparent", b"tracestate")
"""Headers of the client that an engine gets to see (W3C Trace Context). Its key is not among them."""

_BYTES_PER_TOKEN = 4
"""Of a request's body: English text in JSON. What a key is charged at first; the engine's count corrects it."""


class Call(msgspec.Struct, kw_only=True):
    """An inference request that was authenticated and routed.

    Attributes:
        google: Whether errors have Google's shape; else OpenAI's.
        headers: For the answer.
        forwarded: For the engine.
        patience_s: How long the client says that it waits for the answer to begin; None if it does not say.
        answers: Engines' answers that are over, so far: one, or one for each instance.
        sent_bytes: Of the bodies of those.
        priority: The class in which it waits for its turn.
        settled: What of the tokens that engines told was charged already.
        owing: Requests to engines that used tokens, or may have.
        meter: Writes down what it uses.
        hides_usage: Whether a stream tells its usage only because we asked for that.
    """

    record: RequestRecord
    deployed: DeployedRoute
    pool: Pool
    limits: Limits
    google: bool
    headers: Headers
    forwarded: Headers
    patience_s: float | None = None
    answers: int = 0
    sent_bytes: int = 0
    priority: Priority = Priority.INTERACTIVE
    settled: Usage = Usage(0, 0)
    owing: int = 0
    meter: Meter
    hides_usage: bool = False

    def learn(self) -> None:
        """Tell the pool what the request came to, once all of it is answered and if the engines counted it."""
        record = self.record
        if self.answers and record.prompt_tokens is not None:
            self.pool.expectation.learn(
                size_bytes=self.sent_bytes,
                prompt_tokens=record.prompt_tokens,
                output_tokens=record.completion_tokens or 0,
                answers=self.answers,
            )

    def newly_used(self) -> Usage | None:
        """The tokens that engines told since this was asked last; None if they told of none."""
        told = Usage(self.record.prompt_tokens or 0, self.record.completion_tokens or 0)
        if told == self.settled:
            return None
        before, self.settled = self.settled, told
        return Usage(told.prompt_tokens - before.prompt_tokens, told.completion_tokens - before.completion_tokens)

    def goes_to(self, deployed: DeployedRoute, pool: Pool) -> None:
        """Be answered by another deployed model than was chosen first; nothing was sent to an engine yet.

        An answer that comments have begun (`heartbeat`) has told of the first one already.
        """
        self.deployed, self.pool = deployed, pool
        self.hides_usage = False
        self.record.deployed_model = deployed.id
        self.meter.goes_to(deployed)
        told = dict(model_headers(deployed))
        self.headers = [(name, told.get(name, value)) for name, value in self.headers]


def model_headers(deployed: DeployedRoute) -> Headers:
    """What an answer says of the model that gave it."""
    return [
        (b"x-vertex-ai-deployed-model-id", deployed.id.encode()),
        (b"x-vertex-ai-model-id", deployed.model.rpartition("/")[2].encode()),
    ]


def forwarded_headers(head: RequestHead, record: RequestRecord) -> Headers:
    """What an engine is told of the request besides its body."""
    passed_on = [(name, value) for name, value in head.headers if name in _PASSED_ON]
    return [(b"content-type", b"application/json"), (b"x-request-id", record.request_id.encode("ascii")), *passed_on]


@asynccontextmanager
async def engine_answer(
    call: Call, path: str, body: bytes, *, stream: bool, meanwhile: Meanwhile = nullcontext
) -> AsyncIterator[UpstreamAnswer]:
    """Wait for a turn, send the request to the replica that is best for it, and hold both until the answer is over.

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
        meanwhile: What is done while it waits for its turn.

    Raises:
        NotReady: The deployment has no replica; if it scales to zero, none became ready in time.
        QueueFull: Too many wait for it.
        QueueTimeout: The turn did not come.
        EngineUnreachable: No answer was to be had.
        EngineTimeout: None began in time.
        HeadraceError: An external server is not there, or not to be trusted.
    """
    if not call.pool.replicas and not call.pool.wakes:
        raise _not_ready(call)
    visit = _visit(call, path, body)
    async with call.pool.room.place(visit, meanwhile=meanwhile):
        visit.used = Usage(0, 0)
        assignment, answer = await _begin_owing(call, path, body, stream=stream)
        call.record.replica = assignment.replica.route.id
        call.record.first_byte()
        try:
            async with answer:
                if call.deployed.external_host:
                    external.require_plain(call.deployed.external_host, answer)
                yield answer
        except (EngineBrokeOff, EngineStalled):
            assignment.failed()
            raise
        finally:
            assignment.release()
            if answer.status < 300:
                visit.used = call.newly_used()
        call.answers += 1
        call.sent_bytes += len(body)


def _visit(call: Call, path: str, body: bytes) -> Visit:
    generates = path in (CHAT_PATH, COMPLETIONS_PATH)
    prompt_tokens = len(body) // _BYTES_PER_TOKEN
    return Visit(call.record.key_id, call.priority, prompt_tokens=prompt_tokens, generates=generates)


@asynccontextmanager
async def aside(call: Call, path: str, body: bytes) -> AsyncIterator[UpstreamAnswer]:
    """Ask an engine of the pool something that makes no tokens, beside the line of those that wait for a turn.

    Raises:
        HeadraceError: No answer was to be had.
    """
    sent_s = call.record.sent_s
    try:
        assignment, answer = await _begin(call, path, body, stream=False)
    finally:
        call.record.sent_s = sent_s  # the request itself was not sent by this, and has nothing to be metered yet
    try:
        async with answer:
            yield answer
    finally:
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
    call.owing -= begun[1].status >= 300
    return begun


async def _begin(call: Call, path: str, body: bytes, *, stream: bool) -> tuple[Assignment, UpstreamAnswer]:
    pool, limits = call.pool, call.limits
    limit_s = limits.first_byte_timeout_s if stream else limits.answer_timeout_s
    attempts = Attempts(pool, pool.demand_of(path, body), deadline_of(call.record.arrived_s, limit_s, call.patience_s))
    if attempts.left_s <= 0.0:
        raise _translated(call, TimedOut("The time that its client gives it was over before an engine could have it."))
    while assignment := attempts.choose():
        timeout_s = attempts.timeout_s(assignment)
        try:
            answer = await _send(call, assignment, path, body, timeout_s)
        except UpstreamError as error:
            goes_on = attempts.goes_on_after(assignment, error, patient=timeout_s > limit_s / 2)
            assignment.release()
            if not goes_on:
                raise _translated(call, error) from error
        except BaseException:
            assignment.release()
            raise
        else:
            if not attempts.goes_on_instead_of(assignment, answer):
                return assignment, answer
            answer.close()
            assignment.release()
    raise _not_ready(call)


async def _send(call: Call, assignment: Assignment, path: str, body: bytes, timeout_s: float) -> UpstreamAnswer:
    replica = assignment.replica
    request = UpstreamRequest(
        method="POST",
        target=replica.target(path),
        headers=[*call.forwarded, *replica.headers],
        body=body,
        repeatable=True,
    )
    call.record.sent()
    return await replica.upstream.send(request, timeout_s=timeout_s, stall_timeout_s=call.limits.stall_timeout_s)


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
