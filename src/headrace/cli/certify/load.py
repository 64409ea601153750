"""Requests that come by chance at a rate, whether the ones before were answered or not: an open loop, bounded."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import msgspec

from headrace.capacity.measuring import sample_words
from headrace.cli.certify.figures import Asked
from headrace.cli.client import LOOPBACK_PAST_PROXIES, error_in
from headrace.cli.contexts import Login
from headrace.resources.errors import EngineFailed

LONGEST_S = 300.0
"""How long a request may take at most."""

MOST_AT_ONCE = 256
"""Requests of one tenant under way; one that would be more is not sent, and counts as `NOT_SENT`."""

NOT_SENT = "NOT_SENT"
NO_ANSWER = "NO_ANSWER"
NO_USAGE = "NO_USAGE"
"""An answer, of which nobody can tell how much work it was."""
UNFINISHED = "UNFINISHED"
"""What was under way when the time was over is waited for; this is what did not come to its end then either."""

Lengths = Callable[[random.Random], tuple[int, int]]
"""Draws one request's tokens: of the prompt, and of the answer."""


class Tenant:
    """One that asks.

    Args:
        login: The server.
        key: The key that it asks with.
        path: Its deployed model's completions.
        rate: Requests a second, on average.
        lengths: Of its requests.
        streams: Whether its answers are streamed, so that latencies can be told.
        seed: Of its arrivals and lengths.
        context_tokens: The longest sequence that the model takes; 0 where that is not known.

    Attributes:
        asked: Its requests until now.
        streams: As it was given.
    """

    def __init__(
        self,
        login: Login,
        key: str,
        path: str,
        *,
        rate: float,
        lengths: Lengths,
        streams: bool,
        seed: int,
        context_tokens: int = 0,
    ) -> None:
        self._path = path
        self._sample_words = sample_words(context_tokens)
        self._rate = rate
        self._lengths = lengths
        self.streams = streams
        self._random = random.Random(seed)  # noqa: S311 - arrivals, no secret
        self._words = random.Random()  # noqa: S311 - prompts that no replica has seen, also not of the last run
        self._words_per_token = 1.0
        self._under_way: set[asyncio.Task[None]] = set()
        self.asked: list[Asked] = []
        self._http = httpx.AsyncClient(
            base_url=login.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(LONGEST_S, connect=10.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            mounts=dict(LOOPBACK_PAST_PROXIES),
            verify=ssl.create_default_context(cadata=login.ca) if login.ca else True,
        )

    async def prepare(self) -> float:
        """Ask once, to know how the model's tokenizer takes such words; returns the seconds that took.

        Raises:
            HeadraceError: The server refuses it.
        """
        began = time.perf_counter()
        answer = await self._http.post(self._path, json=self._body(self._sample_words, 1))
        if answer.status_code != httpx.codes.OK:
            raise error_in(answer.status_code, answer.content)
        prompt_tokens = _prompt_tokens(answer)
        if prompt_tokens is None:
            raise EngineFailed(
                "The answer does not tell what the prompt came to in tokens.",
                evidence="It has no `usage` with `prompt_tokens`, which requests of a stated length are made by.",
                fix="Have the server behind the endpoint tell its usage, as OpenAI's API does.",
            )
        self._words_per_token = self._sample_words / max(1, prompt_tokens)
        return time.perf_counter() - began

    async def ask(self, seconds: float, over: asyncio.Event) -> None:
        """Send requests for so long, or until it is over."""
        began, due = time.perf_counter(), 0.0
        while self._rate > 0.0 and not over.is_set():
            due += self._random.expovariate(self._rate)
            if due >= seconds:
                break
            if await _waited(over, began + due - time.perf_counter()):
                return
            prompt_tokens, output_tokens = self._lengths(self._random)
            one = Asked(at_s=due, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
            self.asked.append(one)
            if len(self._under_way) >= MOST_AT_ONCE:
                one.code = NOT_SENT
                continue
            task = asyncio.create_task(self._ask(one))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        await _waited(over, began + seconds - time.perf_counter())

    async def finish(self, timeout_s: float) -> None:
        """Wait for what is under way, and hang up on the rest."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout_s)
        left = list(self._under_way)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._http.aclose()

    async def _ask(self, one: Asked) -> None:
        words = max(1, round(one.prompt_tokens * self._words_per_token))
        body = self._body(words, one.output_tokens)
        began = time.perf_counter()
        try:
            await (self._stream(one, body, began) if self.streams else self._whole(one, body))
        except httpx.HTTPError:
            one.code = NO_ANSWER
        except asyncio.CancelledError:
            one.code = UNFINISHED
            raise
        finally:
            one.wall_s = time.perf_counter() - began

    async def _whole(self, one: Asked, body: dict[str, Any]) -> None:
        answer = await self._http.post(self._path, json=body)
        if answer.status_code != httpx.codes.OK:
            one.code = error_in(answer.status_code, answer.content).code
            return
        prompt_tokens = _prompt_tokens(answer)
        if prompt_tokens is None:
            one.code = NO_USAGE
            return
        one.prompt_tokens = prompt_tokens

    async def _stream(self, one: Asked, body: dict[str, Any], began: float) -> None:
        streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
        async with self._http.stream("POST", self._path, json=streamed) as response:
            if response.status_code != httpx.codes.OK:
                one.code = error_in(response.status_code, await response.aread()).code
                return
            one.code = NO_ANSWER
            last = began
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    one.code = ""
                if not line.startswith("data: {"):
                    continue
                event = msgspec.json.decode(line[6:])
                if "error" in event:
                    one.code = error_in(httpx.codes.INTERNAL_SERVER_ERROR, line[6:].encode()).code
                    return
                last = _note(one, event, began, last)

    def _body(self, words: int, output_tokens: int) -> dict[str, Any]:
        text = " ".join(str(self._words.randrange(10, 100)) for _ in range(words))
        return {"prompt": text, "max_tokens": output_tokens, "ignore_eos": True, "temperature": 0}


async def drive(tenants: Sequence[Tenant], seconds: float, over: asyncio.Event) -> tuple[float, float]:
    """Have all of them ask; returns how long that was, and the cores that it took of this process."""
    began, cpu_began = time.perf_counter(), time.process_time()
    await asyncio.gather(*(tenant.ask(seconds, over) for tenant in tenants))
    took = time.perf_counter() - began
    own_cpu = (time.process_time() - cpu_began) / took if took else 0.0
    await asyncio.gather(*(tenant.finish(0.0 if over.is_set() else LONGEST_S) for tenant in tenants))
    return took, own_cpu


def _prompt_tokens(answer: httpx.Response) -> int | None:
    """What an answer tells of its prompt; None where it tells nothing that can be read."""
    try:
        return int(answer.json()["usage"]["prompt_tokens"])
    except (ValueError, KeyError, TypeError):
        return None


def _note(one: Asked, event: dict[str, Any], began: float, last: float) -> float:
    """Take account of one piece of a stream; returns when the newest piece of the answer came."""
    if event.get("usage"):
        one.prompt_tokens = int(event["usage"]["prompt_tokens"])
    if not event.get("choices"):
        return last
    now = time.perf_counter()
    if one.first_s:
        one.gaps_s.append(now - last)
    else:
        one.first_s = now - began
    return now


async def _waited(over: asyncio.Event, seconds: float) -> bool:
    """Wait so long; whether it was over before."""
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            await over.wait()
    except TimeoutError:
        return False
    return True
