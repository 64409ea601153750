"""A request within the limits of its key: reserved before anything is asked of an engine, settled when it is over."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import msgspec

from headrace.contracts.openai.need import EMBEDDINGS_PATH, Need, need_of
from headrace.contracts.openai.requests import OpenAIBody, read_object
from headrace.contracts.vertex.predict import CHAT_PATH, COMPLETIONS_PATH, read_instances
from headrace.gateway.call import Call
from headrace.gateway.joint_budget import AnyBudget, AnyReservation
from headrace.gateway.prompt_count import count_prompts
from headrace.gateway.request_head import Headers
from headrace.gateway.routes import Action
from headrace.resources.errors import BadField, KeyLimited

_PATHS = {
    Action.CHAT: CHAT_PATH,
    Action.GENERATE_CONTENT: CHAT_PATH,
    Action.STREAM_GENERATE_CONTENT: CHAT_PATH,
    Action.COMPLETIONS: COMPLETIONS_PATH,
    Action.EMBEDDINGS: EMBEDDINGS_PATH,
}
_INSTANCES = frozenset({Action.PREDICT, Action.RAW_PREDICT, Action.STREAM_RAW_PREDICT})


@asynccontextmanager
async def within_limits(
    call: Call, budget: AnyBudget, action: Action, body: OpenAIBody
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Reserve what the request may use, and charge the key for what it used when the block ends.

    That is what engines counted. Where one began on it and did not say (the client left, the answer broke off, a server
    that is not ours tells no usage), it is all that was reserved, for it may have been.

    Args:
        call: What is asked.
        budget: What it needs room in: that of its key, and those of its endpoint.
        action: How it is asked.
        body: With what.

    Yields:
        What is to be called when another deployed model is to answer, which may read the prompt as more tokens or write
        more of them: sees that all it may use is reserved, and raises the same.

    Raises:
        KeyLimitReached: It does not fit now.
        KeyLimitTooSmall: It never does.
        HeadraceError: Its prompt could not be counted, or it cannot be said what it needs.
    """
    with _telling(budget):
        tokens = 0 if budget.tokens.limit is None else await _tokens(call, budget, action, body)
        reservation: AnyReservation = await budget.when_it_fits(tokens, partial(budget.reserve, tokens))
    call.headers.extend(limit_headers(budget))

    async def recount() -> None:
        if budget.tokens.limit is not None:
            with _telling(budget):
                reservation.widen(await _total(call, needs_of(action, body)))

    whole = False
    try:
        yield recount
        whole = True
    finally:
        record = call.record
        counted = (record.prompt_tokens or 0) + (record.completion_tokens or 0)
        exact = call.owing == record.told and (whole or not counts_as_it_goes(body))
        reservation.settle(counted if exact else max(counted, reservation.tokens))


@contextmanager
def _telling(budget: AnyBudget) -> Iterator[None]:
    """Say with a refusal what is left of the key's limits."""
    try:
        yield
    except KeyLimited as error:
        error.headers = tuple(limit_headers(budget))
        raise


def counts_as_it_goes(body: OpenAIBody) -> bool:
    """Whether a stream may tell its usage before it is all."""
    return b"continuous_usage_stats" in bytes(body.get("stream_options", b""))


def limit_headers(budget: AnyBudget) -> Headers:
    """What is left of a key's limits, under the names of OpenAI's API; nothing of a limit that there is not."""
    now = budget.now()
    headers: Headers = []
    for unit, allowance in ((b"requests", budget.requests), (b"tokens", budget.tokens)):
        if allowance.limit is not None:
            headers += [
                (b"x-ratelimit-limit-" + unit, b"%d" % allowance.limit),
                (b"x-ratelimit-remaining-" + unit, b"%d" % allowance.free),
                (b"x-ratelimit-reset-" + unit, b"%ds" % math.ceil(allowance.resets_in_s(now))),
            ]
    return headers


async def _tokens(call: Call, budget: AnyBudget, action: Action, body: OpenAIBody) -> int:
    """What the request needs. One that cannot fit is refused before anybody counts its prompts."""
    needs, max_model_len = needs_of(action, body), call.deployed.max_model_len
    least = sum(need.least(max_model_len) for need in needs)
    await budget.when_it_fits(least, partial(budget.require, least, at_least=True))
    return await _total(call, needs)


async def _total(call: Call, needs: Sequence[Need]) -> int:
    max_model_len = call.deployed.max_model_len
    counts = iter(await count_prompts(call, [question for need in needs for question in need.questions]))
    totals = [need.total([next(counts) for _ in need.questions], max_model_len) for need in needs]
    known = [total for total in totals if total is not None]
    if len(known) < len(totals):
        raise BadField(
            "The request must say `max_tokens`: its key has a limit of tokens.",
            evidence=f"How long an answer of {call.pool.name} may get is not known.",
            fix="Give `max_tokens`, as low as your answers allow.",
        )
    return sum(known)


def needs_of(action: Action, body: OpenAIBody) -> Sequence[Need]:
    """Of each request to an engine that this one becomes. None of one that is refused before it gets there."""
    if action in _INSTANCES and "instances" in body:
        instances = read_instances(body["instances"], body.get("parameters"))
        return [need_of(each.path, read_object(msgspec.json.encode(each.body))) for each in instances]
    if action in _INSTANCES:
        path = CHAT_PATH if "messages" in body else COMPLETIONS_PATH
        return [] if action is Action.PREDICT else [need_of(path, body)]
    return [need_of(_PATHS[action], body)] if action in _PATHS else []
