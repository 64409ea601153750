"""The HTTP client of the commands: one address, one key, and every failure as a `HeadraceError`."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from headrace.cli.contexts import Login, local_context
from headrace.resources.errors import (
    CODES,
    BadField,
    EngineBrokeOff,
    Failure,
    HeadraceError,
    InternalError,
    NotReady,
    PermissionDenied,
    QueueFull,
    RoleMissing,
    ServerUnreachable,
    Unauthenticated,
    UnknownKey,
    UnknownPath,
    error_from,
)

_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_ANSWER_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
"""Seconds; a model may think for long before its first byte, and the gateway has a deadline of its own."""

LOOPBACK_PAST_PROXIES = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}

_BY_STATUS: dict[int, type[HeadraceError]] = {
    400: BadField,
    401: UnknownKey,
    403: RoleMissing,
    404: UnknownPath,
    429: QueueFull,
    503: NotReady,
}
"""What an answer without a code of ours means: something between us and the server answered."""


class Client:
    """Talks to one server.

    Args:
        login: Its address and the key.
        transport: Another way to it than TCP.
        timeout_s: How long to wait for any answer; else long for all, and longer for those of models.
    """

    def __init__(
        self, login: Login, *, transport: httpx.BaseTransport | None = None, timeout_s: float | None = None
    ) -> None:
        self.login = login
        self._timeout = _TIMEOUT if timeout_s is None else httpx.Timeout(timeout_s)
        self._http = httpx.Client(
            base_url=login.url,
            headers={"Authorization": f"Bearer {login.key}"} if login.key else {},
            timeout=self._timeout,
            mounts=dict(LOOPBACK_PAST_PROXIES),
            transport=transport,
            verify=ssl.create_default_context(cadata=login.ca) if login.ca else True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int) -> Any:
        """The JSON at a path.

        Raises:
            HeadraceError: Whatever the server says, or `ServerUnreachable`.
        """
        return self._call("GET", path, query=query)

    def post(self, path: str, body: Any = None, *, raw: bytes | None = None, slow: bool = False) -> Any:
        """The JSON that a POST is answered with; ``raw`` is a body sent as it is, ``slow`` one that a model answers."""
        return self._call("POST", path, body=body, raw=raw, timeout=_ANSWER_TIMEOUT if slow else None)

    def put(self, path: str, body: Any) -> Any:
        """The JSON that a PUT is answered with."""
        return self._call("PUT", path, body=body)

    def patch(self, path: str, body: Any, **query: str | int) -> Any:
        """The JSON that a PATCH is answered with."""
        return self._call("PATCH", path, body=body, query=query)

    def delete(self, path: str) -> Any:
        """The JSON that a DELETE is answered with."""
        return self._call("DELETE", path)

    def pages(self, path: str, field: str, **query: str | int) -> list[dict[str, Any]]:
        """All items of a list that comes in pages (``nextPageToken``)."""
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            answer = self.get(path, **query, **({"pageToken": token} if token else {}))
            found += answer.get(field) or []
            token = answer.get("nextPageToken") or ""
            if not token:
                return found

    @contextmanager
    def events(self, path: str, body: Any) -> Iterator[Iterator[Any]]:
        """The JSON events of a streamed answer, as they come. Leaving the `with` early hangs up.

        Raises:
            HeadraceError: Whatever the server says, before the stream or in it.
            EngineBrokeOff: The stream ended without ``[DONE]``.
        """
        try:
            with self._http.stream("POST", path, json=body, timeout=_ANSWER_TIMEOUT) as response:
                if response.status_code >= 400:
                    raise self._refused(response.status_code, response.read())
                yield self._parsed(response)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _parsed(self, response: httpx.Response) -> Iterator[Any]:
        try:
            for line in response.iter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                event = msgspec.json.decode(data)
                if isinstance(event, dict) and event.get("error"):
                    raise error_in(503, data.encode())
                yield event
        except (httpx.RemoteProtocolError, httpx.ReadError) as error:
            raise EngineBrokeOff("The connection broke in the middle of the answer.", evidence=str(error)) from error
        raise EngineBrokeOff(
            "The answer ended before its end was announced.",
            evidence="The stream closed without data: [DONE].",
            fix="Send the request again; `headrace status` shows the last error.",
        )

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str | int] | None = None,
        body: Any = None,
        raw: bytes | None = None,
        timeout: httpx.Timeout | None = None,
    ) -> Any:
        content = raw if raw is not None else None if body is None else msgspec.json.encode(body)
        headers = {} if content is None else {"Content-Type": "application/json"}
        try:
            response = self._http.request(
                method, path, params=query or None, content=content, headers=headers, timeout=timeout or self._timeout
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        if response.status_code >= 400:
            raise self._refused(response.status_code, response.content)
        try:
            return msgspec.json.decode(response.content) if response.content else None
        except msgspec.DecodeError as error:
            raise self._unreachable(error) from error

    def _refused(self, status: int, body: bytes) -> HeadraceError:
        """The error of an answer; where the key is what it is about, with where that came from."""
        error = error_in(status, body)
        if isinstance(error, Unauthenticated | PermissionDenied) and self.login.key_origin:
            whose = f"The key is that of {self.login.key_origin}; `headrace contexts` lists the logins."
            return error_from(msgspec.structs.replace(error.failure, evidence=f"{error.evidence} {whose}".lstrip()))
        return error

    def _unreachable(self, error: Exception) -> ServerUnreachable:
        return ServerUnreachable(
            f"Cannot talk to a Headrace server at {self.login.url}.",
            evidence=f"{type(error).__name__}: {error}. The address comes from {self.login.origin}.",
            fix=_trust(str(error), self.login.url)
            or self._another_server()
            or "Start it (`headrace serve`), or say where it is: `headrace login URL`.",
        )

    def _another_server(self) -> str:
        local = local_context()
        if local is None or local.url.rstrip("/") == self.login.url:
            return ""
        return f"Another server runs on this machine: add `--url {local.url}` to talk to that one."


def _trust(problem: str, url: str) -> str:
    """What to do about a certificate that was not believed; empty if that is not the problem."""
    if "CERTIFICATE_VERIFY_FAILED" not in problem:
        return ""
    if "certificate is not valid for" in problem:
        return "Call it by a name that is in its certificate; or start it with `headrace serve --tls-name NAME`."
    return (
        "If its certificate is of its own authority: on its machine `headrace ca export FILE`, here `headrace login "
        f"{url} --ca-file FILE`."
    )


def error_in(status: int, body: bytes) -> HeadraceError:
    """The error that an HTTP answer carries, in Google's shape or OpenAI's, or in none that is known."""
    try:
        parsed = msgspec.json.decode(body)
    except msgspec.DecodeError:
        parsed = None
    error = parsed.get("error") if isinstance(parsed, dict) else None
    if isinstance(error, dict):
        failure = _from_google(error) or _from_openai(error)
        if failure is not None:
            return error_from(failure)
    text = str(error.get("message")) if isinstance(error, dict) else body[:300].decode(errors="replace").strip()
    return _BY_STATUS.get(status, InternalError)(
        text or f"The server answered {status}.", evidence=f"HTTP status {status}, without an error code of Headrace."
    )


def _from_google(error: dict[str, Any]) -> Failure | None:
    for detail in error.get("details") or []:
        if isinstance(detail, dict) and detail.get("reason") in CODES:
            facts = detail.get("metadata") or {}
            return _failure(detail["reason"], error, **facts)
    return None


def _from_openai(error: dict[str, Any]) -> Failure | None:
    code = "ENDPOINT_NOT_FOUND" if error.get("code") == "model_not_found" else error.get("code")
    return _failure(code, error) if code in CODES else None


def _failure(code: str, error: dict[str, Any], *, evidence: str = "", fix: str = "", **_: str) -> Failure:
    """Undo ``HeadraceError.__str__``, which is what both shapes send as their message."""
    text = str(error.get("message") or "")
    text, _mark, told_fix = text.partition(f" Fix: {fix}")
    text, _mark, told_evidence = text.partition(f" Evidence: {evidence}")
    return Failure(code=code, message=text, evidence=evidence or told_evidence, fix=fix or told_fix)
