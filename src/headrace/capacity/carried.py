"""What a replica would carry within its latencies, predicted before anything of it was measured."""

from __future__ import annotations

import msgspec

from headrace.capacity.plan import Load, plan, work_of
from headrace.capacity.roofline import Place, cost
from headrace.capacity.units import FIRST_S, GAP_S, OUTPUT_TOKENS, PROMPT_TOKENS
from headrace.resources.profiles import Carried, Cost
from headrace.weights.folder import ModelFolder

_PROMPTS_BEFORE = 4
"""Prompts of others that a request finds before its own, at most, in 99 of 100 cases: reading them takes less than all
of a replica's time, and of a Poisson distribution of mean 1 less than 1 % are above 4."""


def predicted(
    folder: ModelFolder, load: Load, place: Place, *, first_s: float = FIRST_S, gap_s: float = GAP_S
) -> Carried | None:
    """By the roofline, for requests of the stated mix; None where the place's rates are not known.

    Its concurrency is the greatest with which both latencies are kept, and at most as many such sequences as the cache
    that is planned for has room for; 0 where not even one keeps them.

    Args:
        folder: The model.
        load: Its context, the sequences of that length that are planned for, its runtime.
        place: Where it lies.
        first_s: The longest time to first token.
        gap_s: The longest time between two tokens.

    Raises:
        BadField: It cannot be shared among as many devices as were asked for.
        ConfigInvalid: The configuration does not give the sizes that this takes.
    """
    planned = plan(folder, load, place)
    tokens = min(PROMPT_TOKENS + OUTPUT_TOKENS, load.context_tokens)
    at_most = max(1, load.concurrency * load.context_tokens // tokens)
    of_length = planned.need.sequence_bytes(tokens) - planned.need.bytes_per_sequence
    work = work_of(folder, load, planned.need)

    def at(sequences: int) -> Cost | None:
        return cost(
            msgspec.structs.replace(work, concurrency=sequences),
            place,
            planned.devices,
            load.runtime,
            token_bytes=of_length / tokens,
            sequence_bytes=planned.need.bytes_per_sequence,
        )

    of_one = at(1)
    if of_one is None:
        return None
    most, kept = 0, of_one
    for sequences in range(1, at_most + 1):
        of_so_many = at(sequences) or of_one
        first, gap = latencies(of_so_many, sequences)
        if first > first_s or gap > gap_s:
            break
        most, kept = sequences, of_so_many
    return Carried(cost=kept, concurrency=most, first_s=first_s, gap_s=gap_s)


def latencies(of: Cost, sequences: int) -> tuple[float, float]:
    """Time to first token and inter-token latency that 99 of 100 keep while so many requests of the mix are served.

    A prompt is read in one pass, after those that came before it; who is writing waits for that pass, once for each of
    the others on average.
    """
    prompt_s = of.prompt * PROMPT_TOKENS + of.prompt_squared * PROMPT_TOKENS**2
    step_s = of.step + sequences * (of.sequence + of.context * (PROMPT_TOKENS + OUTPUT_TOKENS / 2))
    first_s = prompt_s * (1 + min(sequences - 1, _PROMPTS_BEFORE)) + step_s
    return first_s, step_s + prompt_s * (sequences - 1) / OUTPUT_TOKENS
