"""Requests at a steady rate, every second one a stream, each sent once and told as its client lived it.

The rate does not depend on the answers: what is slow piles up here as it would for the server's users.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import httpx

from headrace.cli.client import LOOPBACK_PAST_PROXIES
from headrace.cli.contexts import Login
from headrace.cli.drill.outcomes import Outcome, Reading, Sample, of_answer

CONNECT_TIMEOUT_S = 10.0
"""As long as OpenAI's clients wait for a connection, and longer than a gateway takes to be replaced."""


class Requester:
    """Sends one request at a time, from as many threads as call it, over connections that are kept.

    Args:
        login: The server.
        path: Where its answers come from.
        body: OpenAI's request, without what makes it a stream.
        deadline_s: An answer that is not whole by then hangs, and is lost.
    """

    def __init__(self, login: Login, path: str, body: dict[str, Any], *, deadline_s: float) -> None:
        self._path = path
        self._body = body
        self._deadline_s = deadline_s
        self._http = httpx.Client(
            base_url=login.url,
            headers={"Authorization": f"Bearer {login.key}"},
            timeout=httpx.Timeout(deadline_s, connect=min(CONNECT_TIMEOUT_S, deadline_s)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            mounts=dict(LOOPBACK_PAST_PROXIES),
        )

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def send(self, *, stream: bool, begins: Callable[[], None]) -> Sample:
        """One request, and what became of it. ``begins`` is called when a stream's first piece is there."""
        sent = time.perf_counter()
        reading, waits = Reading(), [0.0]
        try:
            with self._http.stream("POST", self._path, json={**self._body, "stream": stream}) as response:
                if not stream or response.status_code != 200:
                    outcome, reason = of_answer(response.status_code, response.read())
                    waits.append(time.perf_counter() - sent)
                else:
                    outcome, reason = self._read(response, reading, sent, waits, begins)
        except httpx.TimeoutException as error:
            outcome, reason = Outcome.LOST, f"hung: {type(error).__name__} after {time.perf_counter() - sent:.1f} s"
        except httpx.HTTPError as error:
            broken_by = f"{type(error).__name__}: {error}"
            outcome, reason = reading.end(broken_by) if reading.began else (Outcome.LOST, broken_by)
        return Sample(stream=stream, outcome=outcome, waited_s=max(waits), reason=reason)

    def _read(
        self, response: httpx.Response, reading: Reading, sent: float, waits: list[float], begins: Callable[[], None]
    ) -> tuple[Outcome, str]:
        last = sent
        for line in response.iter_lines():
            if not reading.take(line):
                continue
            now = time.perf_counter()
            waits.append(now - last)
            last = now
            if len(waits) == 2:  # the zero that it began with, and this first one
                begins()
            if now - sent > self._deadline_s:
                return Outcome.LOST, f"hung: not whole after {self._deadline_s:g} s"
        return reading.end()


class Load:
    """Requests at a steady rate while its ``with`` lasts; leaving it waits for the last of them.

    Args:
        requester: Sends them.
        rate_per_s: How many begin in a second.

    Attributes:
        samples: What became of those that have ended.
    """

    def __init__(self, requester: Requester, *, rate_per_s: float) -> None:
        self.samples: list[Sample] = []
        self._requester = requester
        self._rate_per_s = rate_per_s
        self._stop = threading.Event()
        self._pacing = threading.Thread(target=self._pace, daemon=True)
        self._sending: list[threading.Thread] = []
        self._streams_begun = 0
        self._stream_began = threading.Condition()

    def __enter__(self) -> Self:
        self._pacing.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._stop.set()
        if kind is not None:  # whoever is interrupted does not wait for answers that nobody counts
            return
        self._pacing.join()
        for thread in self._sending:
            thread.join()
        assert len(self.samples) == len(self._sending), "each request is told of, or this program has a defect"

    def await_stream(self, timeout_s: float) -> bool:
        """Wait for a stream's first piece, so that what happens next happens in the middle of one."""
        with self._stream_began:
            before = self._streams_begun
            return self._stream_began.wait_for(lambda: self._streams_begun > before, timeout_s)

    def _pace(self) -> None:
        began = time.monotonic()
        for number in itertools.count():
            if self._stop.wait(max(0.0, began + number / self._rate_per_s - time.monotonic())):
                return
            thread = threading.Thread(target=self._send, kwargs={"stream": number % 2 == 0}, daemon=True)
            self._sending.append(thread)
            thread.start()

    def _send(self, *, stream: bool) -> None:
        self.samples.append(self._requester.send(stream=stream, begins=self._begins))

    def _begins(self) -> None:
        with self._stream_began:
            self._streams_begun += 1
            self._stream_began.notify_all()
