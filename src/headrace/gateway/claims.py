"""What a request claims of the throughput that its deployed model was sold, and what becomes of the claim."""

from __future__ import annotations

from headrace.contracts.openai.requests import OpenAIBody
from headrace.gateway.call import Call
from headrace.gateway.key_limits import counts_as_it_goes, needs_of
from headrace.gateway.routes import Action
from headrace.gateway.throughputs import Throughputs
from headrace.gateway.work import expected_work
from headrace.resources.errors import HeadraceError, QueueFull, QueueTimeout
from headrace.resources.priority import Priority
from headrace.resources.snapshot import EndpointRoute


async def claim_work(
    call: Call, throughputs: Throughputs, endpoint: EndpointRoute, action: Action, body: OpenAIBody, *, size_bytes: int
) -> None:
    """Claim of what was sold what the request will cost; what was claimed of another deployed model is let go.

    Args:
        call: What is asked; has the claim afterwards.
        throughputs: Of everybody.
        endpoint: Of the request.
        action: How it is asked.
        body: With what.
        size_bytes: How long that was.

    Raises:
        ThroughputExceeded: It does not fit now.
        HeadraceError: It cannot be read.
    """
    if call.claim is not None:
        call.claim.settle(exact=True)
        call.claim = None
    found = throughputs.of(endpoint, call.deployed)
    if found is None:
        return
    throughput, budget = found
    needs = needs_of(action, body)
    work = expected_work(
        throughput.provision.carried,
        needs,
        throughput.expectation,
        size_bytes=size_bytes,
        max_model_len=call.deployed.max_model_len,
    )
    call.claim = await throughput.claim(budget, work, batch=call.priority is Priority.BATCH)
    call.claim.prompts = max((need.prompts for need in needs), default=1) or 1
    call.claim.answers = max((need.samples for need in needs), default=1) or 1


def settle_work(
    call: Call, body: OpenAIBody, size_bytes: int, *, whole: bool, error: HeadraceError | None = None
) -> None:
    """Put what the request used in the place of what it claimed, and learn from it.

    Where an engine began on it and did not say (the client left, the answer broke off) it is at least what was claimed.

    Args:
        call: What was asked, and what became of it.
        body: Of the request.
        size_bytes: Of that.
        whole: Whether it was answered to its end.
        error: Why not, where somebody was told.
    """
    if call.claim is None:
        return
    record = call.record
    exact = call.owing == record.told and (whole or not counts_as_it_goes(body))
    call.claim.settle(exact=exact, turned_away=isinstance(error, QueueFull | QueueTimeout))
    if whole and exact and call.answers and record.prompt_tokens is not None:
        call.claim.throughput.expectation.learn(
            size_bytes=size_bytes,
            prompt_tokens=record.prompt_tokens,
            output_tokens=record.completion_tokens or 0,
            answers=call.answers * call.claim.prompts * call.claim.answers,
        )
