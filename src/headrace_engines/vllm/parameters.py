"""What a request may ask of vLLM. Its own request models take any extra field and ignore it without a word.

The parameters that our shell knows are checked as it checks them, so that all engines refuse the same in the same
words. vLLM honours some more, `VLLM_ONLY`; all others are refused.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_engines.serving.capabilities import VLLM_ONLY
from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.parameters import (
    ASKS_NOTHING,
    HARMLESS,
    NEUTRAL_VALUES,
    ChatParameters,
    DetokenizeParameters,
    SharedParameters,
    convert,
    read_parameters,
)
from headrace_engines.serving.tokenization import require_known
from headrace_engines.vllm.conversation import check_conversation
from headrace_engines.vllm.media import check_media
from headrace_engines.vllm.references import require_plain_references

ENGINE = "vllm"

OF_TOKENIZE = frozenset({"model", "prompt", "messages", "add_special_tokens", "add_generation_prompt", "tools"})
"""What ``/tokenize`` may be asked."""

MAX_STOPS = 4
"""Stop strings of a request, as at OpenAI."""

_GREEDY_BELOW = 1e-5
"""vLLM's ``_SAMPLING_EPS``: a temperature below means greedy."""

_GUIDED = {"guided_json": "json", "guided_regex": "regex", "guided_choice": "choice"}
"""Older names for a structured output, which vLLM removed and now ignores; it knows them as fields of the new one."""


class CheckedRequest(msgspec.Struct, frozen=True):
    """A request that vLLM will honour.

    Attributes:
        parameters: As read by the shell.
        for_vllm: The fields that vLLM gets.
    """

    parameters: SharedParameters
    for_vllm: dict[str, Any]


def check(
    fields: dict[str, Any], shape: type[SharedParameters], *, reads_tool_calls: bool, takes_media: bool
) -> CheckedRequest:
    """Check a generation request.

    Args:
        fields: Its body.
        shape: What its route takes.
        reads_tool_calls: Whether vLLM was started with a parser of this model's tool calls.
        takes_media: Whether the model takes anything but text.

    Raises:
        BadRequest: vLLM would ignore or refuse something; it names the parameter.
    """
    known = {name: value for name, value in fields.items() if name not in VLLM_ONLY}
    parameters = read_parameters(msgspec.json.encode(known), shape, ENGINE)
    if said := parameters.grammar():
        require_plain_references(*said)
    if isinstance(parameters, ChatParameters):
        check_conversation(parameters, reads_tool_calls=reads_tool_calls, takes_media=takes_media)
    _check_what_vllm_words_otherwise(parameters)
    dropped = HARMLESS | NEUTRAL_VALUES.keys() - shape.__struct_fields__
    wanted = {name: value for name, value in fields.items() if name not in dropped and value is not None}
    if not wanted.get("tools"):  # an empty list asks for nothing, but vLLM refuses one, and a choice without tools
        wanted.pop("tools", None)
        if wanted.get("tool_choice") in ASKS_NOTHING["tool_choice"]:
            del wanted["tool_choice"]
    elif wanted.get("tool_choice") not in (None, "auto", "none"):
        wanted["tools"] = [_strict(tool) for tool in wanted["tools"]]
    if (parameters.n or 1) > 1 and parameters.temperature is not None and parameters.temperature < _GREEDY_BELOW:
        wanted |= {"temperature": 1.0, "top_k": 1}  # as greedy, and vLLM refuses several answers that are called so
    for name in wanted.keys() & _GUIDED.keys():
        wanted["structured_outputs"] = {_GUIDED[name]: wanted.pop(name)}
    return CheckedRequest(parameters, wanted)


def _strict(tool: Any) -> Any:
    """A tool whose arguments have to follow its schema, unless the request says otherwise.

    Where a call has to be made our other engines hold it to the schema; vLLM does so for tools that are strict only.
    """
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or function.get("strict") is not None:
        return tool
    return {**tool, "function": {**function, "strict": True}}


def check_tokenize(fields: dict[str, Any], *, takes_media: bool) -> None:
    """Check a request to ``/tokenize``, for which vLLM looks at media as for an answer.

    Raises:
        BadRequest: It has a parameter that would be ignored, or media that a chat may not have.
    """
    for name in sorted(fields.keys() - OF_TOKENIZE):
        raise BadRequest(f"Unknown parameter: {name!r}.", param=name, code="unknown_parameter")
    messages = fields.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else []):
        if isinstance(message, dict):
            check_media(message, f"messages[{index}]", takes_media=takes_media)


def check_detokenize(fields: dict[str, Any], *, vocab_size: int) -> None:
    """Check a request to ``/detokenize``.

    Raises:
        BadRequest: It has no tokens, one that the model has not, or something besides.
    """
    require_known(convert(fields, DetokenizeParameters).tokens, vocab_size)


def _check_what_vllm_words_otherwise(parameters: SharedParameters) -> None:
    """What it refuses too, without the parameter's name or as pages of its validator's output."""
    if len(parameters.stops) > MAX_STOPS:
        raise BadRequest(
            f"`stop` has {len(parameters.stops)} strings; vllm takes {MAX_STOPS}.", param="stop", code="invalid_value"
        )
    if parameters.max_tokens is not None and (parameters.min_tokens or 0) > parameters.max_tokens:
        raise BadRequest(
            f"`min_tokens` is {parameters.min_tokens}, more than the {parameters.max_tokens} tokens allowed.",
            param="min_tokens",
            code="invalid_value",
        )
