"""What a request may ask of vLLM. Its own request models take any extra field and ignore it without a word.

The parameters that our shell knows are checked as it checks them, so that all engines refuse the same in the same
words. vLLM honours some more, `VLLM_ONLY`; all others are refused.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.messages import ROLES
from headrace_engines.serving.parameters import (
    ASKS_NOTHING,
    HARMLESS,
    NEUTRAL_VALUES,
    ChatParameters,
    SharedParameters,
    read_parameters,
)

ENGINE = "vllm"

VLLM_ONLY = frozenset(
    {
        "allowed_token_ids",
        "bad_words",
        "cache_salt",
        "include_reasoning",
        "logprob_token_ids",
        "repetition_detection",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "spaces_between_special_tokens",
        "stream_interval",
        "truncate_prompt_tokens",
        "truncation_side",
    }
)
"""Parameters that vLLM 0.32.0 honours and our shell does not have; vLLM checks their values and names the parameter.

Not among them, though its request models have them: what it ignores in the way it is started here (``priority``,
``watermarking``, ``documents``, ``length_penalty``, ``return_token_offsets``, ``mm_payload``), what only another
process of a disaggregated deployment may say (``kv_transfer_params``, ``ec_transfer_params``, ``vllm_xargs``), and
beam search, under which it ignores stop strings, penalties and seeds.
"""

OF_TOKENIZE = frozenset({"model", "prompt", "messages", "add_special_tokens", "add_generation_prompt", "tools"})
"""What ``/tokenize`` may be asked."""

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


def check(fields: dict[str, Any], shape: type[SharedParameters], *, reads_tool_calls: bool) -> CheckedRequest:
    """Check a generation request.

    Raises:
        BadRequest: vLLM would ignore or refuse something; it names the parameter.
    """
    known = {name: value for name, value in fields.items() if name not in VLLM_ONLY}
    parameters = read_parameters(msgspec.json.encode(known), shape, ENGINE)
    parameters.grammar()
    if isinstance(parameters, ChatParameters):
        _check_tools(parameters, reads_tool_calls=reads_tool_calls)
        for index, message in enumerate(parameters.messages):
            _check_message(message, f"messages[{index}]")
    dropped = HARMLESS | NEUTRAL_VALUES.keys() - shape.__struct_fields__
    wanted = {name: value for name, value in fields.items() if name not in dropped and value is not None}
    if not wanted.get("tools"):  # an empty list asks for nothing, but vLLM refuses one, and a choice without tools
        wanted.pop("tools", None)
        if wanted.get("tool_choice") in ASKS_NOTHING["tool_choice"]:
            del wanted["tool_choice"]
    for name in wanted.keys() & _GUIDED.keys():
        wanted["structured_outputs"] = {_GUIDED[name]: wanted.pop(name)}
    return CheckedRequest(parameters, wanted)


def check_tokenize(fields: dict[str, Any]) -> None:
    """Check a request to ``/tokenize``.

    Raises:
        BadRequest: It has a parameter that would be ignored.
    """
    for name in sorted(fields.keys() - OF_TOKENIZE):
        raise BadRequest(f"Unknown parameter: {name!r}.", param=name, code="unknown_parameter")


def _check_tools(parameters: ChatParameters, *, reads_tool_calls: bool) -> None:
    if parameters.tools and parameters.tool_choice != "none" and not reads_tool_calls:
        raise BadRequest(
            "`tools`: this model's chat template shows no form of tool calls that vLLM reads.",
            param="tools",
            code="unsupported_parameter",
        )


def _check_message(message: dict[str, Any], place: str) -> None:
    if message.get("role") not in ROLES:
        raise BadRequest(
            f"{place}.role is {message.get('role')!r}; {', '.join(ROLES)} are supported.",
            param=f"{place}.role",
            code="invalid_value",
        )
    content = message.get("content")
    for number, part in enumerate(content if isinstance(content, list) else []):
        _check_part(part, f"{place}.content[{number}]")


def _check_part(part: object, place: str) -> None:
    """Media come inside the request: vLLM would fetch any address from inside our network, and open files."""
    if not isinstance(part, dict) or part.get("type") == "text":
        return
    media = part.get(str(part.get("type")))
    url = media.get("url") if isinstance(media, dict) else media
    if isinstance(url, str) and not url.startswith("data:"):
        raise BadRequest(
            f"{place}: media must be inside the request, as a `data:` URL.", param=place, code="unsupported_content"
        )
