"""``:generateContent``, ``:streamGenerateContent`` and ``:countTokens``: Gemini's wire before an engine's chat.

The request becomes a chat before anything else is done with it (`as_chat`), so that limits of keys, priorities and all
the rest see the same as of any chat.
"""

from __future__ import annotations

from headrace.contracts.openai.requests import OpenAIBody, for_engine
from headrace.contracts.openai.stream_usage import ask_for_usage
from headrace.contracts.openai.usage import UsageFinder
from headrace.contracts.vertex.alt import wants_events
from headrace.contracts.vertex.generate import AnswerStream, chat_of, prompts_of, whole_answer
from headrace.contracts.vertex.predict import CHAT_PATH
from headrace.gateway.answering import send_json
from headrace.gateway.call import Call
from headrace.gateway.engine_call import EngineAnswer
from headrace.gateway.exchange import Exchange
from headrace.gateway.in_parallel import in_parallel
from headrace.gateway.prompt_count import TOKENIZE_PATH, count_told
from headrace.gateway.relay import EVENT_STREAM, read_whole, relay_events, relay_refusal
from headrace.gateway.routes import Action
from headrace.resources.errors import EngineFailed
from headrace.resources.snapshot import DeployedRoute

_ARRAY = b"application/json; charset=utf-8"
_GEMINIS = frozenset({Action.GENERATE_CONTENT, Action.STREAM_GENERATE_CONTENT})


def as_chat(action: Action, body: OpenAIBody) -> OpenAIBody:
    """The body as those who answer it read it: of the two that generate, the chat that it is.

    Raises:
        BadJson: It cannot be read.
        BadField: It is not what the vendor's wire says, or asks for what is not to be had here.
    """
    if action not in _GEMINIS:
        return body
    return chat_of(body, stream=action is Action.STREAM_GENERATE_CONTENT)


async def generate_content(exchange: Exchange, call: Call, chat: OpenAIBody) -> None:
    """Answer in one piece."""
    body = for_engine(chat, call.deployed.served_name)
    async with EngineAnswer(call, CHAT_PATH, body, stream=False) as answer:
        if answer.status >= 300:
            await relay_refusal(exchange, call, answer)
        whole = await read_whole(call, answer)
        finder = UsageFinder()
        finder.feed(whole)
        call.meter.add(finder.usage())
    response = whole_answer(whole, model_version=_version(call.deployed))
    call.meter.finish()
    await send_json(exchange, call.record, response, headers=call.headers)


async def stream_generate_content(exchange: Exchange, call: Call, chat: OpenAIBody) -> None:
    """Answer chunk by chunk.

    While it waits for its turn nothing is sent: the vendor's client takes a comment for a response that it cannot read.
    """
    if not call.deployed.external_host:
        ask_for_usage(chat)
    sse = wants_events(exchange.head.query)
    stream = AnswerStream(model_version=_version(call.deployed), sse=sse)
    body = for_engine(chat, call.deployed.served_name)
    async with EngineAnswer(call, CHAT_PATH, body, stream=True) as answer:
        if answer.status >= 300:
            await relay_refusal(exchange, call, answer)
        if not answer.header(b"content-type").startswith(b"text/event-stream"):
            raise EngineFailed("The engine answered in one piece where a stream was asked for.")
        await relay_events(
            exchange,
            call,
            answer,
            EVENT_STREAM if sse else _ARRAY,
            rewrite=stream.feed,
            closing=stream.end,
            broken=stream.broken,
        )


async def count_tokens(exchange: Exchange, call: Call, body: OpenAIBody) -> None:
    """Answer how many tokens the engine reads, its chat template's included."""
    prompts = prompts_of(body)

    async def count(prompt: OpenAIBody) -> int:
        question = for_engine(prompt, call.deployed.served_name)
        async with EngineAnswer(call, TOKENIZE_PATH, question, stream=False) as answer:
            if answer.status >= 300:
                await relay_refusal(exchange, call, answer)
            return count_told(await read_whole(call, answer))

    counts = await in_parallel(count, prompts, at_a_time=call.limits.predict_parallel)
    await send_json(exchange, call.record, {"totalTokens": sum(counts)}, headers=call.headers)


def _version(deployed: DeployedRoute) -> str:
    """What an answer says of the model: its id and version."""
    return f"{deployed.model.rpartition('/')[2]}@{deployed.model_version}"
