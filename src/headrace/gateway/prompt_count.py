"""How many tokens prompts have, by the engine that will read them.

Its ``/tokenize`` runs the model's own tokeniser and chat template, in the engine's thread for that. So the count is
exact by construction, for a node that is far away too, and no model's files and no tokeniser are needed here. What it
costs is one more request to the engine, for keys with a limit of tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from headrace.contracts.openai.errors import REFUSALS
from headrace.contracts.openai.requests import OpenAIBody, for_engine
from headrace.gateway.call import Call
from headrace.gateway.engine_call import Aside
from headrace.gateway.in_parallel import in_parallel
from headrace.gateway.relay import engine_error, read_whole
from headrace.resources.errors import EngineFailed

TOKENIZE_PATH = "/tokenize"

_AT_A_TIME = 16
"""Prompts of one request that are counted at once."""

_NO_SUCH_ROUTE = frozenset({404, 405, 501})


class _Counted(msgspec.Struct):
    count: int


async def count_prompts(call: Call, questions: Sequence[OpenAIBody]) -> list[int]:
    """Tokens of each prompt.

    Where no engine of ours is there to ask (the server is not ours, or the deployment sleeps), or where it refuses the
    prompt, as many as it has bytes: a token is of at least one. A request with such a prompt is refused by the engine
    itself, in the same words as for a key without limits.

    Args:
        call: Whose prompts they are.
        questions: Bodies for ``/tokenize``, without the model.

    Raises:
        HeadraceError: An engine fails at a prompt, or does not answer.
    """
    trace = call.record.trace
    counting = None if trace is None else trace.begin("count the prompt's tokens")
    counts = await in_parallel(partial(_count, call), questions, at_a_time=_AT_A_TIME)
    if counting is not None:
        counting.end()
    return counts


async def _count(call: Call, question: OpenAIBody) -> int:
    if call.deployed.external_host or not call.pool.replicas:
        return _at_most(call, question)
    async with Aside(call, TOKENIZE_PATH, for_engine(question, call.deployed.served_name)) as answer:
        whole = await read_whole(call, answer)
    if answer.status in _NO_SUCH_ROUTE or answer.status in REFUSALS:  # of what it refuses here, it refuses the request
        return _at_most(call, question)
    if answer.status >= 300:
        raise engine_error(call, answer, whole)
    return count_told(whole)


def count_told(answer: bytes) -> int:
    """Tokens of a prompt, as an engine's answer to ``/tokenize`` tells them.

    Raises:
        EngineFailed: It does not.
    """
    try:
        return msgspec.json.decode(answer, type=_Counted).count
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineFailed("The engine does not say how many tokens the prompt has.", evidence=f"{error}.") from error


def _at_most(call: Call, question: OpenAIBody) -> int:
    size_bytes = len(msgspec.json.encode(question))
    return min(size_bytes, call.deployed.max_model_len or size_bytes)
