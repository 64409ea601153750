"""Which engine serves text fastest on two cores, what the gateway and the shell cost, and what bounds them.

SmolLM2-135M in bfloat16, 64 tokens that cannot end early. Each of ours through the whole gateway and asked directly;
beside them vLLM's own server, `transformers serve`, the OpenVINO pipeline and `model.generate` as libraries. All of
them are up at once and take turns, there and back, so that a slow minute of the machine is everybody's and nobody
always comes after the same one; what counts is the median of the ratios of one round.

    make bench-engine                                   # everything: some 80 minutes; each part is kept as it ends
    make bench-engine ARGUMENTS="--only short"          # a part: results/engine-short.json
    make bench-engine ARGUMENTS="--only trace --engines vllm"    # of some: results/engine-trace-vllm.json
    make bench-engine ARGUMENTS="--only long --engines vllm --at 32"    # results/engine-long-vllm-at-32.json
    make bench-engine ARGUMENTS="--only trace --who 'transformers serve'"    # some of who takes part
    make bench-engine ARGUMENTS="--quick --engines openvino,vllm --only short --at 8"    # to look, not to keep
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import uvloop

from engine_client import Measured, Prompts, disturbed, replay
from engine_contenders import Contender, library, ours, transformers_serve, vllm_by_hand
from report import Report, median

DEFAULT_CPU_ENGINE = "openvino"
TOKENS = 64
SHORT, LONG = 30, 1500
TRACE_REQUESTS, TRACE_STRETCH = 200, 8.0
"""The trace's own minute asks 3.3 requests and 770 tokens of two cores each second: it is given eight minutes.
At a stretch of three the prompts alone, 1,200 tokens a second, were more than two cores with AMX read; requests waited
over 120 s."""
LONGEST_TURN_S = 300.0
"""What would take longer, going by the load before at fewer at once, is not measured, and its row says so; unless
``--longest-s`` gives it the time."""
QUIET_STREAMS, QUIET_TOKENS, ARRIVALS, ARRIVAL_EVERY_S = 4, 400, 8, 1.0
GOAL_AGAINST_VLLM = {1: 1.5, 8: 1.2, 32: 0.95, 128: None}
GOAL_GENERATE = {8: 0.8, 32: 0.8}
GOAL_GATEWAY, GOAL_SHELL, GOAL_READY_S, GOAL_DISTURBED = 0.95, 0.85, 10, 3.0


class Scenario(NamedTuple):
    """One load, given to everyone in turn.

    Attributes:
        prompt_tokens: Length of each prompt, about.
        concurrency: Requests at a time.
        requests: Requests in all, in each round.
        rounds: How often everyone's turn comes.
        drawn: Tokens are drawn as the model's folder says, which is what clients get that say nothing; else the
            likeliest are taken.
    """

    prompt_tokens: int
    concurrency: int
    requests: int
    rounds: int
    drawn: bool = False

    @property
    def name(self) -> str:
        """In the table."""
        return f"{self.prompt_tokens} tokens, {self.concurrency} at once" + ", drawn" * self.drawn


SCENARIOS = {
    "short": [
        Scenario(SHORT, 1, 4, 4),
        Scenario(SHORT, 8, 24, 4),
        Scenario(SHORT, 32, 96, 4),
        Scenario(SHORT, 128, 256, 2),
    ],
    "drawn": [Scenario(SHORT, at, requests, 2, drawn=True) for at, requests in ((1, 4), (8, 24), (32, 96))],
    "long": [Scenario(LONG, 1, 3, 1), Scenario(LONG, 8, 16, 1), Scenario(LONG, 32, 32, 1), Scenario(LONG, 128, 128, 1)],
}
QUICK = {
    "short": [Scenario(SHORT, 1, 2, 1), Scenario(SHORT, 8, 16, 1), Scenario(SHORT, 32, 64, 1)],
    "long": [Scenario(LONG, 1, 1, 1)],
}
PARTS = ("short", "drawn", "disturbed", "trace", "long")
PLACES = "1,8,32,128"
ENGINES = ("openvino", "transformers", "vllm")

Speeds = dict[tuple[str, int, int], list[float]]
"""Tokens/s of each round, by contender, prompt length and concurrency."""


class Bench:
    """One run over everyone who takes part."""

    def __init__(self, contenders: Sequence[Contender], *, quick: bool, name: str, longest_s: float) -> None:
        self._contenders = contenders
        self._longest_s = longest_s
        self._name = name
        self._quick = quick
        self._prompts = Prompts(seed=2026)
        self._request_s: dict[tuple[str, int], float] = {}  # of the load before, by contender and prompt length
        self.speeds: Speeds = {}
        self.report = self._new_report("")
        self._with_goals = False

    def _new_report(self, part: str) -> Report:
        columns = ("load", "who", "tokens/s", "first p50 ms", "p99 ms", "between p50 ms", "p99 ms")
        return Report(self._name.format(part), columns)

    async def run(self, part: str, scenarios: Sequence[Scenario]) -> Report:
        """One part of the whole, with its goals; what was measured of it if it ends early."""
        self.report = self._new_report(part)
        self._with_goals = part == "short"
        self.speeds.clear()
        try:
            for scenario in scenarios:
                await self.load(scenario)
            if part == "disturbed":
                await self.disturb()
            if part == "trace":
                await self.trace()
        except (asyncio.CancelledError, AssertionError) as end:  # what was measured until then is not lost
            self.report.goal(f"part {part!r} was measured to its end", repr(end)[:300], None)
        self.costs()
        self.compare()
        return self.report

    async def warm(self) -> None:
        """What is made on first use is there before anything is measured."""
        for contender in self._contenders:
            await contender.run(self._prompts.jobs(8, SHORT, 8), 8)

    async def load(self, scenario: Scenario) -> None:
        """One scenario, everyone in turn, round by round."""
        asked = [one for one in self._contenders if not scenario.drawn or one.server is not None]
        able = [contender for contender in asked if self._in_time(contender, scenario)]
        measured: dict[str, list[Measured]] = {contender.name: [] for contender in able}
        for number in range(scenario.rounds):
            for contender in able if number % 2 == 0 else reversed(able):
                jobs = self._prompts.jobs(scenario.requests, scenario.prompt_tokens, TOKENS, drawn=scenario.drawn)
                measured[contender.name].append(await contender.run(jobs, scenario.concurrency))
        for name, rounds in measured.items():
            self._request_s[name, scenario.prompt_tokens] = rounds[-1].wall_s / scenario.requests
            speeds = [each.tokens_per_s for each in rounds]
            self.speeds[name, scenario.prompt_tokens, scenario.concurrency] = speeds
            failed = sum(each.failed for each in rounds)
            self._row(scenario.name + (f", {failed} failed" if failed else ""), name, rounds, median(speeds))

    def _in_time(self, contender: Contender, scenario: Scenario) -> bool:
        """Whether its turn ends in time; if not, a row says how long it would take."""
        turn_s = self._request_s.get((contender.name, scenario.prompt_tokens), 0.0) * scenario.requests
        if turn_s > self._longest_s:
            self.report.row(scenario.name, contender.name, f"not measured: some {turn_s:.0f} s", "", "", "", "")
        return turn_s <= self._longest_s

    def _row(self, load: str, who: str, rounds: Sequence[Measured], speed: float) -> None:
        together = Measured(1.0, [answer for each in rounds for answer in each.answers])
        if together.answers:
            times = [f"{value:.0f}" for share in (0.5, 0.99) for value in [together.first_ms(share)]]
            times += [f"{value:.1f}" for share in (0.5, 0.99) for value in [together.gap_ms(share)]]
        else:
            times = [""] * 4
        self.report.row(load, who, f"{speed:.0f}", *times)
        print(f"  {load:28}  {who:24} {speed:6.0f} tokens/s  {' · '.join(times)}", flush=True)

    async def disturb(self) -> None:
        """What long prompts that arrive do to streams that are being read."""
        for contender in self._contenders:
            if contender.server is None:
                continue
            gaps = {}
            for kind, arrivals in (("quiet", 0), ("while long prompts arrive", ARRIVALS)):
                measured = await disturbed(
                    contender.server,
                    self._prompts.jobs(QUIET_STREAMS, SHORT, QUIET_TOKENS),
                    self._prompts.jobs(arrivals, LONG, 1),
                    ARRIVAL_EVERY_S,
                )
                gaps[kind] = measured.gap_ms(0.99)
                self._row(f"{QUIET_STREAMS} streams, {kind}", contender.name, [measured], measured.tokens_per_s)
            quiet, loud = gaps.values()
            ours_by_default = contender.name == f"{DEFAULT_CPU_ENGINE}, direct"
            self.report.goal(
                f"{contender.name}: p99 between tokens while long prompts arrive <= {GOAL_DISTURBED:.0f} x quiet",
                f"{loud:.0f} / {quiet:.0f} ms = {loud / quiet:.2f}",
                loud / quiet <= GOAL_DISTURBED if ours_by_default else None,
            )

    async def trace(self) -> None:
        """The beginning of a real day's traffic."""
        jobs = self._prompts.trace(20 if self._quick else TRACE_REQUESTS, TRACE_STRETCH)
        for contender in self._contenders:
            if contender.server is not None and not contender.name.endswith("direct"):
                measured = await replay(contender.server, jobs)
                failed = f", {measured.failed} failed" if measured.failed else ""
                self._row(f"trace, {len(jobs)} requests{failed}", contender.name, [measured], measured.tokens_per_s)

    def costs(self) -> None:
        """Memory, readiness, disk."""
        for contender in self._contenders:
            self.report.row(
                "what it costs",
                contender.name,
                "",
                f"ready {contender.facts.ready_s:.1f} s",
                f"{contender.resident_mb():.0f} MB PSS",
                f"{contender.facts.install_bytes / 1e9:.2f} GB disk",
                "",
            )
            if contender.name == f"{DEFAULT_CPU_ENGINE}, direct":
                ready_s = contender.facts.ready_s
                self.report.goal(f"ready in under {GOAL_READY_S} s", f"{ready_s:.1f} s", ready_s < GOAL_READY_S)

    def compare(self) -> None:
        """The ratios that the goals are about."""
        default = f"{DEFAULT_CPU_ENGINE}, gateway"
        for concurrency, wanted in GOAL_AGAINST_VLLM.items():
            self._ratio(default, "vLLM's own server", concurrency, wanted)
        for engine in ENGINES:
            for concurrency in GOAL_AGAINST_VLLM:
                self._ratio(f"{engine}, gateway", f"{engine}, direct", concurrency, GOAL_GATEWAY)
        for concurrency in GOAL_AGAINST_VLLM:
            self._ratio(f"{DEFAULT_CPU_ENGINE}, direct", "OpenVINO pipeline", concurrency, GOAL_SHELL)
            self._ratio("transformers, direct", "model.generate", concurrency, GOAL_GENERATE.get(concurrency))
            self._ratio("transformers, direct", "transformers serve", concurrency, None)

    def _ratio(self, who: str, against: str, concurrency: int, wanted: float | None) -> None:
        for prompt_tokens in (SHORT, LONG):
            mine = self.speeds.get((who, prompt_tokens, concurrency))
            theirs = self.speeds.get((against, prompt_tokens, concurrency))
            if mine is None or theirs is None:
                continue
            goal = wanted if self._with_goals else None
            ratio = median([one / other for one, other in zip(mine, theirs, strict=True)])
            self.report.goal(
                f"{who} / {against}, {prompt_tokens} tokens, {concurrency} at once" + (f" >= {goal}" if goal else ""),
                f"{median(mine):.0f} / {median(theirs):.0f}, round by round {ratio:.3f}",
                None if goal is None else ratio >= goal,
            )


def entrants(names: Sequence[str], scratch: Path) -> list[Callable[[], AbstractContextManager[list[Contender]]]]:
    """Everyone who takes part when these engines do, each not yet started."""
    model = Path(os.environ["HEADRACE_TEST_MODEL"])
    bare: dict[str, list[Callable[[], AbstractContextManager[list[Contender]]]]] = {
        "openvino": [
            lambda: library(
                "OpenVINO pipeline",
                "offline_openvino.py",
                "HEADRACE_TEST_OPENVINO_PYTHON",
                Path(os.environ["HEADRACE_TEST_OPENVINO_MODEL"]),
                scratch,
            )
        ],
        "transformers": [
            partial(transformers_serve, model, scratch),
            partial(library, "model.generate", "offline_generate.py", "HEADRACE_TEST_ENGINE_PYTHON", model, scratch),
        ],
        "vllm": [partial(vllm_by_hand, model, scratch)],
    }
    return [start for name in names for start in (partial(ours, name, model, scratch), *bare[name])]


async def measure(
    bench: Bench, parts: Sequence[str], places: Collection[int], rounds: int | None, *, quick: bool, keep: bool
) -> None:
    """Every part that was asked for; each is printed and kept as it ends."""
    await bench.warm()
    for part in parts:
        every = (QUICK if quick else SCENARIOS).get(part, ())
        asked = [scenario for scenario in every if scenario.concurrency in places]
        report = await bench.run(part, [one._replace(rounds=rounds or one.rounds) for one in asked])
        report.finish(keep=keep)


def main() -> None:
    """Start everyone, measure, report."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default=",".join(ENGINES), help="which, separated by commas")
    parser.add_argument("--only", default=",".join(PARTS), help=f"which of {', '.join(PARTS)}")
    parser.add_argument("--at", default=PLACES, help="which concurrencies")
    parser.add_argument("--who", default="", help="which contenders, by name, with ; between; all if not given")
    parser.add_argument("--rounds", type=int, help="how often everyone's turn comes; else as the loads have it")
    parser.add_argument("--longest-s", type=float, default=LONGEST_TURN_S, help="the longest turn that is measured")
    parser.add_argument("--quick", action="store_true", help="one round of the small loads, to see that it works")
    arguments = parser.parse_args()
    engines, places = arguments.engines.split(","), {int(place) for place in arguments.at.split(",")}
    name = "engine-{}" if {*ENGINES} == {*engines} else "engine-{}-" + "-".join(sorted(engines))
    if arguments.at != PLACES:
        name += "-at-" + arguments.at.replace(",", "-")
    who = [wanted for wanted in arguments.who.split(";") if wanted]
    name += "".join("-" + wanted.replace(", ", "-").replace(" ", "-") for wanted in who)
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as scratch, contextlib.ExitStack() as stack:
        contenders = []
        for start in entrants(engines, Path(scratch)):
            contenders += stack.enter_context(start())
        unknown = {*who} - {one.name for one in contenders}
        if unknown:
            parser.error(f"{unknown} take no part; these do: {[one.name for one in contenders]}")
        contenders = [one for one in contenders if not who or one.name in who]
        bench = Bench(contenders, quick=arguments.quick, name=name, longest_s=arguments.longest_s)
        parts, quick = arguments.only.split(","), arguments.quick
        uvloop.run(measure(bench, parts, places, arguments.rounds, quick=quick, keep=not quick))


if __name__ == "__main__":
    main()
