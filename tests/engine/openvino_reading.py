"""Run by the OpenVINO engine's Python: how prompts are read, step by step, alone and beside others who wait.

Usage: ``python openvino_reading.py FOLDER``; prints JSON.
"""

import json
import random
import sys
from typing import Any

import msgspec

from headrace_engines.openvino.loading import load
from headrace_engines.openvino.messages import Load
from headrace_engines.openvino.running import Running
from headrace_engines.serving.generator import GenerationRequest, Sampling

LONG = 700
ORDER = Load(folder=sys.argv[1], dtype="float32", threads=2, max_model_len=1024, kv_cache_bytes=0, max_running=8)
dice = random.Random(3)


def asked(prompt_tokens: int, max_tokens: int) -> GenerationRequest:
    """A greedy request of a new prompt."""
    prompt = [dice.randrange(100, 40_000) for _ in range(prompt_tokens)]
    return GenerationRequest(
        prompt_ids=prompt, max_tokens=max_tokens, ignore_eos=True, sampling=Sampling(temperature=0), top_logprobs=0
    )


class Watched:
    """The sequences of a pipeline, and how far into their prompts they were given to it at each step."""

    def __init__(self, order: Load) -> None:
        self.running: Running = load(order)[0]
        self.running._pace.piece_tokens = lambda _, decoding: 1 if decoding else 512  # type: ignore[method-assign]
        self._given: list[tuple[int, int]] = []
        self._numbers: dict[int, int] = {}  # by the prompt's first token
        add = self.running._add

        def adding(token_ids: list[int], config: Any) -> Any:
            self._given.append((self._numbers[token_ids[0]], len(token_ids)))
            return add(token_ids, config)

        self.running._add = adding  # type: ignore[method-assign]

    def submit(self, request: GenerationRequest) -> int:
        """Its number."""
        number = self._numbers[request.prompt_ids[0]] = len(self._numbers) + 1
        self.running.add(number, request)
        return number

    def step(self) -> tuple[list[tuple[int, int]], dict[int, list[Any]]]:
        """Who was given to the pipeline in a step and up to where, and the events of each sequence."""
        self._given.clear()
        events: dict[int, list[Any]] = {}
        step = self.running.step()
        assert not step.failures, step.failures
        for number, event in step.events:
            events.setdefault(number, []).append(event)
        return list(self._given), events

    def until_first(self, number: int) -> tuple[list[list[int]], list[int], float]:
        """What each step was given until this one's first token, how many tokens others got, and its likelihood."""
        given, others = [], []
        while True:
            step, events = self.step()
            given.append([upto for _, upto in step])
            if number in events:
                return given, others, events[number][0].logprobs[0].logprob
            others.append(sum(map(len, events.values())))

    def run_out(self) -> None:
        """Until nobody is left."""
        while self.running:
            self.step()


watched = Watched(ORDER)
told: dict[str, Any] = {}
likely: list[float] = []
prompts = [asked(LONG, 2), asked(LONG, 2)]

number = watched.submit(prompts[0])
told["alone"], _, likelihood = watched.until_first(number)
likely.append(likelihood)
watched.run_out()

watched.until_first(watched.submit(asked(5, 100)))
number = watched.submit(prompts[1])
told["beside"], told["others"], likelihood = watched.until_first(number)
likely.append(likelihood)
told["again"], _, _ = watched.until_first(watched.submit(prompts[1]))
watched.run_out()

watched.until_first(watched.submit(asked(5, 100)))
watched.until_first(watched.submit(asked(6, 100)))
first, second, short = (watched.submit(asked(tokens, 1)) for tokens in (LONG, LONG, 20))
names = {first: "first", second: "second", short: "short"}
told["turns"] = []
while second not in (step := watched.step())[1]:
    told["turns"].append([(names[number], upto) for number, upto in step[0]])
watched.run_out()

watched.until_first(watched.submit(asked(5, 100)))
for _ in range(2):
    watched.submit(asked(LONG, 1))
told["more than are written to"] = [watched.step()[0][0][1] for _ in range(3)]
watched.run_out()

number = watched.submit(asked(LONG, 2))
watched.step()
watched.running.cancel(number)
told["cancelled"] = [watched.step()[0] for _ in range(3)]
watched.run_out()
watched.running._pipeline.step()
metrics = watched.running._pipeline.get_metrics()
told["left"] = [metrics.requests, metrics.cache_usage]

whole = Watched(msgspec.structs.replace(ORDER, prefix_caching=False))
expected = []
for request in prompts:
    told["whole"], _, likelihood = whole.until_first(whole.submit(request))
    expected.append(likelihood)
told["differences"] = [abs(one - other) for one, other in zip(likely, expected, strict=True)]
print(json.dumps(told))
