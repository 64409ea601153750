"""What a replica of a version carries on a machine, and what of it a deployed model was promised.

Work is counted in **model units**: seconds of a full replica, so a replica has 60 of them a minute.
"""

from __future__ import annotations

from itertools import product

import msgspec

from headrace.resources.names import Scope


def terms(prompt_tokens: float, output_tokens: float, concurrency: float) -> tuple[float, float, float, float, float]:
    """What a request's coefficients are multiplied with, in the order of `Cost`."""
    cached = prompt_tokens + output_tokens / 2
    return prompt_tokens, prompt_tokens**2, output_tokens / concurrency, output_tokens, output_tokens * cached


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a request takes of a replica, as coefficients in seconds; none is negative.

    Attributes:
        prompt: A token of the prompt.
        prompt_squared: A pair of its tokens.
        step: A step, whoever is in it.
        sequence: A sequence in a step.
        context: A token of a sequence's cache in a step.
    """

    prompt: float
    prompt_squared: float
    step: float
    sequence: float
    context: float

    def work_s(self, prompt_tokens: float, output_tokens: float, concurrency: float) -> float:
        """Of a replica's time, what a request takes while so many are in each step."""
        prompt, squared, steps, output, context = terms(prompt_tokens, output_tokens, concurrency)
        return (
            self.prompt * prompt
            + self.prompt_squared * squared
            + self.step * steps
            + self.sequence * output
            + self.context * context
        )


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica carries while it keeps its latencies.

    Attributes:
        cost: Of its requests.
        concurrency: Sequences at a time with which the latencies are kept; 0: with none.
        first_s: Time to first token that 99 of 100 requests keep then.
        gap_s: Inter-token latency, on average over a request's tokens, likewise.
        measured: Whether it was measured; else a roofline predicted it.
        profile_id: Of the profile that it is from; empty where it was predicted.
        cores: Of a CPU, those that it had: a machine carries it once for each time that it has so many. 0: it computes
            on accelerators, or nobody has told.
    """

    cost: Cost
    concurrency: int
    first_s: float
    gap_s: float
    measured: bool = False
    profile_id: str = ""
    cores: int = 0

    def units(self, prompt_tokens: float, output_tokens: float) -> float:
        """Model units of one request."""
        return self.cost.work_s(prompt_tokens, output_tokens, max(self.concurrency, 1))


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """Requests alike that were run, so many at a time, each that ended followed by the next at once.

    Attributes:
        prompt_tokens: Of each request, none of them known to the replica before.
        output_tokens: Of each.
        concurrency: At a time.
        requests: Done in that time; of those that were not whole, the share that was written.
        wall_s: How long that was looked at.
        first_s: Time to first token, 99th percentile.
        gap_s: Inter-token latency, on average over a request's tokens; of these, the 99th percentile.
    """

    prompt_tokens: int
    output_tokens: int
    concurrency: int
    requests: float
    wall_s: float
    first_s: float = 0.0
    gap_s: float = 0.0

    @property
    def request_s(self) -> float:
        """Of the replica's time, what one request took."""
        return self.wall_s / self.requests


Combination = tuple[int, int, int]
"""The number of requests at a time, tokens of each one's prompt, tokens of its answer."""


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured: every combination of lengths and numbers at a time, and a few more of the longest alone.

    Attributes:
        prompts: Lengths of prompts, in tokens.
        outputs: Lengths of answers, in tokens.
        concurrency: Numbers of requests at a time.
        between: Numbers at a time at which only the longest prompt with the longest answer is measured: how many at a
            time keep the latencies is told by that, and what a request costs by the rest.
    """

    prompts: tuple[int, ...]
    outputs: tuple[int, ...]
    concurrency: tuple[int, ...]
    between: tuple[int, ...] = ()

    def combinations(self) -> list[Combination]:
        """All of them."""
        longest = (self.prompts[-1], self.outputs[-1])
        return [*product(self.concurrency, self.prompts, self.outputs), *((at, *longest) for at in self.between)]

    def combinations_in(self, context_tokens: int) -> list[Combination]:
        """Those that a context has room for, the shortest requests first; the longest is the longest of those."""
        lengths = [one for one in product(self.prompts, self.outputs) if sum(one) <= context_tokens]
        between = product(self.between, lengths[-1:])
        together = [*product(self.concurrency, lengths), *between]
        return sorted(((at, *each) for at, each in together), key=lambda one: (one[1], one[2], one[0]))


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of a replica. It holds for this version, runtime, hardware and engine arguments alone.

    Attributes:
        hardware: The machine, as a name that changes when what it computes with does.
        engine: What the engine was started with that changes what it carries, as canonical JSON.
        points: What was measured.
        mean_error: Of the points held out of the fit, how far off it is on average, as a share of what was measured.
        worst_error: The farthest.
    """

    scope: Scope
    id: str
    model_id: str
    model_version: str
    runtime: str
    hardware: str
    engine: str
    carried: Carried
    points: tuple[Point, ...]
    mean_error: float
    worst_error: float
    created_at: float
    resource_version: int = 1


class Provision(msgspec.Struct, frozen=True, kw_only=True):
    """The throughput that a deployed model was sold, in tokens a second of the stated mix (`capacity.units`).

    Attributes:
        min_tokens_per_s: Guaranteed at any time; 0: nothing is, and it may scale to zero.
        max_tokens_per_s: Admitted at most; between the two replicas come and go.
        chunk: Tokens a second of one chunk, as it was when this was asked for.
        model_units: Of ``provisioned_model_units``, where it was asked for in those; else 0.
    """

    min_tokens_per_s: int
    max_tokens_per_s: int
    chunk: int
    model_units: int = 0
