"""A request in OpenVINO GenAI's words."""

from __future__ import annotations

import random

import openvino_genai as genai  # type: ignore[import-not-found]  # in the engine's environment only

from headrace_engines.serving.generator import GenerationRequest, Grammar, Sampling

# vLLM's _SAMPLING_EPS: below this a temperature only overflows; the likeliest token is what it means.
_GREEDY_BELOW_TEMPERATURE = 1e-5

_SEEDS = 2**32
"""GenAI's random numbers come from a 32-bit Mersenne Twister (``sampler.hpp``)."""


def generation_config(request: GenerationRequest, end_ids: frozenset[int]) -> genai.GenerationConfig:
    """What GenAI needs to know of a request.

    Presence and frequency penalties are not passed on: GenAI 2026.4 adds them to logits below zero, which rewards
    repetition there; `serving.capabilities` says that this engine does not honour them.
    """
    config = genai.GenerationConfig(
        max_new_tokens=request.max_tokens,
        min_new_tokens=request.min_tokens,
        ignore_eos=request.ignore_eos or not end_ids,
        # One log probability is all there is: the picked token's, of the model's own distribution.
        logprobs=0 if request.top_logprobs is None else 1,
    )
    # A grammar would take every stop token for its end, and let none of them into the text before.
    config.stop_token_ids = set(end_ids if request.grammar is not None else end_ids | request.stop_token_ids)
    if request.grammar is not None:
        config.structured_output_config = structured_output_config(request.grammar)
    _set_sampling(config, request.sampling)
    return config


def structured_output_config(grammar: Grammar) -> genai.StructuredOutputConfig:
    """A grammar in GenAI's words."""
    if grammar.kind == "json_schema":
        return genai.StructuredOutputConfig(json_schema=grammar.text)
    return genai.StructuredOutputConfig(regex=grammar.text)


def _set_sampling(config: genai.GenerationConfig, sampling: Sampling) -> None:
    config.repetition_penalty = sampling.repetition_penalty
    # A min_p of 1 keeps the likeliest token only.
    config.do_sample = sampling.temperature >= _GREEDY_BELOW_TEMPERATURE and sampling.min_p < 1
    if config.do_sample:
        config.temperature = sampling.temperature
        config.top_k = sampling.top_k
        config.top_p = sampling.top_p
        config.min_p = sampling.min_p
        config.rng_seed = random.getrandbits(32) if sampling.seed is None else sampling.seed % _SEEDS
