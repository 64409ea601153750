"""The OpenAI wire's request bodies: which parameters are taken, which are refused by name, which make no difference."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from headrace_engines.serving.codec import ChatMessage
from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.generator import Sampling

NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "audio": (),
    "best_of": (1,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "include_stop_str_in_output": (False,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "prompt_logprobs": (),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "skip_special_tokens": (True,),
    "stop_token_ids": ([],),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "use_beam_search": (False,),
    "verbosity": (),
    "web_search_options": (),
}
"""Parameters that this engine does not have, and the values of each (null always) that ask for nothing."""

HARMLESS = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
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

StopString = Annotated[str, Meta(min_length=1)]
TokenCount = Annotated[int, Meta(ge=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Temperature = Annotated[float, Meta(ge=0)]
TopP = Annotated[float, Meta(gt=0, le=1)]
TopK = Annotated[int, Meta(ge=-1)]
MinP = Annotated[float, Meta(ge=0, le=1)]
RepetitionPenalty = Annotated[float, Meta(ge=0.01, le=100)]
"""Beyond these a float32 score may no longer be a number; what anyone uses lies between 0.8 and 2."""


def sampling_with(said: dict[str, Any], defaults: Sampling) -> Sampling:
    """`defaults` with the fields that were said; -1 as `top_k` is vLLM's way to say all of them."""
    if said.get("top_k") == -1:
        said = said | {"top_k": 0}
    return msgspec.structs.replace(defaults, **said)


class StreamOptions(msgspec.Struct):
    """What a stream carries besides text."""

    include_usage: bool | None = None


class SharedParameters(msgspec.Struct, kw_only=True):
    """What completions and chat completions have in common; null means the default everywhere."""

    model: str
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    repetition_penalty: RepetitionPenalty | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    max_tokens: TokenCount | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    stop: StopString | list[StopString] | None = None
    ignore_eos: bool | None = None
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
    def max_tokens_param(self) -> str:
        """The name under which the token budget came."""
        return "max_tokens"


class CompletionParameters(SharedParameters, kw_only=True):
    """``POST /v1/completions``."""

    prompt: str | list[Any]


class ChatParameters(SharedParameters, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_completion_tokens: TokenCount | None = None

    def __post_init__(self) -> None:
        if self.max_completion_tokens is not None:  # the newer name wins, as in OpenAI's reference
            self.max_tokens = self.max_completion_tokens

    @property
    def max_tokens_param(self) -> str:
        """The name under which the token budget came."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"


class TokenizeParameters(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /tokenize``, with either a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True


Body = TypeVar("Body", bound=msgspec.Struct)


def read_json(body: bytes) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        BadRequest: It is not one.
    """
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
        return msgspec.convert(fields, shape)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{error}.", param=_param_of(error), code="invalid_value") from error


def read_parameters(body: bytes, shape: type[Body]) -> Body:
    """Check a generation request's body: known parameters, their types and ranges.

    Raises:
        BadRequest: Something is wrong; it names the parameter.
    """
    fields = read_json(body)
    for name in fields.keys() - set(shape.__struct_fields__):
        _check_unsupported(name, fields[name])
    parameters = convert(fields, shape)
    if isinstance(parameters, SharedParameters) and parameters.stream_options is not None and not parameters.stream:
        raise BadRequest("`stream_options` needs `stream` to be true.", param="stream_options", code="invalid_value")
    return parameters


def chat_messages(messages: list[dict[str, Any]]) -> list[ChatMessage]:
    """The messages as a chat template takes them: plain text, ``developer`` under its older name ``system``.

    Raises:
        BadRequest: A role or a content part that this engine does not have; it names the place.
    """
    return [_chat_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _chat_message(message: dict[str, Any], place: str) -> ChatMessage:
    role = message.get("role")
    if role not in ("system", "developer", "user", "assistant"):
        raise BadRequest(
            f"{place}.role is {role!r}; system, developer, user and assistant are supported.",
            param=f"{place}.role",
            code="invalid_value",
        )
    for name in ("tool_calls", "function_call"):
        if message.get(name):
            raise BadRequest(f"{place}.{name}: tool calls are not supported by this engine.", param=f"{place}.{name}")
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(_text_part(part, f"{place}.content[{index}]") for index, part in enumerate(content))
    if not isinstance(content, str):
        raise BadRequest(f"{place}.content must be text.", param=f"{place}.content", code="invalid_value")
    return {"role": "system" if role == "developer" else str(role), "content": content}


def _text_part(part: object, place: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("text") if isinstance(part, dict) else None
    if kind == "text" and isinstance(text, str):
        return text
    raise BadRequest(
        f"{place}: content parts of type {kind!r} are not supported by this engine, only text.",
        param=place,
        code="unsupported_content",
    )


def _check_unsupported(name: str, value: object) -> None:
    if name in HARMLESS or value is None:
        return
    if name not in NEUTRAL_VALUES:
        raise BadRequest(f"Unknown parameter: {name!r}.", param=name, code="unknown_parameter")
    if not any(type(value) is type(neutral) and value == neutral for neutral in NEUTRAL_VALUES[name]):
        raise BadRequest(
            f"`{name}` is not supported by this engine, except as null{_listed(NEUTRAL_VALUES[name])}.",
            param=name,
            code="unsupported_parameter",
        )


def _listed(values: tuple[Any, ...]) -> str:
    return "".join(f" or {msgspec.json.encode(value).decode()}" for value in values)


def _param_of(error: msgspec.ValidationError) -> str | None:
    """The parameter that msgspec's message names: ``... - at `$.temperature` `` or ``... field `model` ``."""
    message = str(error)
    path = re.search(r"at `\$\.?([^`]*)`", message)
    if path and path.group(1):
        return path.group(1)
    field = re.search(r"field `([^`]+)`", message)
    return field.group(1) if field else None
