"""A chat's answer in OpenAI's wire as Gemini's clients read it: whole, or chunk by chunk.

Token counts are the engine's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.contracts.openai.errors import message_of
from headrace.contracts.openai.events import event, event_data
from headrace.contracts.vertex.errors import google_error
from headrace.resources.errors import EngineFailed, HeadraceError

_REASONS = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "function_call": "STOP",
    "content_filter": "SAFETY",
}
_OTHER, _MALFORMED = "OTHER", "MALFORMED_FUNCTION_CALL"

_DONE = b"[DONE]"


class _TopToken(msgspec.Struct):
    token: str
    logprob: float


class _Token(_TopToken):
    top_logprobs: list[_TopToken] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    """A call, or a part of one; parts of one call have its index."""

    function: _Function
    index: int = 0
    id: str | None = None


class _Said(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Said | None = None
    delta: _Said | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0


class _Answer(msgspec.Struct):
    """A whole answer, or a chunk of one."""

    id: str = ""
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Answer)


def whole_answer(body: bytes, *, model_version: str) -> dict[str, Any]:
    """The answer of ``:generateContent``.

    Args:
        body: The engine's.
        model_version: What the answer says of the model.

    Raises:
        EngineFailed: It is not what OpenAI's wire says.
    """
    answer = _read(body)
    candidates = []
    for choice in answer.choices:
        candidate = _Candidate(choice.index)
        candidate.take(choice, choice.message)
        candidates.append(candidate.rest())
    return _response(answer.id, model_version, candidates, answer.usage)


class AnswerStream:
    """Translates the events of one streamed chat: each piece of text goes on at once.

    Calls of functions, the reason why it ended and the usage come with the last response, as Gemini has it.

    Args:
        model_version: What each response says of the model.
        sse: As server-sent events (``alt=sse``); else as one JSON array, the form of Google's APIs without it.
    """

    def __init__(self, *, model_version: str, sse: bool) -> None:
        self._model_version = model_version
        self._sse = sse
        self._id = ""
        self._candidates: dict[int, _Candidate] = {}
        self._usage: _Usage | None = None
        self._begun = self._ended = False

    def feed(self, events: bytes) -> bytes:
        """What some whole events become; empty if they say nothing by themselves.

        Raises:
            EngineFailed: One of them is an error, or not what OpenAI's wire says.
        """
        return b"".join(self.end() if data == _DONE else self._chunk(data) for data in event_data(events))

    def end(self) -> bytes:
        """What is left to be said when the chat has ended; nothing, where it was said."""
        if self._ended:
            return b""
        self._ended = True
        candidates = [self._candidates[index].rest() for index in sorted(self._candidates)]
        last = self._written(_response(self._id, self._model_version, candidates, self._usage))
        return last if self._sse else last + b"]"

    def broken(self, error: HeadraceError) -> bytes:
        """The last words of a stream that broke off: Google's error in the place of a response."""
        words = self._written(google_error(error)[1])
        return words if self._sse else words + b"]"

    def _chunk(self, data: bytes) -> bytes:
        chunk = _read(data)
        self._id = chunk.id or self._id
        self._usage = chunk.usage or self._usage
        candidates = []
        for choice in chunk.choices:
            candidate = self._candidates.setdefault(choice.index, _Candidate(choice.index))
            candidate.take(choice, choice.delta)
            if told := candidate.news():
                candidates.append(told)
        if not candidates:
            return b""
        return self._written(_response(self._id, self._model_version, candidates, None))

    def _written(self, value: dict[str, Any]) -> bytes:
        written = msgspec.json.encode(value)
        if self._sse:
            return event(written)
        before, self._begun = (b",\r\n" if self._begun else b"["), True
        return before + written


class _Candidate:
    """One answer of those that were asked for, and what of it was not told yet."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._text = ""
        self._tokens: list[_Token] = []
        self._calls: dict[int, _Call] = {}
        self._reason = ""

    def take(self, choice: _Choice, said: _Said | None) -> None:
        """See a choice, or a part of it."""
        if said is not None:
            self._text += said.content or ""
            for position, call in enumerate(said.tool_calls or ()):
                self._take_call(call, position if choice.delta is None else call.index)
        if choice.logprobs is not None:
            self._tokens += choice.logprobs.content or ()
        if choice.finish_reason is not None:
            self._reason = _REASONS.get(choice.finish_reason, _OTHER)

    def _take_call(self, call: _Call, index: int) -> None:
        known = self._calls.setdefault(index, _Call(_Function(), index))
        known.id = known.id or call.id
        known.function.name = known.function.name or call.function.name
        known.function.arguments = (known.function.arguments or "") + (call.function.arguments or "")

    def news(self) -> dict[str, Any] | None:
        """The text that has come since this was asked last; None if there is none."""
        if not self._text:
            return None
        return self._told([{"text": self._text}])

    def rest(self) -> dict[str, Any]:
        """All that is left, with the reason why it ended."""
        parts: list[dict[str, Any]] = [{"text": self._text}] if self._text else []
        reason = self._reason or _OTHER
        for index in sorted(self._calls):
            call = _function_call(self._calls[index])
            if call is None:
                reason = _MALFORMED
            else:
                parts.append({"functionCall": call})
        return self._told(parts or [{"text": ""}]) | {"finishReason": reason}

    def _told(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        candidate = {"index": self._index, "content": {"role": "model", "parts": parts}, **_logprobs(self._tokens)}
        self._text, self._tokens = "", []
        return candidate


def _function_call(call: _Call) -> dict[str, Any] | None:
    """A call as Gemini has it; None where its arguments are no object, as of an answer that was cut."""
    try:
        arguments = msgspec.json.decode(call.function.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(arguments, dict) or not call.function.name:
        return None
    identifier = {"id": call.id} if call.id else {}
    return {**identifier, "name": call.function.name, "args": arguments}


def _logprobs(tokens: Sequence[_Token]) -> dict[str, Any]:
    if not tokens:
        return {}
    result: dict[str, Any] = {"chosenCandidates": [_token(token) for token in tokens]}
    if any(token.top_logprobs for token in tokens):
        result["topCandidates"] = [
            {"candidates": [_token(top) for top in token.top_logprobs or ()]} for token in tokens
        ]
    return {"avgLogprobs": sum(token.logprob for token in tokens) / len(tokens), "logprobsResult": result}


def _token(token: _TopToken) -> dict[str, Any]:
    return {"token": token.token, "logProbability": token.logprob}


def _response(
    identifier: str, model_version: str, candidates: list[dict[str, Any]], usage: _Usage | None
) -> dict[str, Any]:
    response: dict[str, Any] = {"candidates": candidates}
    if usage is not None:
        response["usageMetadata"] = {
            "promptTokenCount": usage.prompt_tokens,
            "candidatesTokenCount": usage.completion_tokens,
            "totalTokenCount": usage.prompt_tokens + usage.completion_tokens,
        }
    return response | {"modelVersion": model_version, "responseId": identifier}


def _read(data: bytes) -> _Answer:
    try:
        answer = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineFailed(
            "The engine's answer is not what OpenAI's wire says.", evidence=f"{type(error).__name__}: {error}"
        ) from error
    if answer.error is not None:
        raise EngineFailed("The engine failed on this request.", evidence=message_of(data))
    return answer
