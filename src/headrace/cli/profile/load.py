"""Requests alike, so many at a time, until what they take of a replica is known well enough."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec

from headrace.cli.client import LOOPBACK_PAST_PROXIES, error_in
from headrace.cli.contexts import Login
from headrace.resources.profiles import Point

LONGEST_S = 120.0
"""What a point takes at most; where not one request is whole by then, nothing is told of it."""

_SAMPLE_WORDS = 200
_P95 = 0.95


class TooSlow(Exception):
    """Not one request came to its end in time."""


class Replica:
    """The one replica of a deployed model, asked by its own path.

    Args:
        login: The server.
        path: Where the deployed model's completions are.
        model: What it is called in requests.
    """

    def __init__(self, login: Login, path: str, model: str) -> None:
        self._path = path
        self._model = model
        self._http = httpx.Client(
            base_url=login.url,
            headers={"Authorization": f"Bearer {login.key}"},
            timeout=httpx.Timeout(LONGEST_S, connect=10.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            mounts=dict(LOOPBACK_PAST_PROXIES),
        )
        self._words = random.Random()  # noqa: S311 - prompts that no replica has seen, also not of the last run
        self._words_per_token = 1.0
        self._tokens_per_word()

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def measure(self, prompt_tokens: int, output_tokens: int, concurrency: int, *, seconds: float) -> Point:
        """Run requests of these lengths for so many seconds, or until as many as at a time are whole.

        Raises:
            HeadraceError: The server refuses one.
            TooSlow: They take too long.
        """
        looking = _Looking(self, prompt_tokens, output_tokens, concurrency, seconds)
        return looking.point()

    def stream(self, prompt_tokens: int, output_tokens: int) -> Iterator[int]:
        """One request; yields 0 for each piece of its answer, and the number of the prompt's tokens at its end."""
        words = max(1, round(prompt_tokens * self._words_per_token))
        body = {**self._body(words, output_tokens), "stream": True, "stream_options": {"include_usage": True}}
        with self._http.stream("POST", self._path, json=body) as response:
            if response.status_code != httpx.codes.OK:
                raise error_in(response.status_code, response.read())
            for line in response.iter_lines():
                if not line.startswith("data: {"):
                    continue
                event = msgspec.json.decode(line[6:])
                if "error" in event:
                    raise error_in(httpx.codes.INTERNAL_SERVER_ERROR, line[6:].encode())
                yield from _told(event)

    def _tokens_per_word(self) -> None:
        """Ask once how the model's tokenizer takes such words, and have it warm."""
        answer = self._http.post(self._path, json=self._body(_SAMPLE_WORDS, 1))
        if answer.status_code != httpx.codes.OK:
            raise error_in(answer.status_code, answer.content)
        self._words_per_token = _SAMPLE_WORDS / max(1, answer.json()["usage"]["prompt_tokens"])

    def _body(self, words: int, output_tokens: int) -> dict[str, Any]:
        text = " ".join(str(self._words.randrange(10, 100)) for _ in range(words))
        asked = {"max_tokens": output_tokens, "ignore_eos": True, "temperature": 0}
        return {"model": self._model, "prompt": text, **asked}


def _told(event: dict[str, Any]) -> Iterator[int]:
    if event.get("choices"):
        yield 0
    if usage := event.get("usage"):
        yield int(usage["prompt_tokens"])


class _Looking:
    """One point: workers that ask one request after another, and what they see once all of them are at it."""

    def __init__(
        self, replica: Replica, prompt_tokens: int, output_tokens: int, concurrency: int, seconds: float
    ) -> None:
        self._replica = replica
        self._prompt_tokens, self._output_tokens = prompt_tokens, output_tokens
        self._concurrency = concurrency
        self._seconds = seconds
        self._stop = threading.Event()
        self._busy = threading.Barrier(concurrency + 1, timeout=LONGEST_S)
        self._changed = threading.Condition()
        self._pieces = 0
        self._lengths: list[int] = []  # of whole answers, in pieces: an engine may send two tokens in one
        self._prompts: list[int] = []
        self._firsts: list[float] = []
        self._gaps: list[float] = []

    def point(self) -> Point:
        """Measure it."""
        with ThreadPoolExecutor(self._concurrency) as workers:
            working = [workers.submit(self._work, number) for number in range(self._concurrency)]
            try:
                self._busy.wait()
                began = time.perf_counter()
                enough = self._wait(began)
                wall_s = time.perf_counter() - began
                pieces = self._pieces
            except threading.BrokenBarrierError:
                enough, wall_s, pieces = False, 0.0, 0
            finally:
                self._stop.set()
                self._busy.abort()
            for each in working:
                each.result()
        if not enough:
            raise TooSlow
        return Point(
            prompt_tokens=round(sum(self._prompts) / len(self._prompts)),
            output_tokens=self._output_tokens,
            concurrency=self._concurrency,
            requests=pieces * len(self._lengths) / sum(self._lengths),
            wall_s=wall_s,
            first_s=_quantile(self._firsts),
            gap_s=_quantile(self._gaps),
        )

    def _wait(self, began: float) -> bool:
        """Until there is enough to tell; whether there is."""
        with self._changed:
            enough = self._changed.wait_for(
                lambda: len(self._lengths) >= self._concurrency or self._stop.is_set(), LONGEST_S
            )
        self._stop.wait(max(0.0, began + self._seconds - time.perf_counter()))
        return enough

    def _work(self, number: int) -> None:
        try:
            # The first answers have different lengths, so that those that follow do not begin at the same time.
            self._ask(max(1, self._output_tokens * (number + 1) // self._concurrency), counted=False)
            self._busy.wait()
            while not self._stop.is_set():
                self._ask(self._output_tokens, counted=True)
        except threading.BrokenBarrierError:
            return
        except BaseException:
            self._stop.set()
            self._busy.abort()
            with self._changed:
                self._changed.notify_all()
            raise

    def _ask(self, output_tokens: int, *, counted: bool) -> None:
        last = time.perf_counter()
        pieces = 0
        for prompt_tokens in self._replica.stream(self._prompt_tokens, output_tokens):
            if self._stop.is_set():
                return
            if not counted:
                continue
            now = time.perf_counter()
            with self._changed:
                if prompt_tokens:
                    self._prompts.append(prompt_tokens)
                    self._lengths.append(pieces)
                    self._changed.notify_all()
                else:
                    (self._gaps if pieces else self._firsts).append(now - last)
                    self._pieces += 1
                    pieces += 1
            last = now


def _quantile(values: list[float]) -> float:
    """The 95th percentile; 0 of nothing."""
    return sorted(values)[min(len(values) - 1, int(_P95 * len(values)))] if values else 0.0
