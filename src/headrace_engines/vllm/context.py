"""Whether prompt and completion fit the context together, asked before vLLM is.

vLLM refuses a prompt that is too long by itself, counting no further than its limit, and shortens a completion that
does not fit without a word. Our other engines refuse both and say by how many tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope

from headrace_engines.serving.answering import unless_hung_up
from headrace_engines.serving.errors import ContextOverflow
from headrace_engines.serving.parameters import ChatParameters, CompletionParameters
from headrace_engines.serving.text_size import max_chars, require_readable, require_readable_chat
from headrace_engines.vllm.media import has_media
from headrace_engines.vllm.parameters import CheckedRequest

_OF_TOKENIZE = ("messages", "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")
"""What vLLM's ``/tokenize`` takes of a chat request."""


class _Counted(msgspec.Struct):
    count: int
    max_model_len: int


def require_readable_messages(fields: dict[str, Any], *, max_model_len: int) -> None:
    """Refuse a chat that is too long to be tokenised, before anything is made of its messages.

    Args:
        fields: A request's body, of which nothing else is known yet.
        max_model_len: Tokens of context.

    Raises:
        TextTooLong: It says how much is read.
    """
    messages = fields.get("messages")
    if isinstance(messages, list) and all(isinstance(message, dict) for message in messages):
        require_readable_chat(messages, max_model_len=max_model_len)


def require_readable_texts(fields: dict[str, Any], *, max_model_len: int, size_bytes: int) -> None:
    """Refuse other texts that are too long to be tokenised; a text has no more characters than its request has bytes.

    Args:
        fields: A request's body.
        max_model_len: Tokens of context.
        size_bytes: Length of the body.

    Raises:
        TextTooLong: It says how much is read.
    """
    if size_bytes <= max_chars(max_model_len):
        return
    prompt = fields.get("prompt")
    for text in prompt if isinstance(prompt, list) else [prompt]:
        if isinstance(text, str):
            require_readable(len(text), max_model_len=max_model_len, param="prompt")
    # What a template shows beside the messages.
    for name in ("tools", "chat_template_kwargs"):
        chars = len(msgspec.json.encode(fields.get(name)))
        require_readable(chars, max_model_len=max_model_len, param=name)


class ContextRoom:
    """Counts tokens with vLLM's own ``/tokenize``, and only where a request could be too long.

    A prompt has no more tokens than bytes, its chat template's own aside; those are counted once. So a request that is
    short next to the context costs nothing here, unless it has images: they become as many tokens as the model likes.

    Args:
        app: vLLM's server.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._shortest: _Counted | None = None

    async def require(self, scope: Scope, receive: Receive, request: CheckedRequest, *, size_bytes: int) -> None:
        """Refuse what does not fit.

        Args:
            scope: The request's.
            receive: The request's, whose body was read.
            request: What is asked.
            size_bytes: Length of its body.

        Raises:
            ContextOverflow: It says by how many tokens.
            ClientDisconnect: The client has gone.
        """
        parameters = request.parameters
        shortest = self._shortest or await self._measure(scope, parameters.model)
        if shortest is None:
            return  # vLLM refuses the request itself, and says why
        if request.for_vllm.get("truncate_prompt_tokens") is not None:
            return  # vLLM will cut it to size
        max_tokens = parameters.max_tokens or 1  # unsaid: what is left is what there is
        pictured = isinstance(parameters, ChatParameters) and has_media(parameters.messages)
        if not pictured and size_bytes + shortest.count + max_tokens <= shortest.max_model_len:
            return
        counting = self._require_each(scope, request, shortest, max_tokens)
        several = isinstance(parameters, CompletionParameters) and isinstance(parameters.prompt, list)
        await (unless_hung_up(receive, counting) if several else counting)

    async def _require_each(self, scope: Scope, request: CheckedRequest, shortest: _Counted, max_tokens: int) -> None:
        """Count one prompt after another, up to the first that does not fit."""
        parameters, room = request.parameters, shortest.max_model_len - max_tokens
        async for prompt_tokens in self._lengths(scope, request, surely_fit_bytes=room - shortest.count):
            if prompt_tokens > room:
                prompt_param = "messages" if isinstance(parameters, ChatParameters) else "prompt"
                raise ContextOverflow(
                    prompt_tokens=prompt_tokens,
                    max_tokens=max_tokens,
                    max_model_len=shortest.max_model_len,
                    param=prompt_param if parameters.max_tokens is None else parameters.max_tokens_param,
                )

    async def _measure(self, scope: Scope, model: object) -> _Counted | None:
        """Tokens of the shortest chat, or of nothing where the model has no chat template."""
        greeting = [{"role": "user", "content": "."}]
        measured = await self._count(scope, {"model": model, "messages": greeting})
        measured = measured or await self._count(scope, {"model": model, "prompt": ""})
        self._shortest = measured
        return measured

    async def _lengths(self, scope: Scope, request: CheckedRequest, *, surely_fit_bytes: int) -> AsyncIterator[int]:
        """Tokens of one prompt after another that may be too long, but not of those that vLLM will refuse itself."""
        parameters = request.parameters
        if not isinstance(parameters, CompletionParameters):
            asked = {name: request.for_vllm[name] for name in _OF_TOKENIZE if name in request.for_vllm}
            if counted := await self._count(scope, {"model": parameters.model} | asked):
                yield counted.count
            return
        prompts = parameters.prompt if isinstance(parameters.prompt, list) else [parameters.prompt]
        if _are_token_ids(prompts):
            yield len(prompts)
            return
        special = {"add_special_tokens": request.for_vllm.get("add_special_tokens", True)}
        for prompt in prompts:
            if isinstance(prompt, str):
                if len(prompt.encode()) <= surely_fit_bytes:
                    continue
                if counted := await self._count(scope, {"model": parameters.model, "prompt": prompt} | special):
                    yield counted.count
            elif _are_token_ids(prompt):
                yield len(prompt)

    async def _count(self, scope: Scope, question: dict[str, Any]) -> _Counted | None:
        """What ``POST /tokenize`` says; None where it refuses."""
        body = msgspec.json.encode(question)
        answer: list[Message] = []
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if asked:
                await asyncio.Event().wait()  # nobody hangs up on this one
            asked = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            answer.append(message)

        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        where = {"method": "POST", "path": "/tokenize", "raw_path": b"/tokenize", "query_string": b""}
        await self._app({**scope, **where, "headers": headers}, receive, send)
        if not answer or answer[0]["status"] != 200:
            return None
        return msgspec.json.decode(b"".join(message.get("body", b"") for message in answer[1:]), type=_Counted)


def _are_token_ids(prompt: object) -> bool:
    return isinstance(prompt, Sequence) and all(isinstance(token, int) for token in prompt)
