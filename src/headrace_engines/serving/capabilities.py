"""Which engine honours which parameter: one table, so that a refusal can name the engines that would not refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from headrace_engines.serving.errors import BadRequest

EngineName = Literal["openvino", "vllm", "transformers"]

_ALL: frozenset[EngineName] = frozenset({"openvino", "vllm", "transformers"})
_FULL: frozenset[EngineName] = frozenset({"vllm", "transformers"})

CAPABILITIES: Mapping[str, frozenset[EngineName]] = {
    "temperature": _ALL,
    "top_p": _ALL,
    "top_k": _ALL,
    "min_p": _ALL,
    "seed": _ALL,
    "repetition_penalty": _ALL,
    # OpenVINO GenAI 2026.4 adds these two to logits below zero instead of subtracting them (``logit_transformers.hpp``;
    # measured: with all logits lowered by 100, a penalty of 2 does what one of -2 does without).
    "presence_penalty": _FULL,
    "frequency_penalty": _FULL,
    "min_tokens": _ALL,
    "ignore_eos": _ALL,
    "stop": _ALL,
    "stop_token_ids": _ALL,
    "n": _ALL,
    "echo": _ALL,
    "logprobs": _ALL,
    "top_logprobs": _FULL,
    "logit_bias": _FULL,
    "response_format": _ALL,
    "tools": _ALL,
    "tool_choice": _ALL,
    "prompt_logprobs": frozenset({"vllm"}),
    "continuous_usage_stats": frozenset({"vllm"}),
    "images": frozenset({"vllm"}),
}
"""By parameter: the engines that do what it says. ``images`` stands for image parts in chat messages
(refused in words of their own, `serving.images`), ``continuous_usage_stats`` for that field of `stream_options`."""

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
"""Parameters of its own that vLLM 0.32.0 honours and our shell does not have; vLLM checks their values.

Not among them, though its request models have them: what it ignores in the way it is started here (``priority``,
``watermarking``, ``documents``, ``length_penalty``, ``return_token_offsets``, ``mm_payload``), what only another
process of a disaggregated deployment may say (``kv_transfer_params``, ``ec_transfer_params``, ``vllm_xargs``), and
beam search, under which it ignores stop strings, penalties and seeds.
"""


def engines_that_honour(parameter: str) -> tuple[EngineName, ...]:
    """The engines that honour a parameter, in alphabetical order; none for one that nobody knows."""
    own: frozenset[EngineName] = frozenset({"vllm"} if parameter in VLLM_ONLY else ())
    return tuple(sorted(CAPABILITIES.get(parameter, own)))


class NotHonoured(BadRequest):
    """The engine cannot do what a parameter says; the message names the engines that can, and how to get one."""

    def __init__(self, row: str, *, param: str, engine: str) -> None:
        others = engines_that_honour(row)
        which = f"{' and '.join(others)} {'do' if len(others) > 1 else 'does'}" if others else "no engine does"
        subject = f"`{param}`" if row == param else f"`{param}` ({row})"
        super().__init__(
            f"{subject} is not honoured by {engine}; {which}{_how_to_get(others)}.",
            param=param,
            code="unsupported_parameter",
        )


def _how_to_get(engines: tuple[EngineName, ...]) -> str:
    """What to do for an engine that honours it."""
    return f": deploy with {' or '.join(f'`--runtime {engine}`' for engine in engines)}" if engines else ""


def require(row: str, *, param: str, engine: str) -> None:
    """Refuse a parameter that `engine` does not honour.

    Args:
        row: The row of `CAPABILITIES` that it stands in.
        param: Its name in the request.
        engine: The engine's name.

    Raises:
        NotHonoured: The row does not have the engine.
    """
    if engine not in CAPABILITIES[row]:
        raise NotHonoured(row, param=param, engine=engine)
