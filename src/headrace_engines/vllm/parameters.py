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
    CompletionParameters,
    DetokenizeParameters,
    SharedParameters,
    TokenizeParameters,
    convert,
    read_parameters,
)
from headrace_engines.serving.tokenization import require_known
from headrace_engines.serving.wrong_values import unknown
from headrace_engines.vllm.conversation import check_chat, check_conversation
from headrace_engines.vllm.references import require_plain_references

ENGINE = "vllm"

OF_TOKENIZE = frozenset(
    {
        "model",
        "prompt",
        "messages",
        "add_special_tokens",
        "add_generation_prompt",
        "continue_final_message",
        "tools",
        "chat_template_kwargs",
    }
)
"""What ``/tokenize`` may be asked: whatever makes a difference to the prompt of a chat."""

MAX_PROMPTS = 1024
"""Of one completion: vLLM's ``VLLM_MAX_COMPLETION_PROMPTS`` (vllm/envs.py:113)."""

_GREEDY_BELOW = 1e-5
"""vLLM's ``_SAMPLING_EPS``: a temperature below means greedy."""

_GUIDED = {"guided_json": "json", "guided_regex": "regex", "guided_choice": "choice"}
"""Older names for a structured output, which vLLM removed and now ignores; it knows them as fields of the new one."""


class CheckedRequest(msgspec.Struct, frozen=True):
    """A request that vLLM will honour.

    Attributes:
        parameters: As read by the shell.
        for_vllm: The fields that vLLM gets.
        grammar_param: The parameter that the answer's grammar is made of; None without one.
    """

    parameters: SharedParameters
    for_vllm: dict[str, Any]
    grammar_param: str | None


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
    parameters = read_parameters(known, shape, ENGINE)
    if said := parameters.grammar():
        require_plain_references(*said)
    if isinstance(parameters, ChatParameters):
        check_chat(parameters, reads_tool_calls=reads_tool_calls, takes_media=takes_media)
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
    return CheckedRequest(parameters, wanted, said[1] if said else "tools" if wanted.get("tools") else None)


def _strict(tool: Any) -> Any:
    """A tool whose arguments have to follow its schema, unless the request says otherwise.

    Where a call has to be made our other engines hold it to the schema; vLLM does so for tools that are strict only.
    """
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or function.get("strict") is not None:
        return tool
    return {**tool, "function": {**function, "strict": True}}


def check_tokenize(fields: dict[str, Any], *, reads_tool_calls: bool, takes_media: bool) -> None:
    """Check a request to ``/tokenize``, for which vLLM looks at messages as for an answer.

    Raises:
        BadRequest: It has a parameter that would be ignored, or messages that a chat may not have.
    """
    for name in sorted(fields.keys() - OF_TOKENIZE):
        raise BadRequest(unknown(name, OF_TOKENIZE), param=name, code="unknown_parameter")
    parameters = convert(fields, TokenizeParameters)
    check_conversation(
        parameters.messages or [],
        tools=parameters.tools,
        variables=parameters.chat_template_kwargs,
        reads_tool_calls=reads_tool_calls,
        takes_media=takes_media,
    )


def check_detokenize(fields: dict[str, Any], *, vocab_size: int, max_model_len: int) -> None:
    """Check a request to ``/detokenize``.

    Raises:
        BadRequest: It has no tokens, too many, one that the model has not, or something besides.
    """
    tokens = convert(fields, DetokenizeParameters).tokens
    require_known(tokens, vocab_size=vocab_size, max_model_len=max_model_len)


def _check_what_vllm_words_otherwise(parameters: SharedParameters) -> None:
    """What it refuses too, without the parameter's name or as pages of its validator's output."""
    prompt = parameters.prompt if isinstance(parameters, CompletionParameters) else ""
    if isinstance(prompt, list) and len(prompt) > MAX_PROMPTS and not isinstance(prompt[0], int):
        raise BadRequest(
            f"`prompt` holds {len(prompt):,} prompts; vllm takes {MAX_PROMPTS:,} at once.",
            param="prompt",
            code="invalid_value",
        )
    if parameters.max_tokens is not None and (parameters.min_tokens or 0) > parameters.max_tokens:
        raise BadRequest(
            f"`min_tokens` is {parameters.min_tokens}, more than the {parameters.max_tokens} tokens allowed.",
            param="min_tokens",
            code="invalid_value",
        )
