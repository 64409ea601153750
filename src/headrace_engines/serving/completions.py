"""``/v1/completions`` and ``/v1/chat/completions``: one request from its body to its last byte."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from headrace_engines.serving.answers import AnswerShape, ChatShape, CompletionShape
from headrace_engines.serving.engine import Engine
from headrace_engines.serving.errors import ApiError, BadRequest, ContextOverflow, UnknownModel, api_error_from
from headrace_engines.serving.generator import GenerationFailed, GenerationRequest, QueueFull
from headrace_engines.serving.metrics import RequestMeter
from headrace_engines.serving.parameters import (
    ChatParameters,
    CompletionParameters,
    SharedParameters,
    chat_messages,
    read_parameters,
)
from headrace_engines.serving.text import TextDelta, TextStream

COMPLETION_DEFAULT_MAX_TOKENS = 16
"""OpenAI's default for completions; chat completions default to the rest of the context."""


async def completions(request: Request) -> Answer:
    """``POST /v1/completions``."""
    arrived_s = time.monotonic()
    engine: Engine = request.app.state.engine
    parameters = read_parameters(await request.body(), CompletionParameters)
    check_model(engine, parameters.model)
    prompt_ids = await _prompt_ids(engine, parameters.prompt)
    rest = engine.served.generator.limits.max_model_len - len(prompt_ids)
    default = min(COMPLETION_DEFAULT_MAX_TOKENS, max(1, rest))
    text = _submit(engine, parameters, prompt_ids, arrived_s=arrived_s, prompt_param="prompt", default=default)
    return Answer(CompletionShape(f"cmpl-{uuid.uuid4().hex}", engine.model_name), text, parameters)


async def chat_completions(request: Request) -> Answer:
    """``POST /v1/chat/completions``."""
    arrived_s = time.monotonic()
    engine: Engine = request.app.state.engine
    parameters = read_parameters(await request.body(), ChatParameters)
    check_model(engine, parameters.model)
    prompt_ids = await engine.encode_chat(chat_messages(parameters.messages))
    default = max(1, engine.served.generator.limits.max_model_len - len(prompt_ids))
    text = _submit(engine, parameters, prompt_ids, arrived_s=arrived_s, prompt_param="messages", default=default)
    return Answer(ChatShape(f"chatcmpl-{uuid.uuid4().hex}", engine.model_name), text, parameters)


def check_model(engine: Engine, name: str) -> None:
    """Refuse the name of another model.

    Raises:
        UnknownModel: It is not the one served here.
    """
    if name != engine.model_name:
        raise UnknownModel(
            f"The model {name!r} is not served here; {engine.model_name!r} is.", param="model", code="model_not_found"
        )


async def _prompt_ids(engine: Engine, prompt: str | list[Any]) -> list[int]:
    """Token ids of the one prompt, given as text, as token ids, or as a list that holds one of these."""
    if isinstance(prompt, list) and prompt and all(isinstance(item, str | list) for item in prompt):
        if len(prompt) > 1:
            raise BadRequest(
                f"`prompt` holds {len(prompt)} prompts; this engine takes one per request.",
                param="prompt",
                code="unsupported_parameter",
            )
        prompt = prompt[0]
    if isinstance(prompt, str):
        return await engine.encode(prompt, add_special_tokens=True)
    vocab_size = engine.served.generator.limits.vocab_size
    if not all(type(item) is int and 0 <= item < vocab_size for item in prompt):
        raise BadRequest(
            f"`prompt` must be text or a list of token ids from 0 to {vocab_size - 1}.",
            param="prompt",
            code="invalid_value",
        )
    return prompt


def _submit(
    engine: Engine,
    parameters: SharedParameters,
    prompt_ids: list[int],
    *,
    arrived_s: float,
    prompt_param: str,
    default: int,
) -> TextStream:
    """Check the token budget and queue the sequence. From here on it must be read or cancelled."""
    generator, codec, defaults = engine.served
    max_tokens = parameters.max_tokens or default
    min_tokens = parameters.min_tokens or 0
    if not prompt_ids:
        raise BadRequest(f"`{prompt_param}` holds no tokens.", param=prompt_param, code="invalid_value")
    if min_tokens > max_tokens:
        raise BadRequest(
            f"`min_tokens` is {min_tokens}, more than the {max_tokens} tokens allowed.",
            param="min_tokens",
            code="invalid_value",
        )
    max_model_len = generator.limits.max_model_len
    if len(prompt_ids) + max_tokens > max_model_len:
        raise ContextOverflow(
            prompt_tokens=len(prompt_ids),
            max_tokens=max_tokens,
            max_model_len=max_model_len,
            param=prompt_param if parameters.max_tokens is None else parameters.max_tokens_param,
        )
    request = GenerationRequest(
        prompt_ids=prompt_ids,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        ignore_eos=bool(parameters.ignore_eos),
        sampling=parameters.sampling(defaults),
    )
    try:
        generation = generator.submit(request)
    except (QueueFull, GenerationFailed) as error:
        raise api_error_from(error) from error
    meter = RequestMeter(engine.metrics, arrived_s=arrived_s, prompt_tokens=len(prompt_ids))
    return TextStream(
        generation, codec, prompt_ids=prompt_ids, stops=parameters.stops, min_tokens=min_tokens, meter=meter
    )


class Answer:
    """An ASGI response that reads a `TextStream` and answers at once or piece by piece.

    Nothing is sent before the first token, so that a failure until then has its own status. A client that hangs up
    cancels the sequence.
    """

    def __init__(self, shape: AnswerShape, text: TextStream, parameters: SharedParameters) -> None:
        self._shape = shape
        self._text = text
        self._stream = bool(parameters.stream)
        options = parameters.stream_options
        self._include_usage = bool(options and options.include_usage)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send the answer."""
        async with _cancelled_on_hang_up(receive, self._text):
            await (self._send_events(send) if self._stream else self._send_whole(send))

    async def _send_whole(self, send: Send) -> None:
        pieces = []
        async for delta in _with_api_errors(self._text):
            pieces.append(delta.text)
            if delta.finish_reason is not None:
                whole = self._shape.whole("".join(pieces), delta.finish_reason, self._usage())
                await _send_start(send, b"application/json")
                await _send_body(send, msgspec.json.encode(whole), more=False)

    async def _send_events(self, send: Send) -> None:
        deltas = aiter(_with_api_errors(self._text))
        first = await anext(deltas, None)
        if first is None:
            return  # hung up before the first token
        await _send_start(send, b"text/event-stream")
        for chunk in self._shape.opening():
            await self._send_chunk(send, chunk)
        try:
            await self._send_delta(send, first)
            async for delta in deltas:
                await self._send_delta(send, delta)
        except ApiError as error:
            await _send_body(send, b"data: " + msgspec.json.encode(error.body) + b"\n\n", more=False)
            return
        if self._include_usage:
            usage = self._shape.usage_only() | {"usage": self._usage()}
            await _send_body(send, b"data: " + msgspec.json.encode(usage) + b"\n\n", more=True)
        await _send_body(send, b"data: [DONE]\n\n", more=False)

    async def _send_delta(self, send: Send, delta: TextDelta) -> None:
        if delta.text or delta.finish_reason is not None:
            await self._send_chunk(send, self._shape.piece(delta.text, delta.finish_reason))

    async def _send_chunk(self, send: Send, chunk: dict[str, Any]) -> None:
        if self._include_usage:
            chunk["usage"] = None
        await _send_body(send, b"data: " + msgspec.json.encode(chunk) + b"\n\n", more=True)

    def _usage(self) -> dict[str, int]:
        prompt, completion = self._text.prompt_tokens, self._text.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def _with_api_errors(text: TextStream) -> AsyncIterator[TextDelta]:
    try:
        async for delta in text:
            yield delta
    except GenerationFailed as error:
        raise api_error_from(error) from error


@asynccontextmanager
async def _cancelled_on_hang_up(receive: Receive, text: TextStream) -> AsyncIterator[None]:
    """Cancel the sequence when the client goes away, and in any case at the end of the block."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        text.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        text.cancel()


def _send_start(send: Send, media_type: bytes) -> Awaitable[None]:
    headers = [(b"content-type", media_type), (b"cache-control", b"no-cache")]
    return send({"type": "http.response.start", "status": 200, "headers": headers})


def _send_body(send: Send, body: bytes, *, more: bool) -> Awaitable[None]:
    return send({"type": "http.response.body", "body": body, "more_body": more})
