"""``POST /v1/completions``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from starlette.requests import Request

from headrace_engines.serving.answering import Answer, unless_hung_up
from headrace_engines.serving.answers import CompletionShape
from headrace_engines.serving.choices import Choice, EchoingChoice
from headrace_engines.serving.engine import Engine
from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.parameters import CompletionParameters, read_json, read_parameters
from headrace_engines.serving.submission import Submission, budget, require_places, submit

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default; chat completions default to the rest of the context."""


class Prompt(NamedTuple):
    """One prompt: its token ids, and its text as it is echoed, nothing of it left out; empty where it is not."""

    token_ids: list[int]
    echo: str


async def completions(request: Request) -> Answer:
    """One or more prompts, continued `n` times each; choice ``prompt * n + sample``, as OpenAI counts them."""
    arrived_s = time.monotonic()
    engine: Engine = request.app.state.engine
    fields = read_json(await request.body(), max_model_len=engine.max_model_len)
    parameters = read_parameters(fields, CompletionParameters, engine.name)
    engine.check_model(parameters.model)
    grammar, grammar_param = parameters.grammar() or (None, None)
    separate = _separate(parameters.prompt)
    require_places(engine, parameters, prompts=len(separate), prompt_param="prompt")
    prompts = await unless_hung_up(request.receive, _read_prompts(engine, parameters, separate))
    sequences = submit(
        engine,
        parameters,
        Submission(
            prompts=[prompt.token_ids for prompt in prompts],
            prompt_param="prompt",
            default_max_tokens=DEFAULT_MAX_TOKENS,
            grammar=grammar,
            grammar_param=grammar_param,
            keep_special_tokens=parameters.skip_special_tokens is False,
            arrived_s=arrived_s,
        ),
    )
    shape = CompletionShape(
        f"cmpl-{uuid.uuid4().hex}",
        engine.model_name,
        logprobs=parameters.logprobs is not None,
        include_usage=parameters.include_usage,
    )
    return Answer(
        shape,
        sequences,
        [
            EchoingChoice(prompt.echo) if parameters.echo else Choice()
            for prompt in prompts
            for _ in range(parameters.n or 1)
        ],
        prompt_tokens=sum(len(prompt.token_ids) for prompt in prompts),
        stream=bool(parameters.stream),
        grammar_param=grammar_param,
    )


def _separate(prompt: str | list[Any]) -> list[str | list[Any]]:
    """The prompts: one text, one list of token ids, or a list of either."""
    if isinstance(prompt, list) and prompt and all(isinstance(item, str | list) for item in prompt):
        return prompt
    return [prompt]


async def _read_prompts(
    engine: Engine, parameters: CompletionParameters, separate: Sequence[str | list[Any]]
) -> list[Prompt]:
    """All of them, up to the first that does not fit."""
    prompts = []
    for each in separate:
        prompt = await _read_prompt(
            engine, each, add_special_tokens=parameters.add_special_tokens is not False, echo=bool(parameters.echo)
        )
        budget(engine, parameters, prompt.token_ids, prompt_param="prompt", default=DEFAULT_MAX_TOKENS)
        prompts.append(prompt)
    return prompts


async def _read_prompt(engine: Engine, prompt: str | list[Any], *, add_special_tokens: bool, echo: bool) -> Prompt:
    vocab_size = engine.generator.limits.vocab_size
    if isinstance(prompt, str):
        return Prompt(await engine.encode(prompt, add_special_tokens=add_special_tokens), prompt)
    if not all(type(item) is int and 0 <= item < vocab_size for item in prompt):
        raise BadRequest(
            f"`prompt` must be text or a list of token ids from 0 to {vocab_size - 1}, or a list of such.",
            param="prompt",
            code="invalid_value",
        )
    return Prompt(prompt, await engine.decode_all(prompt) if echo else "")
