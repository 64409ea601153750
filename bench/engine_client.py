"""The load of `bench/engine.py`: streamed completions whose chunks are stamped as they come and read afterwards.

Client and engine share two cores, so the client does nothing while it waits: one `asyncio.Protocol` per request keeps
the bytes with their times, and only once a burst is over are they parsed. Every server gets the same client.
"""

from __future__ import annotations

import asyncio
import csv
import itertools
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from report import quantile

DATA = Path(__file__).resolve().parent / "data"
TRACE = DATA / "azure-llm-inference-2023-conv-200.csv"
WORDS = (DATA / "words.txt").read_text().split()
REQUEST_TIMEOUT_S = 900
REPLAY_TIMEOUT_S = 300
"""For a request of a replay: what has not ended by then is lost to its user, and counts as failed."""


class Job(NamedTuple):
    """One request.

    Attributes:
        prompt: Its text.
        max_tokens: Tokens asked for, whatever the model would say.
        at_s: When it is sent, from the beginning of the burst; only `replay` reads it.
    """

    prompt: str
    max_tokens: int
    at_s: float = 0.0
    drawn: bool = False


@dataclass(frozen=True)
class Server:
    """An OpenAI-compatible server on a unix socket or a loopback port.

    Attributes:
        to_the_end: It takes ``ignore_eos``; the answers of one that does not are as long as the model likes.
    """

    model: str
    key: str = ""
    uds: str = ""
    port: int = 0
    to_the_end: bool = True

    def request(self, job: Job) -> bytes:
        """Head and body of a streamed completion that cannot end early."""
        fields = {"prompt": job.prompt, "max_tokens": job.max_tokens} | ({} if job.drawn else {"temperature": 0})
        if self.to_the_end:
            fields["ignore_eos"] = True
        stream = {"stream": True, "stream_options": {"include_usage": True}}
        body = json.dumps({"model": self.model} | fields | stream).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Answer(NamedTuple):
    """One answer as it came: seconds to its first token, between the following ones, and how many tokens."""

    first_s: float
    gaps_s: list[float]
    tokens: int


@dataclass
class Measured:
    """What a burst came to.

    Attributes:
        wall_s: From the first request to the last answer's end.
        answers: Each as it came.
        offline_tokens: Where there were no answers to look at, because a library was called: the tokens it made.
        failed: Requests that were refused, or whose answers broke off.
    """

    wall_s: float
    answers: list[Answer] = field(default_factory=list)
    offline_tokens: int = 0
    failed: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of all answers."""
        return self.offline_tokens + sum(answer.tokens for answer in self.answers)

    @property
    def tokens_per_s(self) -> float:
        """Tokens of all answers by the time it all took."""
        return self.tokens / self.wall_s

    def first_ms(self, share: float) -> float:
        """A quantile of the times to the first token."""
        return quantile([answer.first_s for answer in self.answers], share) * 1e3

    def gap_ms(self, share: float) -> float:
        """A quantile of the times between one token and the next, over all answers."""
        gaps = [gap for answer in self.answers for gap in answer.gaps_s]
        return quantile(gaps, share) * 1e3 if gaps else float("nan")


class _Exchange(asyncio.Protocol):
    """One request; keeps what comes and when."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.began_s = 0.0
        self.pieces: list[tuple[float, bytes]] = []
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.began_s = time.perf_counter()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.perf_counter(), data))

    def connection_lost(self, _: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    @property
    def failed(self) -> bool:
        """Whether an error came, as a status or in the stream, instead of a whole answer."""
        whole = b"".join(data for _, data in self.pieces)
        ended = b"data: [DONE]" in whole or b'"finish_reason":"' in whole  # `transformers serve` says no [DONE]
        return b" 200 " not in whole.split(b"\r\n", 1)[0] or b'data: {"error"' in whole or not ended

    def answer(self) -> Answer:
        """Read what came."""
        whole = b"".join(data for _, data in self.pieces)
        status = whole.split(b"\r\n", 1)[0]
        assert b" 200 " in status, whole[:2000]
        stamps: list[float] = []
        counted = chunks = 0
        rest = b""
        for at_s, data in self.pieces:
            *lines, rest = (rest + data).split(b"\n")
            texts = 0
            for line in lines:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                assert "error" not in event, event
                texts += sum(bool(choice.get("text")) for choice in event.get("choices", ()))
                counted = (event.get("usage") or {}).get("completion_tokens", counted)
            chunks += texts
            if texts:
                stamps.append(at_s)
        assert stamps, whole[:2000]
        gaps = [later - earlier for earlier, later in itertools.pairwise(stamps)]
        return Answer(stamps[0] - self.began_s, gaps, counted or chunks)


async def _ask(server: Server, job: Job, timeout_s: float = REQUEST_TIMEOUT_S) -> _Exchange:
    loop = asyncio.get_running_loop()
    request = server.request(job)
    if server.uds:
        transport, exchange = await loop.create_unix_connection(lambda: _Exchange(request), server.uds)
    else:
        transport, exchange = await loop.create_connection(lambda: _Exchange(request), "127.0.0.1", server.port)
    try:
        async with asyncio.timeout(timeout_s):
            await exchange.ended
    finally:
        transport.close()
    return exchange


async def burst(server: Server, jobs: Sequence[Job], concurrency: int) -> Measured:
    """All jobs, so many at a time: as soon as one is done the next one comes."""
    waiting = list(reversed(jobs))
    done: list[_Exchange] = []

    async def client() -> None:
        while waiting:
            done.append(await _ask(server, waiting.pop()))

    began_s = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(min(concurrency, len(jobs)))))
    wall_s = time.perf_counter() - began_s
    answers = [exchange.answer() for exchange in done if not exchange.failed]
    assert answers, done[0].pieces  # a server that only refuses was not measured
    return Measured(wall_s, answers, failed=len(done) - len(answers))


async def replay(server: Server, jobs: Sequence[Job]) -> Measured:
    """Every job at its own time, however many are under way: who is asked too much may say so, or time out."""
    began_s = time.perf_counter()

    async def client(job: Job) -> _Exchange | None:
        await asyncio.sleep(job.at_s - (time.perf_counter() - began_s))
        try:
            return await _ask(server, job, REPLAY_TIMEOUT_S)
        except TimeoutError:
            return None

    done = await asyncio.gather(*(client(job) for job in jobs))
    wall_s = time.perf_counter() - began_s
    answers = [exchange.answer() for exchange in done if exchange is not None and not exchange.failed]
    return Measured(wall_s, answers, failed=len(done) - len(answers))


async def disturbed(server: Server, quiet: Sequence[Job], arriving: Sequence[Job], every_s: float) -> Measured:
    """The quiet jobs all at once, while the arriving ones come one by one; only the quiet ones are reported."""
    arrivals = asyncio.create_task(
        replay(server, [job._replace(at_s=every_s * (place + 1)) for place, job in enumerate(arriving)])
    )
    measured = await burst(server, quiet, len(quiet))
    arrivals.cancel()
    await asyncio.gather(arrivals, return_exceptions=True)
    return measured


class Prompts:
    """Prompts of random words: no two begin alike, so that no cache of prefixes helps anybody.

    Args:
        seed: The same seed gives the same prompts.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def text(self, tokens: int) -> str:
        """About so many tokens: the words are short, common ones, a token each for most tokenizers of English."""
        return " ".join(self._rng.choices(WORDS, k=tokens))

    def jobs(self, count: int, prompt_tokens: int, max_tokens: int, *, drawn: bool = False) -> list[Job]:
        """Requests of one size."""
        return [Job(self.text(prompt_tokens), max_tokens, drawn=drawn) for _ in range(count)]

    def trace(self, count: int, stretch: float) -> list[Job]:
        """The first requests of the trace, their times stretched; see ``bench/data/README.md`` for whose it is."""
        with TRACE.open(newline="") as file:
            rows = list(csv.DictReader(file))[:count]
        times = [datetime.fromisoformat(row["TIMESTAMP"][:26]) for row in rows]
        return [
            Job(
                self.text(int(row["ContextTokens"])),
                int(row["GeneratedTokens"]),
                (at - times[0]).total_seconds() * stretch,
            )
            for row, at in zip(rows, times, strict=True)
        ]
