"""A request as work: what it is expected to cost a replica, and what it did cost."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.contracts.openai.need import Need
from headrace.contracts.openai.usage import Usage
from headrace.gateway.expectation import Expectation
from headrace.resources.profiles import Carried
from headrace.resources.work import micros


def expected_work(
    carried: Carried, needs: Sequence[Need], expectation: Expectation, *, size_bytes: int, max_model_len: int
) -> int:
    """Millionths of a model unit that a request will be, as far as anybody can tell before an engine has it.

    A prompt has as many tokens as earlier ones had for their size; asking an engine to count it would cost the time of
    a request. An answer is as long as earlier ones were, at most what the request allows.

    Args:
        carried: What a replica carries.
        needs: Of each request to an engine that it becomes.
        expectation: What earlier requests came to.
        size_bytes: Of its body.
        max_model_len: The model's context in tokens; 0 where nobody knows.
    """
    prompts = sum(need.prompts for need in needs)
    longest = max_model_len or size_bytes
    asked = expectation.prompt(size_bytes // prompts, longest) if prompts else 0
    units = 0.0
    for need in needs:
        answer = expectation.output_tokens
        if need.max_tokens is not None:
            answer = min(answer, need.max_tokens)
        for prompt in (*(asked for _ in need.questions), *need.known):
            units += _units(carried, min(prompt, longest), need.samples * answer, need.samples)
    return micros(units)


def used_work(carried: Carried, usage: Usage, *, prompts: int = 1, answers: int = 1) -> int:
    """Millionths of a model unit that one request to an engine was, by what that counted.

    A prompt's tokens count whether the engine had them in its cache or not: what a tenant may use does not depend on
    what others have driven out of there.

    Args:
        carried: What a replica carries.
        usage: Of all of it together; several prompts are taken to be alike, and answers too.
        prompts: How many it had.
        answers: How many there are to each.
    """
    prompt, output = usage.prompt_tokens / prompts, usage.completion_tokens / prompts
    return micros(prompts * _units(carried, prompt, output, answers))


def _units(carried: Carried, prompt: float, output: float, answers: int) -> float:
    """The prompt is read once, and each answer has a cache of its own."""
    reading = carried.units(prompt, 0)
    if not answers:
        return reading
    return reading + answers * (carried.units(prompt, output / answers) - reading)
