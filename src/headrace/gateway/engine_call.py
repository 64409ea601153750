"""One request to one engine of a pool: admitted, sent, tried once more elsewhere, and let go of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from headrace.gateway import external
from headrace.gateway.exchange import Headers, RequestHead
from headrace.gateway.fleet import Pool, Replica
from headrace.gateway.limits import Limits
from headrace.gateway.metering import Meter
from headrace.gateway.record import RequestRecord
from headrace.gateway.upstream import TimedOut, UpstreamAnswer, UpstreamError, UpstreamRequest
from headrace.gateway.waiting_room import failed_for_good
from headrace.resources.errors import EngineTimeout, EngineUnreachable, HeadraceError, NotReady
from headrace.resources.snapshot import DeployedRoute

_PASSED_ON = (b"traceparent", b"tracestate")
"""Headers of the client that an engine gets to see (W3C Trace Context). Its key is not among them."""


class Call(msgspec.Struct, kw_only=True):
    """An inference request that was authenticated and routed.

    Attributes:
        google: Whether errors have Google's shape; else OpenAI's.
        headers: For the answer.
        forwarded: For the engine.
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
    meter: Meter
    hides_usage: bool = False


def forwarded_headers(head: RequestHead, record: RequestRecord) -> Headers:
    """What an engine is told of the request besides its body."""
    passed_on = [(name, value) for name, value in head.headers if name in _PASSED_ON]
    return [(b"content-type", b"application/json"), (b"x-request-id", record.request_id.encode("ascii")), *passed_on]


@asynccontextmanager
async def engine_answer(call: Call, path: str, body: bytes, *, stream: bool) -> AsyncIterator[UpstreamAnswer]:
    """Wait for a turn, send the request to the replica with the least to do, and hold both until the answer is over.

    Until the first byte of an answer nobody has seen anything of it, and inference changes nothing in the world: so a
    replica that cannot be reached, or breaks off before that, is replaced by another one, once. Leaving the block
    early, by an error or because the client left, closes the connection, which stops the engine's work.

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
    async with call.pool.room.place():
        replica, answer = await _begin(call, path, body, stream=stream)
        call.record.replica = replica.route.id
        call.record.first_byte()
        try:
            async with answer:
                if call.deployed.external_host:
                    external.require_plain(call.deployed.external_host, answer)
                yield answer
        finally:
            replica.outstanding -= 1


async def _begin(call: Call, path: str, body: bytes, *, stream: bool) -> tuple[Replica, UpstreamAnswer]:
    failed: Replica | None = None
    cause: UpstreamError | None = None
    while replica := call.pool.pick(but=failed):
        replica.outstanding += 1
        try:
            return replica, await _send(call, replica, path, body, stream=stream)
        except UpstreamError as error:
            replica.outstanding -= 1
            if failed is not None or isinstance(error, TimedOut):
                raise _translated(call, error) from error
            failed, cause = replica, error
        except BaseException:
            replica.outstanding -= 1
            raise
    raise (_not_ready(call) if cause is None else _translated(call, cause)) from cause


async def _send(call: Call, replica: Replica, path: str, body: bytes, *, stream: bool) -> UpstreamAnswer:
    request = UpstreamRequest(
        method="POST",
        target=replica.target(path),
        headers=[*call.forwarded, *replica.headers],
        body=body,
        repeatable=True,
    )
    timeout_s = call.limits.first_byte_timeout_s if stream else call.limits.answer_timeout_s
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
