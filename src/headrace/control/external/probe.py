"""What is asked of an external server: does it have the model, and can it really generate.

It is asked with the gateway's own client, so that what a probe finds is what requests will find.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from headrace.contracts.openai.errors import REFUSALS, message_of
from headrace.contracts.openai.events import WholeEvents, event_data
from headrace.gateway import external
from headrace.gateway.upstream import Outside, Upstream, UpstreamAnswer, UpstreamError, UpstreamRequest, read_address
from headrace.resources.deployments import Warmup
from headrace.resources.errors import (
    EngineTimeout,
    EngineWarmupFailed,
    ExternalModelMissing,
    ExternalNotOpenAI,
    ExternalUnreachable,
)
from headrace.resources.external import ExternalServer, read_base_url

CONNECT_TIMEOUT_S = 5.0
LIST_TIMEOUT_S = 20.0
GENERATE_TIMEOUT_S = 120.0
"""As long as the gateway waits for the first byte of a stream."""

MAX_CONTEXT_TOKENS = 2**31 - 1
"""Whoever tells of a longer context tells of none."""

MAX_ANSWER_BYTES = 8 << 20
"""Of any answer that is looked at; a market place's list of 400 models has 0.5 MB."""

WARMUP_PIECES = 16
"""So many pieces of a stream are read at most, then the server is hung up on."""

_PROMPT = "The river runs"
_EMBEDDINGS = "/v1/embeddings"
_CHAT = {"messages": [{"role": "user", "content": _PROMPT}], "stream": True}
_ATTEMPTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", _CHAT | {"max_tokens": WARMUP_PIECES}),
    ("/v1/chat/completions", _CHAT | {"max_completion_tokens": WARMUP_PIECES}),  # models that reason want this one
    ("/v1/completions", {"prompt": _PROMPT, "max_tokens": WARMUP_PIECES, "stream": True}),
    (_EMBEDDINGS, {"input": _PROMPT}),
)
"""What a model may be for; a server that says no to one is asked the next."""

_SAYS_NO = REFUSALS | {404, 405, 500, 501}
"""500 too: some servers have no better word for a model that has no chat template, or that makes no text."""

_SHOWN_MODELS = 10


class Listed(msgspec.Struct, frozen=True):
    """What a list of models says of the one that is meant.

    Attributes:
        max_model_len: Its context length in tokens; 0 where the server does not tell.
    """

    max_model_len: int = 0


class ExternalProbe:
    """Calls to one external server.

    Args:
        server: The server and its model.
        key: Its key; empty for none.
        outside: How it may be called.
    """

    def __init__(self, server: ExternalServer, key: str, outside: Outside) -> None:
        url = read_base_url(server.base_url)
        self._model, self._key, self._base_path = server.model, key, url.path
        self._url, self._origin, self._outside = str(url), url.origin, outside
        self._host = external_host(server)

    async def find_model(self) -> Listed:
        """``GET {base}/models``: the server is there, takes the key, and lists the model.

        Raises:
            HeadraceError: It does not; with the reason.
        """
        async with self._ask("GET", "/v1/models", timeout_s=LIST_TIMEOUT_S) as answer:
            body = await _read(answer, MAX_ANSWER_BYTES)
        if answer.status >= 500:
            raise ExternalUnreachable(
                f"The external server {self._host} is there and not ready.",
                evidence=f"/models answered HTTP {answer.status}: {message_of(body)[:200]!r}",
                fix="If it is loading, wait; else its own log says more.",
            )
        if answer.status in external.KEY_REFUSALS or answer.status == 429:
            raise external.error_of(self._host, answer, body)
        cards = _cards(body) if answer.status == 200 else None
        if cards is None:
            raise self._not_openai(answer, body)
        card = next((card for card in cards if card.get("id") == self._model), None)
        if card is None:
            raise self._not_listed([str(card.get("id")) for card in cards])
        return Listed(_context_tokens(card))

    async def generate(self) -> Warmup:
        """One real generation, streamed and measured; of a model that makes vectors instead of text, one of these.

        A model's tokens are counted as pieces of its stream: one each, with nearly every server.

        Raises:
            EngineWarmupFailed: The server has the model and cannot use it.
            HeadraceError: It is not there, or does not take the key.
        """
        said = ""
        for path, request in _ATTEMPTS:
            began = time.monotonic()
            body = msgspec.json.encode(request | {"model": self._model})
            async with self._ask("POST", path, body, timeout_s=GENERATE_TIMEOUT_S) as answer:
                if answer.status == 200:
                    return await self._measure(answer, began, path)
                error = external.error_of(self._host, answer, await _read(answer, MAX_ANSWER_BYTES))
            if answer.status not in _SAYS_NO:
                raise error
            said = said or f"{path}: HTTP {answer.status}: {error.evidence or error.message}"
        raise EngineWarmupFailed(
            "The external server has the model and could not generate with it.",
            evidence=said,
            fix="Try the same request at the server itself; its own log says more.",
        )

    @asynccontextmanager
    async def _ask(
        self, method: str, path: str, body: bytes = b"", *, timeout_s: float
    ) -> AsyncIterator[UpstreamAnswer]:
        """On a connection of its own: one that was kept would not tell whether another can be had."""
        upstream = Upstream(
            read_address(self._origin), connect_timeout_s=CONNECT_TIMEOUT_S, outside=self._outside, key=self._key
        )
        request = UpstreamRequest(
            method=method,
            target=external.target(self._base_path, path).encode("ascii"),
            headers=[*external.headers(self._key), (b"content-type", b"application/json")],
            body=body,
        )
        upstream.close()  # nothing is kept
        try:
            async with asyncio.timeout(timeout_s), await upstream.send(request, timeout_s=timeout_s) as answer:
                if answer.status == 200:
                    external.require_plain(self._host, answer)
                yield answer
        except UpstreamError as error:
            raise external.silence_of(self._host, error) from error
        except TimeoutError as error:
            raise EngineTimeout(
                f"The external server {self._host} did not finish its answer.", evidence=f"It had {timeout_s:g} s."
            ) from error

    async def _measure(self, answer: UpstreamAnswer, began: float, path: str) -> Warmup:
        if not answer.header(b"content-type").startswith(b"text/event-stream"):
            return await self._measure_document(answer, began, "data" if path == _EMBEDDINGS else "choices")
        times: list[float] = []
        events, read_bytes = WholeEvents(), 0
        while len(times) < WARMUP_PIECES and read_bytes < MAX_ANSWER_BYTES and (piece := await answer.read()):
            read_bytes += len(piece)
            whole = event_data(events.feed(piece))
            times.extend(time.monotonic() for data in whole if data != b"[DONE]" and _has_choices(data))
        if not times:
            raise EngineWarmupFailed(
                "The external server's stream had no token.",
                evidence=f"{self._url}: {path}: {read_bytes:,} bytes of it were read.",
            )
        took_s = times[-1] - times[0]
        rate = (len(times) - 1) / took_s if took_s > 0 else len(times) / (times[0] - began)
        return Warmup(time_to_first_token_s=times[0] - began, tokens_per_s=rate, output_tokens=len(times))

    async def _measure_document(self, answer: UpstreamAnswer, began: float, field: str) -> Warmup:
        """An answer in one piece: vectors, or a server that does not stream."""
        body = await _read(answer, MAX_ANSWER_BYTES)
        told = _decoded(body)
        if not isinstance(told, dict) or not told.get(field):
            raise self._not_openai(answer, body)
        took_s = time.monotonic() - began
        tokens = _count(told.get("usage"))
        return Warmup(time_to_first_token_s=took_s, tokens_per_s=tokens / took_s, output_tokens=tokens)

    def _not_openai(self, answer: UpstreamAnswer, body: bytes) -> ExternalNotOpenAI:
        hint = "" if self._base_path.endswith("/v1") else f" Most servers have it below /v1: try {self._url}/v1."
        return ExternalNotOpenAI(
            "What answers at the base URL does not speak OpenAI's wire.",
            evidence=f"{self._url} answered HTTP {answer.status}: {message_of(body)[:200]!r}",
            fix=f"Give the URL below which the server has /models and /chat/completions.{hint}",
        )

    def _not_listed(self, names: list[str]) -> ExternalModelMissing:
        shown = ", ".join(names[:_SHOWN_MODELS]) or "none"
        more = f" and {len(names) - _SHOWN_MODELS} more" if len(names) > _SHOWN_MODELS else ""
        return ExternalModelMissing(
            f"The external server has no model {self._model!r}.",
            evidence=f"{self._url}/models lists: {shown}{more}.",
            fix="Name one of these: `--external-model NAME`.",
        )


def external_host(server: ExternalServer) -> str:
    """What to call a server in a sentence."""
    return read_base_url(server.base_url).origin.partition("://")[2]


async def _read(answer: UpstreamAnswer, limit_bytes: int) -> bytes:
    if external.encoded(answer):
        return b""
    pieces, size = [], 0
    while size < limit_bytes and (piece := await answer.read()):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _decoded(body: bytes) -> Any:
    """What a stranger's JSON says; None for what is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _cards(body: bytes) -> list[dict[str, Any]] | None:
    """OpenAI's list of models; None if it is something else."""
    told = _decoded(body)
    data = told.get("data") if isinstance(told, dict) else None
    return [card for card in data if isinstance(card, dict)] if isinstance(data, list) else None


def _context_tokens(card: dict[str, Any]) -> int:
    """The context length on a model's card, where vLLM, SGLang and we write it, or where llama.cpp does; else 0."""
    meta = card.get("meta")
    return _tokens(card.get("max_model_len")) or _tokens(meta.get("n_ctx") if isinstance(meta, dict) else None)


def _tokens(told: object) -> int:
    """A number of tokens, as somebody else's JSON has it; 0 for what is none."""
    return told if type(told) is int and 0 < told <= MAX_CONTEXT_TOKENS else 0  # True is an int too


def _has_choices(data: bytes) -> bool:
    told = _decoded(data)
    if isinstance(told, dict) and told.get("error"):
        raise EngineWarmupFailed(
            "The external server broke its stream off.", evidence=message_of(data), fix="See the server's own log."
        )
    return isinstance(told, dict) and bool(told.get("choices"))


def _count(usage: object) -> int:
    return _tokens(usage.get("completion_tokens")) if isinstance(usage, dict) else 0
