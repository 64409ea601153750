"""The OpenAI wire's request bodies: which parameters are taken, which are refused by name, which make no difference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from headrace_engines.serving.body_size import require_decodable
from headrace_engines.serving.capabilities import CAPABILITIES, VLLM_ONLY, NotHonoured, require
from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.generator import Grammar, Sampling
from headrace_engines.serving.response_format import (
    StructuredOutputs,
    response_format_grammar,
    structured_outputs_grammar,
)
from headrace_engines.serving.wrong_values import explain, unknown

NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "chat_template": (),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "prediction": (),
    "reasoning_effort": (),
    "suffix": ("",),
    "use_beam_search": (False,),
    "verbosity": (),
    "web_search_options": (),
}
"""Parameters that this shell does not have, and the values of each (null always) that ask for nothing."""

HARMLESS = frozenset(
    {
        "metadata",
        "priority",
        "prompt_cache_key",
        "request_id",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""Parameters that cannot change the answer; whatever they say is ignored."""

ASKS_NOTHING: dict[str, tuple[Any, ...]] = {
    "echo": (False,),
    "frequency_penalty": (0,),
    "ignore_eos": (False,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_tokens": (0,),
    "n": (1,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "stop": ([],),
    "stop_token_ids": ([],),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
}
"""Of parameters in `CAPABILITIES`: the values (null always) that any engine honours."""

MAX_SEQUENCES = 128
"""OpenAI's bound of `n`."""

MAX_LOGPROBS = 20
"""OpenAI's bound of `top_logprobs`, and vLLM's default of ``--max-logprobs``."""

MAX_STOPS = 4
"""OpenAI's bound of `stop`, and vLLM's."""

MAX_STOP_CHARS = 1024
"""Of all stop strings together. Each character of an answer is held against each of them, and held back while it may
belong to one."""

MAX_STOP_TOKEN_IDS = 1024
"""Engines look at all of them at each token; a vocabulary has some tens of special tokens."""

StopString = Annotated[str, Meta(min_length=1)]
_INT_MAX = 2**31 - 1
"""Engines keep counts and ids in 32 bits."""
TokenCount = Annotated[int, Meta(ge=1, le=_INT_MAX)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
"""OpenAI's bound, and vLLM's."""
TopP = Annotated[float, Meta(gt=0, le=1)]
TopK = Annotated[int, Meta(ge=-1, le=_INT_MAX)]
MinP = Annotated[float, Meta(ge=0, le=1)]
RepetitionPenalty = Annotated[float, Meta(ge=0.01, le=100)]
"""Beyond these a float32 score may no longer be a number; what anyone uses lies between 0.8 and 2."""
TokenId = Annotated[int, Meta(ge=0, le=_INT_MAX)]
Bias = Annotated[float, Meta(ge=-100, le=100)]


_TOP_P_MIN = 1e-6
"""No vocabulary has a million tokens, so the likeliest one alone reaches this; below 1e-45 it would be 0 in float32."""


def sampling_with(said: dict[str, Any], defaults: Sampling) -> Sampling:
    """`defaults` with the fields that were said; -1 as `top_k` is vLLM's way to say all of them."""
    if said.get("top_k") == -1:
        said = said | {"top_k": 0}
    if "top_p" in said:
        said = said | {"top_p": max(_TOP_P_MIN, said["top_p"])}
    return msgspec.structs.replace(defaults, **said)


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What a stream carries besides text. ``include_obfuscation`` pads events at OpenAI; here nothing does."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class SharedParameters(msgspec.Struct, kw_only=True):
    """What completions and chat completions have in common; null means the default everywhere."""

    model: str
    n: Annotated[int, Meta(ge=1, le=MAX_SEQUENCES)] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    repetition_penalty: RepetitionPenalty | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    logit_bias: dict[int, Bias] | None = None
    max_tokens: TokenCount | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=_INT_MAX)] | None = None
    stop: StopString | list[StopString] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=MAX_STOP_TOKEN_IDS)] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    ignore_eos: bool | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    prompt_logprobs: Annotated[int, Meta(ge=0, le=_INT_MAX)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def sampling(self, defaults: Sampling) -> Sampling:
        """How tokens are picked; what was not said keeps the model's default."""
        given = {name: value for name in Sampling.__struct_fields__ if (value := getattr(self, name)) is not None}
        return sampling_with(given, defaults)

    @property
    def stops(self) -> list[str]:
        """Stop strings, as a list."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def max_tokens_param(self) -> str:
        """The name under which the token budget came."""
        return "max_tokens"

    def grammar(self) -> tuple[Grammar, str] | None:
        """What the answer has to match, and the parameter that says so; None for no such thing.

        Raises:
            BadRequest: It is malformed, or said twice.
        """
        found = []
        if form := response_format_grammar(self.response_format):
            found.append((form, "response_format"))
        for text, param in self._schemas_as_text():
            require_decodable(text.encode(), max_model_len=0, param=param)
        if self.structured_outputs is not None:
            found.append(
                (structured_outputs_grammar(self.structured_outputs, "structured_outputs"), "structured_outputs")
            )
        for name in ("json", "regex", "choice"):
            if (value := getattr(self, f"guided_{name}")) is not None:
                outputs = _guided(name, value)
                found.append((structured_outputs_grammar(outputs, f"guided_{name}"), f"guided_{name}"))
        if len(found) > 1:
            params = " and ".join(f"`{param}`" for _, param in found)
            raise BadRequest(f"{params} each say what the answer has to match; give one.", param=found[1][1])
        return found[0] if found else None

    def _schemas_as_text(self) -> Iterator[tuple[str, str]]:
        if isinstance(self.guided_json, str):
            yield self.guided_json, "guided_json"
        if self.structured_outputs is not None and isinstance(self.structured_outputs.json, str):
            yield self.structured_outputs.json, "structured_outputs"

    def demands(self) -> Iterator[tuple[str, str]]:
        """The rows of `CAPABILITIES` that this request needs, each with the parameter that needs it."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name in CAPABILITIES and value is not None and value not in ASKS_NOTHING.get(name, ()):
                yield name, name
        for name in ("structured_outputs", "guided_json", "guided_regex", "guided_choice"):
            if getattr(self, name) is not None:
                yield "response_format", name
        if self.stream_options is not None and self.stream_options.continuous_usage_stats:
            yield "continuous_usage_stats", "stream_options"


class CompletionParameters(SharedParameters, kw_only=True):
    """``POST /v1/completions``."""

    prompt: str | list[Any]
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    add_special_tokens: bool | None = None

    @property
    def top_logprobs(self) -> int | None:
        """How many likeliest tokens are reported beside each; None for no log probabilities at all."""
        return self.logprobs

    def demands(self) -> Iterator[tuple[str, str]]:
        """The rows of `CAPABILITIES` that this request needs."""
        yield from super().demands()
        if self.logprobs:
            yield "top_logprobs", "logprobs"
        if self.echo and self.logprobs is not None:
            yield "prompt_logprobs", "echo"


class ChatParameters(SharedParameters, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    add_special_tokens: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.max_completion_tokens is not None:  # the newer name wins, as in OpenAI's reference
            self.max_tokens = self.max_completion_tokens
        if self.logprobs:
            self.top_logprobs = self.top_logprobs or 0
        elif self.top_logprobs:
            raise ValueError("`top_logprobs` needs `logprobs` to be true - at `$.top_logprobs`")
        else:
            self.top_logprobs = None

    @property
    def max_tokens_param(self) -> str:
        """The name under which the token budget came."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"


class TokenizeParameters(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /tokenize``, with either a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)] | None = None
    tools: list[Any] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None


class DetokenizeParameters(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /detokenize``."""

    tokens: list[TokenId]
    model: str | None = None


def _guided(name: str, value: Any) -> StructuredOutputs:
    """What an older name says, as the newer one."""
    try:
        return convert({name: value}, StructuredOutputs)
    except BadRequest as error:
        message = error.message.replace(f"`{name}", f"`guided_{name}", 1)
        raise BadRequest(message, param=f"guided_{name}", code=error.code) from error


Body = TypeVar("Body", bound=msgspec.Struct)
Parameters = TypeVar("Parameters", bound=SharedParameters)


def read_json(body: bytes, *, max_model_len: int) -> dict[str, Any]:
    """The body as a JSON object.

    Args:
        body: As it came.
        max_model_len: Tokens of context, by which it may hold more.

    Raises:
        BadRequest: It is not one, or holds more than anybody means to ask.
    """
    require_decodable(body, max_model_len=max_model_len)
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from error
    if not isinstance(fields, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_json")
    return fields


def convert(fields: dict[str, Any], shape: type[Body]) -> Body:
    """Check types and ranges.

    Raises:
        BadRequest: One is wrong; it names the parameter.
    """
    try:
        return msgspec.convert(fields, shape, str_keys=True)
    except msgspec.ValidationError as error:
        sentence, param = explain(error, fields)
        raise BadRequest(sentence, param=param, code="invalid_value") from error


def read_parameters(fields: dict[str, Any], shape: type[Parameters], engine: str) -> Parameters:
    """Check a generation request: known parameters, their types and ranges, and that the engine honours them.

    Raises:
        BadRequest: Something is wrong; it names the parameter.
    """
    for name in fields.keys() - set(shape.__struct_fields__):
        _check_unsupported(name, fields[name], engine, shape)
    parameters = convert(fields, shape)
    if parameters.stream_options is not None and not parameters.stream:
        raise BadRequest("`stream_options` needs `stream` to be true.", param="stream_options", code="invalid_value")
    _check_stops(parameters.stops)
    for row, param in parameters.demands():
        require(row, param=param, engine=engine)
    return parameters


def _check_stops(stops: list[str]) -> None:
    if len(stops) > MAX_STOPS:
        raise BadRequest(
            f"`stop` has {len(stops):,} strings; at most {MAX_STOPS} are taken.", param="stop", code="invalid_value"
        )
    if (chars := sum(map(len, stops))) > MAX_STOP_CHARS:
        raise BadRequest(
            f"`stop` has {chars:,} characters; at most {MAX_STOP_CHARS:,} are taken, of all its strings together.",
            param="stop",
            code="invalid_value",
        )


ROUTE_OF: dict[type[SharedParameters], str] = {
    CompletionParameters: "/v1/completions",
    ChatParameters: "/v1/chat/completions",
}
"""Where each shape is asked."""


def _check_unsupported(name: str, value: object, engine: str, shape: type[SharedParameters]) -> None:
    if name in HARMLESS or value is None:
        return
    if name in VLLM_ONLY:
        raise NotHonoured(name, param=name, engine=engine)
    if name not in NEUTRAL_VALUES:
        elsewhere = [route for other, route in ROUTE_OF.items() if name in other.__struct_fields__]
        known = f"`{name}` belongs to {elsewhere[0]}." if elsewhere else unknown(name, shape.__struct_fields__)
        raise BadRequest(known, param=name, code="unknown_parameter")
    if not any(type(value) is type(neutral) and value == neutral for neutral in NEUTRAL_VALUES[name]):
        raise BadRequest(
            f"`{name}` is not supported, except as null{_listed(NEUTRAL_VALUES[name])}.",
            param=name,
            code="unsupported_parameter",
        )


def _listed(values: tuple[Any, ...]) -> str:
    return "".join(f" or {msgspec.json.encode(value).decode()}" for value in values)
