"""What can go wrong with one request, in OpenAI's error shape.

ApiError
├── BadRequest        400  names the parameter
│   ├── ContextOverflow    says by how many tokens
│   ├── TokenizerFailed    says what the tokeniser said
│   └── NotHonoured        names the engines that honour it (`serving.capabilities`)
├── BadToken          401  no bearer token, or not ours
├── UnknownModel      404  not the model served here
├── TooManyRequests   429  the waiting room is full; with Retry-After
├── UnknownPath       404, 405  no such route
└── Unavailable       503  the engine cannot compute it now
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from starlette.responses import Response

from headrace_engines.serving.generator import GenerationFailed, GrammarInvalid, QueueFull, SamplingImpossible


class ApiError(Exception):
    """A request that gets no answer.

    Attributes:
        param: The parameter at fault, if one is.
        code: Stable name of the failure, for programs.
        retry_after_s: When another try makes sense, if one does.
    """

    status: int = 500
    error_type: ClassVar[str] = "server_error"

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        """The error as OpenAI's clients read it."""
        return {"error": {"message": self.message, "type": self.error_type, "param": self.param, "code": self.code}}


class BadRequest(ApiError):
    """The request itself is wrong."""

    status, error_type = 400, "invalid_request_error"


class ContextOverflow(BadRequest):
    """Prompt and completion together are longer than the context."""

    def __init__(self, *, prompt_tokens: int, max_tokens: int, max_model_len: int, param: str) -> None:
        wanted = prompt_tokens + max_tokens
        super().__init__(
            f"The context of this model is {max_model_len} tokens; {wanted} were asked for "
            f"({prompt_tokens} in the prompt, {max_tokens} for the completion): {wanted - max_model_len} too many.",
            param=param,
            code="context_length_exceeded",
        )


class TokenizerFailed(BadRequest):
    """The model's tokeniser fails on a text, as it will each time: another text may do."""

    def __init__(self, why: str, *, param: str | None) -> None:
        super().__init__(
            f"This model's tokenizer fails on this text ({why}), so the model cannot read it. Change the text: long "
            "runs of like characters are what tokenizers' patterns usually fail on.",
            param=param,
            code="tokenizer_failed",
        )


class BadToken(ApiError):
    """The bearer token is missing or wrong."""

    status, error_type = 401, "invalid_request_error"


class UnknownPath(ApiError):
    """No such route, or not with this method."""

    status, error_type = 404, "invalid_request_error"

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnknownModel(ApiError):
    """Another model is served here."""

    status, error_type = 404, "invalid_request_error"


class TooManyRequests(ApiError):
    """The waiting room is full."""

    status, error_type = 429, "rate_limit_error"


class Unavailable(ApiError):
    """The engine cannot compute this now."""

    status = 503


def api_error_from(error: QueueFull | GenerationFailed, *, grammar_param: str | None = None) -> ApiError:
    """What a refusal or failure at an engine's seam is on the wire.

    Args:
        error: What the engine said.
        grammar_param: The parameter that the request's grammar was made of, if it had one.
    """
    if isinstance(error, QueueFull):
        return TooManyRequests(f"The engine is full: {error} Try again later.", code="queue_full", retry_after_s=1)
    if isinstance(error, GrammarInvalid):
        return BadRequest(error.message, param=grammar_param or "response_format", code="grammar_invalid")
    if isinstance(error, SamplingImpossible):
        return BadRequest(error.message, code="sampling_impossible")
    return Unavailable(error.message, code=error.code)


def error_response(error: ApiError) -> Response:
    """The error as an HTTP response."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(error.body), error.status, headers, media_type="application/json")
