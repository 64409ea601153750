"""Conversations that begin alike, replayed through the gateway to two real engines: who has the prompt in its cache?

Two of vLLM's own servers, one core each, with prefix caching and a KV cache that holds half of what is replayed: both
together can keep every conversation, neither alone can. The gateway is ours each time, and only its choice of a
replica differs: as it is, in turns, at random. Several conversations run at a time, each turn after the last one's
answer; a few system prompts are shared by all. Each run has words of its own, so that no run finds another's blocks;
runs alternate. Hits are vLLM's own count, in tokens; times are the client's.

Goal (issue 5): a higher prefix hit rate and an earlier first token than in turns and at random.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import signal
import sys
import tempfile
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import uvloop

from engine_client import Answer, Job, Prompts, Server, burst
from engine_contenders import CORES, ROOT, vllm_server
from report import Report, median, quantile

sys.path.insert(0, str(ROOT / "tests" / "unit"))

from gateway_serving import KEY, deployed, gateway_before

from headrace.contracts.openai.demand import Demand
from headrace.gateway import fleet

ENGINES, ROUNDS = 2, 3
SYSTEMS, SYSTEM_TOKENS = 3, 300
CONVERSATIONS, TURNS, AT_A_TIME = 24, 6, 12
QUESTION_TOKENS, REPLY_TOKENS, MAX_TOKENS = 120, 20, 16
THINK_S = 0.5
"""The longest pause before a question. Without any, conversations go in step, and turns come to the same replica."""

BLOCK_TOKENS, CACHE_TOKENS = 32, 12_000
"""Of each engine. All conversations at their ends are some 21,000 tokens."""

MAX_MODEL_LEN = 4096
_COUNTER = re.compile(r"^vllm:prefix_cache_(queries|hits)_total\{[^}]*\} (\S+)$", re.MULTILINE)


class Blind(fleet.Pool):
    """Chooses by what a request is no more than by what replicas have to do."""

    def assign(self, demand: Demand, *, but: Collection[fleet.Replica] = ()) -> fleet.Assignment | None:  # noqa: ARG002
        """One of them."""
        candidates = [replica for replica in self.replicas if replica not in but]
        return fleet.Assignment(self.choose(candidates), self.clock, prompt_tokens=0, output_tokens=0, on_trial=False)

    def choose(self, candidates: Sequence[fleet.Replica]) -> fleet.Replica:
        """One by chance."""
        return random.choice(candidates)


class InTurns(Blind):
    """Round robin."""

    _turns = itertools.count()

    def choose(self, candidates: Sequence[fleet.Replica]) -> fleet.Replica:
        """The next one in turn."""
        return candidates[next(self._turns) % len(candidates)]


POLICIES: dict[str, type[fleet.Pool]] = {"ours": fleet.Pool, "in turns": InTurns, "at random": Blind}


async def converse(target: Server, words: Prompts, pauses: random.Random, system: str) -> list[Answer]:
    """One conversation, turn after turn. The replies in its text are not the model's: only the length counts."""
    text, answers = system, []
    for _ in range(TURNS):
        await asyncio.sleep(pauses.uniform(0, THINK_S))
        text += f"\nUser: {words.text(QUESTION_TOKENS)}\nAssistant: "
        answers += (await burst(target, [Job(text, MAX_TOKENS)], 1)).answers
        text += words.text(REPLY_TOKENS)
    return answers


async def replay(target: Server, seed: int) -> list[Answer]:
    """All conversations, so many at a time."""
    words, pauses = Prompts(seed), random.Random(seed)
    systems = [words.text(SYSTEM_TOKENS) for _ in range(SYSTEMS)]
    waiting = [systems[number % SYSTEMS] for number in range(CONVERSATIONS)]
    answers: list[Answer] = []

    async def client() -> None:
        while waiting:
            answers.extend(await converse(target, words, pauses, waiting.pop()))

    await asyncio.gather(*(client() for _ in range(AT_A_TIME)))
    return answers


async def counted(engines: list[Server]) -> tuple[float, float]:
    """Tokens that the engines looked up in their caches so far, and those that they found there."""
    sums = {"queries": 0.0, "hits": 0.0}
    for engine in engines:
        transport = httpx.AsyncHTTPTransport(uds=engine.uds)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=30) as client:
            for name, value in _COUNTER.findall((await client.get("/metrics")).text):
                sums[name] += float(value)
    return sums["queries"], sums["hits"]


async def run(policy: str, engines: list[Server], seed: int, folder: Path) -> tuple[list[Answer], float]:
    """One replay through a gateway that chooses so; its answers and the share of prompt tokens found in caches."""
    usual, fleet.Pool = fleet.Pool, POLICIES[policy]  # type: ignore[misc] - the gateway below makes its pools of it
    try:
        model = deployed(*(f"unix:{engine.uds}" for engine in engines), max_model_len=MAX_MODEL_LEN)
        async with gateway_before(folder, model) as served:
            target = Server("my-endpoint", KEY, port=httpx.URL(served.url).port or 0)
            queries, hits = await counted(engines)
            answers = await replay(target, seed)
            queries_after, hits_after = await counted(engines)
    finally:
        fleet.Pool = usual  # type: ignore[misc]
    return answers, (hits_after - hits) / (queries_after - queries)


async def compare(report: Report, engines: list[Server], folder: Path) -> None:
    """All policies in turn, some rounds."""
    first_ms: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    rates: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    for number, policy in itertools.product(range(ROUNDS), POLICIES):
        seed = number * len(POLICIES) + list(POLICIES).index(policy)
        answers, rate = await run(policy, engines, seed, folder / f"{seed}")
        times_ms = [answer.first_s * 1e3 for answer in answers]
        first_ms[policy].append(median(times_ms))
        rates[policy].append(rate)
        report.row(policy, number + 1, len(answers), rate, median(times_ms), quantile(times_ms, 0.9))
    for policy in list(POLICIES)[1:]:
        more = median(rates["ours"]) - median(rates[policy])
        ratio = median(first_ms["ours"]) / median(first_ms[policy])
        report.goal(f"prefix hit rate above {policy}", f"{more:+.2f}", more > 0)
        report.goal(f"median time to first token below {policy}", f"{ratio:.2f} of it", ratio < 1)


def main() -> None:
    """Run it all and report."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    columns = ("replica chosen", "round", "requests", "prefix hit rate", "first token p50 ms", "p90 ms")
    report = Report("prefix", columns)
    model = Path(os.environ["HEADRACE_TEST_MODEL"])
    options = ("--enable-prefix-caching", "--block-size", str(BLOCK_TOKENS), "--max-model-len", str(MAX_MODEL_LEN))
    options += ("--num-gpu-blocks-override", str(CACHE_TOKENS // BLOCK_TOKENS))
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as scratch, ExitStack() as stack:
        engines = [Server("served", uds=f"{scratch}/{number}.sock") for number in range(ENGINES)]
        for number, engine in enumerate(engines):
            stack.enter_context(vllm_server(model, engine, [CORES[number % len(CORES)]], *options))
        uvloop.run(compare(report, engines, Path(scratch)))
    report.finish()


if __name__ == "__main__":
    main()
