"""Ranges of objects over plain HTTP, piece by piece into one buffer: the drivers take three to six times the processor.

Whatever a plain request is refused is left to the driver, which knows its store: see `Refused`.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

import urllib3

from headrace.storage.located import Located

PIECE_BYTES = 256 * 1024
"""What is read, digested and written at once: it stays in a core's own cache meanwhile."""

KEPT_S = 300.0
"""For how long an object is asked for where it was found: the Hub counts how often it is asked where one is."""

CONNECTIONS = 16

_HOPS = 5
_TOTAL = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")
_LATER = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


class Refused(Exception):
    """A plain request does not get this range, and would not later either: the driver has to ask."""


class Later(ConnectionError):
    """The store asks for patience.

    Attributes:
        status: What it answered.
        after_s: How long, where it says so; else 0.
    """

    def __init__(self, status: int, after_s: float) -> None:
        super().__init__(f"The store answered {status}.")
        self.status = status
        self.after_s = after_s


class PlainRanges:
    """A client for the objects of one store; used by several threads.

    Args:
        locate: Where an object is, as `headrace.storage.located.locate`.
    """

    def __init__(self, locate: Callable[[str], Located | None]) -> None:
        self._locate = locate
        self._pool = urllib3.PoolManager(maxsize=CONNECTIONS, retries=False)
        self._kept: dict[str, tuple[Located, float]] = {}
        self._lock = threading.Lock()

    def pieces(self, path: str, start: int, end: int, timeout_s: float) -> Iterator[memoryview]:
        """The bytes from ``start`` to ``end`` of an object; fewer only where it ends.

        Args:
            path: As the driver spells it.
            start: The first byte.
            end: Behind the last one.
            timeout_s: For all of it.

        Yields:
            A piece, good until the next one is asked for.

        Raises:
            ConnectionError: The connection broke; what was given is right.
            Refused: Before any byte.
            TimeoutError: It took too long.
        """
        deadline = time.monotonic() + timeout_s
        located, kept = self._located(path)
        try:
            with self._answer(located, f"bytes={start}-{end - 1}", timeout_s) as (answer, at):
                wanted = min(end, _total_bytes(answer, start)) - start
                if not kept:
                    self._keep(path, at)
                buffer = memoryview(bytearray(min(PIECE_BYTES, max(0, wanted))))
                while wanted > 0:
                    if not (count := answer.readinto(buffer[: min(len(buffer), wanted)])):
                        raise ConnectionError(f"It ended {wanted:,} bytes early.")
                    wanted -= count
                    yield buffer[:count]
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"A range took more than {timeout_s:g} s.")
        except Refused:
            self._forget(path)
            if kept:  # that right may have ended meanwhile
                raise ConnectionError("The store refuses what it gave before.") from None
            raise
        except OSError:
            self._forget(path)
            raise

    @contextmanager
    def _answer(
        self, located: Located, asked: str, timeout_s: float
    ) -> Iterator[tuple[urllib3.BaseHTTPResponse, Located]]:
        """An answer, and where it came from; its connection is used again only if all of it was read."""
        with _untold():
            answer, at = self._ask(located, asked, timeout_s)
        try:
            with _untold():
                yield answer, at
            if answer.length_remaining == 0:
                answer.release_conn()
        finally:
            answer.close()

    def _ask(self, located: Located, asked: str, timeout_s: float) -> tuple[urllib3.BaseHTTPResponse, Located]:
        """Follow redirects here: urllib3 would log where they lead."""
        for _ in range(_HOPS):
            if _behind_proxy(located.url):
                raise Refused("A proxy stands between.")
            answer = self._pool.request(
                "GET",
                located.url,
                headers={"Accept-Encoding": "identity", **located.headers, "Range": asked},
                preload_content=False,
                decode_content=False,
                redirect=False,
                timeout=timeout_s,
            )
            if not (location := answer.get_redirect_location()):
                return answer, located
            answer.drain_conn()
            answer.release_conn()
            located = located.moved(location)
        raise Refused("It leads from one place to the next.")

    def _located(self, path: str) -> tuple[Located, bool]:
        """Where it is, and whether that was known."""
        with self._lock:
            found, until = self._kept.get(path, (None, 0.0))
        if found and time.monotonic() < until:
            return found, True
        try:
            located = self._locate(path)
        except Exception as error:  # drivers have exceptions of their own; the driver will say it in its own words
            raise Refused(f"Its driver does not tell where: {type(error).__name__}.") from None
        if located is None:
            raise Refused("Only its driver can ask for it.")
        return located, False

    def _keep(self, path: str, located: Located) -> None:
        with self._lock:
            self._kept[path] = located, time.monotonic() + KEPT_S

    def _forget(self, path: str) -> None:
        with self._lock:
            self._kept.pop(path, None)


def _total_bytes(answer: urllib3.BaseHTTPResponse, start: int) -> int:
    """The object's length, from an answer that has a range of it.

    Raises:
        Later: The store asks for patience.
        Refused: It is no such answer.
    """
    if answer.status in _LATER:
        after = answer.headers.get("Retry-After", "")
        raise Later(answer.status, float(after) if after.isdigit() else 0.0)
    total = _TOTAL.match(answer.headers.get("Content-Range", ""))
    if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return int(total[1]) if total else start
    if answer.status != HTTPStatus.PARTIAL_CONTENT or not total or "Content-Encoding" in answer.headers:
        raise Refused(f"The store answered {answer.status}.")
    return int(total[1])


@contextmanager
def _untold() -> Iterator[None]:
    """The client's errors as the system's, without the address: that may hold the right to read."""
    try:
        yield
    except urllib3.exceptions.SSLError as error:
        if any(isinstance(reason, ssl.SSLCertVerificationError) for reason in error.args):
            raise Refused("The store's certificate is not known here.") from None
        raise ConnectionError("TLS broke.") from None
    except urllib3.exceptions.TimeoutError as error:
        raise TimeoutError(type(error).__name__) from None
    except urllib3.exceptions.HTTPError as error:
        raise ConnectionError(f"The connection broke: {type(error).__name__}.") from None


def _behind_proxy(url: str) -> bool:
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    given = proxies.get(parts.scheme) or proxies.get("all")
    return bool(given) and not urllib.request.proxy_bypass(parts.netloc)
